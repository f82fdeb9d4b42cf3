"""The resources of `wasi:keyvalue`, and how their operations become calls over a link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from lattice.errors import Denied, LatticeError, NotFound
from lattice.model import Link
from node.engine.host import GuestCall

PROVIDED = "lattice:keyvalue"
PACKAGE = "wasi:keyvalue"


class Links(Protocol):
    """What buckets need of `node.links.Links`."""

    def names(self, source: str, interface: str) -> list[str]: ...

    def find(self, source: str, interface: str, name: str = ...) -> Link: ...

    async def call(
        self,
        call: GuestCall,
        *,
        interface: str,
        function: tuple[str, str],
        args: Sequence[Any],
        name: str | None = None,
        idempotent: bool = False,
        is_told: bool = False,
    ) -> Any: ...


@dataclass(frozen=True, slots=True)
class Bucket:
    """The resource `bucket`: a name within the namespace of a link. It holds nothing that must be closed."""

    link: str
    """The link's name."""
    name: str = ""
    """Empty for the namespace's own bucket."""


@dataclass(frozen=True, slots=True)
class Cas:
    """The resource `cas`: the state of a key when it was read."""

    bucket: Bucket
    key: str
    value: bytes | None
    version: str


class Refusal(Exception):
    """Raised with the `error` of the interface that the guest gets."""

    def __init__(self, error: Any) -> None:
        super().__init__(error)
        self.error = error


class Client:
    """Asks the provider; holds no state."""

    def __init__(self, links: Links) -> None:
        self.links = links

    async def ask(
        self, call: GuestCall, bucket: Bucket, path: str, *args: Any, idempotent: bool = False
    ) -> Any:
        """The value of `INTERFACE.FUNCTION` of a bucket; raises `Refusal`."""
        guests, provided = _targets(path)
        try:
            result = await self.links.call(
                call,
                interface=guests,
                function=provided,
                args=(bucket.name, *args),
                name=bucket.link,
                idempotent=idempotent,
                is_told=True,
            )
        except LatticeError as error:
            raise Refusal(error_of(error)) from None
        if "err" in result:
            raise Refusal(result["err"])
        return result["ok"]

    async def state(self, call: GuestCall, bucket: Bucket, key: str) -> Cas:
        """The present state of a key; raises `Refusal`."""
        state = await self.ask(call, bucket, "atomics.current", key, idempotent=True)
        return Cas(bucket, key, state["value"], state["version"])


@cache
def _targets(path: str) -> tuple[str, tuple[str, str]]:
    """The guest's interface and the provider's function of `INTERFACE.FUNCTION`; there are a dozen."""
    interface, _, function = path.partition(".")
    return f"{PACKAGE}/{interface}", (f"{PROVIDED}/{interface}", function)


def error_of(error: LatticeError) -> dict[str, Any]:
    """What a guest is told of a call that failed."""
    if isinstance(error, Denied):
        return {"access-denied": None}
    if isinstance(error, NotFound):
        return {"no-such-store": None}
    return {"other": f"{error.code}: {error.message}"}
