"""What is written to a NATS server to publish, and what is checked before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from lattice.bus import check_subject
from lattice.errors import Invalid
from lattice.headers import block_of


def publish_command(
    subject: str, data: bytes, headers: Mapping[str, str] | None, reply: str | None, *, max_payload: int
) -> bytes:
    """The command that publishes; raises `Invalid` for what the server would close the connection over."""
    check_subject(subject)
    if reply:
        check_subject(reply)
    return _command(subject, data, headers, reply or "", max_payload)


def request_command(
    subject: str, data: bytes, headers: Mapping[str, str] | None, inbox: str, *, max_payload: int
) -> bytes:
    """The same for a request: to one of a few subjects, with an inbox of our own."""
    _check_again(subject)
    return _command(subject, data, headers, inbox, max_payload)


_check_again = lru_cache(maxsize=1024)(check_subject)


def _command(
    subject: str, data: bytes, headers: Mapping[str, str] | None, reply: str, max_payload: int
) -> bytes:
    block = b"" if headers is None else block_of(headers)
    size = len(data) + len(block)
    if size > max_payload:
        raise Invalid(
            f"a message of {size} bytes is over the limit of {max_payload}: raise max_payload of the NATS "
            "server, or send less"
        )
    if block:
        head = f"HPUB {subject} {reply} {len(block)} {size}\r\n".encode()
        return b"".join((head, block, data, b"\r\n"))
    return b"".join((f"PUB {subject} {reply} {size}\r\n".encode(), data, b"\r\n"))
