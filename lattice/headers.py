"""The headers of a message as they stand before its data. Pure.

A block is read when somebody asks for a header: those who know how a block was written need not read it line
by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from lattice.errors import Invalid

VERSION = "NATS/1.0"

_KEY = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_KEY_THAT_CAME = re.compile(r"[!-9;-~]+")
_STATUS = re.compile(r"NATS/1\.0 +([0-9]{3})(?: +(.*))?")
_LINE_ENDS = str.maketrans("\r\n", "  ")


class HeaderBlock(Mapping[str, str]):
    """Headers by their names. The mutable state is what was read of the block."""

    __slots__ = ("_fields", "raw")

    def __init__(self, raw: bytes) -> None:
        """`raw` is all of the block, from its version to the empty line."""
        self.raw = raw
        self._fields: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return f"HeaderBlock({self.raw!r})"

    def _read(self) -> dict[str, str]:
        if self._fields is None:
            self._fields = _fields(self.raw)
        return self._fields


def _fields(raw: bytes) -> dict[str, str]:
    """The headers that are ones; a status of the server's comes as `Status` and `Description`."""
    first, *lines = raw.decode("utf-8", "replace").split("\r\n")
    found: dict[str, str] = {}
    if (status := _STATUS.fullmatch(first.rstrip())) is not None:
        found["Status"] = status[1]
        if status[2]:
            found["Description"] = status[2]
    for line in lines:
        name, _, value = line.partition(":")
        if _KEY_THAT_CAME.fullmatch(name):
            found[name] = value.strip()
    return found


def block_of(headers: Mapping[str, str]) -> bytes:
    """Headers as they stand before the data, nothing for none; line ends in values become spaces.

    Raises `Invalid`.
    """
    if isinstance(headers, HeaderBlock):
        return headers.raw
    if not headers:
        return b""
    lines = [VERSION]
    for key, value in headers.items():
        _check_key(key)
        lines.append(f"{key}: {value}")
    block = "\r\n".join(lines)
    if block.count("\r") + block.count("\n") != 2 * len(headers):
        return block_of({key: value.translate(_LINE_ENDS) for key, value in headers.items()})
    return block.encode() + b"\r\n\r\n"


def may_be_sent_on(name: str) -> bool:
    """Whether a header that came may stand in another message: the server's own say what it does with one."""
    return not name.lower().startswith("nats-") and _KEY.fullmatch(name) is not None


@lru_cache(maxsize=256)
def _check_key(key: str) -> None:
    if not _KEY.fullmatch(key):
        raise Invalid(f"header {key!r} is not valid: use letters, digits and '-'")
