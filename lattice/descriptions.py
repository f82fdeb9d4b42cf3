"""What the lattice knows of each artifact, its size and interfaces, stored beside its digest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lattice import wit
from lattice.errors import Invalid

KEY_PREFIX = "artifact."


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One artifact, as its author sees it."""

    digest: str
    size: int
    type: wit.ComponentType

    def encode(self) -> bytes:
        """As it is stored."""
        body = {
            "digest": self.digest,
            "size": self.size,
            "type": wit.component_type_to_json(self.type),
        }
        return json.dumps(body, separators=(",", ":")).encode()


def decode(data: bytes) -> Description:
    """The inverse of `Description.encode`; raises `Invalid`."""
    try:
        body = json.loads(data)
        return Description(
            digest=str(body["digest"]),
            size=int(body["size"]),
            type=wit.component_type_from_json(body["type"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Invalid(f"not the description of an artifact: {error}") from error


def key_of(digest: str) -> str:
    """The key in the state bucket."""
    return KEY_PREFIX + digest.removeprefix("sha256:")


class Descriptions:
    """All descriptions that this process has seen. An artifact's never changes, so none is ever wrong."""

    def __init__(self) -> None:
        self._by_digest: dict[str, Description] = {}
        self.imports = ImportsByDigest(self._by_digest)

    def __iter__(self) -> Iterator[Description]:
        return iter(self._by_digest.values())

    def add(self, description: Description) -> bool:
        """Remember it; returns whether it was new."""
        if description.digest in self._by_digest:
            return False
        self._by_digest[description.digest] = description
        return True

    def get(self, digest: str) -> Description | None:
        return self._by_digest.get(digest)


class ImportsByDigest(Mapping[str, Sequence[str]]):
    """The names of the interfaces that each artifact imports: what the plan reads."""

    def __init__(self, descriptions: Mapping[str, Description]) -> None:
        self._descriptions = descriptions

    def __getitem__(self, digest: str) -> Sequence[str]:
        return tuple(self._descriptions[digest].type.imports)

    def __iter__(self) -> Iterator[str]:
        return iter(self._descriptions)

    def __len__(self) -> int:
        return len(self._descriptions)
