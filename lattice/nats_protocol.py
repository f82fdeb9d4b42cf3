"""What is written to a NATS server to publish, and what is checked before."""

from __future__ import annotations

from collections.abc import Mapping

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
    block = b"" if headers is None else block_of(headers)
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
