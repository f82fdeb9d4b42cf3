"""What is written to a NATS server to publish, and what is checked before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from lattice.bus import check_subject
from lattice.errors import Invalid

_HEADER_KEY = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LINE_ENDS = str.maketrans("\r\n", "  ")


def publish_command(
    subject: str, data: bytes, headers: Mapping[str, str] | None, reply: str | None, *, max_payload: int
) -> bytes:
    """The command that publishes; raises `Invalid` for what the server would close the connection over."""
    check_subject(subject)
    if reply:
        check_subject(reply)
    block = header_block(headers) if headers else b""
    size = len(data) + len(block)
    if size > max_payload:
        raise Invalid(
            f"a message of {size} bytes is over the limit of {max_payload}: raise max_payload of the NATS "
            "server, or send less"
        )
    if block:
        head = f"HPUB {subject} {reply or ''} {len(block)} {size}\r\n".encode()
        return b"".join((head, block, data, b"\r\n"))
    return b"".join((f"PUB {subject} {reply or ''} {size}\r\n".encode(), data, b"\r\n"))


def header_block(headers: Mapping[str, str]) -> bytes:
    """Headers as they stand before the data; line ends in values become spaces."""
    lines = ["NATS/1.0"]
    for key, value in headers.items():
        _check_header_key(key)
        lines.append(f"{key}: {value}")
    block = "\r\n".join(lines)
    if block.count("\r") + block.count("\n") != 2 * len(headers):
        return header_block({key: value.translate(_LINE_ENDS) for key, value in headers.items()})
    return (block + "\r\n\r\n").encode()


@lru_cache(maxsize=256)
def _check_header_key(key: str) -> None:
    if not _HEADER_KEY.fullmatch(key):
        raise Invalid(f"header {key!r} is not valid: use letters, digits and '-'")
