"""The messages in what a NATS server sends; pure.

The library's parser removes each line and each payload from the front of its buffer and awaits
three coroutines for each message. Here the messages of one read are found by their offsets, and
handed over by plain calls, in half the time. What is no message, or a large one that is not whole,
is left to the library.
"""

from __future__ import annotations

import re
from collections.abc import Callable

HandOver = Callable[[int, bytes, bytes, bytes, bytes], None]
"""Takes a message: the subscription's number, subject, reply, block of headers (both may be empty), data."""

MAX_LINE_BYTES = 4096
MAX_KEPT_BYTES = 64 * 1024
"""An unfinished message that is larger goes to the library, which appends to it without copying it anew."""

_MESSAGE = re.compile(rb"MSG ([^\s]+) ([0-9]+) (?:([^\s]+) )?([0-9]+)()\r\n")
_WITH_HEADERS = re.compile(rb"HMSG ([^\s]+) ([0-9]+) (?:([^\s]+) )?([0-9]+) ([0-9]+)\r\n")


class Messages:
    """The mutable state is the beginning of a message whose end is still to come."""

    def __init__(self, hand_over: HandOver) -> None:
        self._hand_over = hand_over
        self._kept = b""

    def reset(self) -> None:
        """Forget what came: another connection begins."""
        self._kept = b""

    def take(self, data: bytes) -> bytes:
        """Hand over the messages at the beginning of what was read; returns what is for the library.

        The next read belongs to the library, too, until it has used up what it was given.
        """
        data, self._kept = self._kept + data if self._kept else data, b""
        at, size = 0, len(data)
        while at < size:
            line = _MESSAGE.match(data, at) or _WITH_HEADERS.match(data, at)
            if line is None:
                rest = data[at:]
                return self._keep(rest, MAX_LINE_BYTES) if _may_begin(rest) else rest
            subject, number, reply, length, whole_length = line.groups()
            begin = line.end()
            end = begin + int(whole_length or length)
            if end + 2 > size:
                return self._keep(data[at:], MAX_KEPT_BYTES if end - at < MAX_KEPT_BYTES else 0)
            middle = begin + int(length) if whole_length else begin
            self._hand_over(int(number), subject, reply or b"", data[begin:middle], data[middle:end])
            at = end + 2
        return b""

    def _keep(self, rest: bytes, most: int) -> bytes:
        """Keep what is not whole for the next read; returns it if it is too large."""
        if len(rest) >= most:
            return rest
        self._kept = rest
        return b""


def _may_begin(rest: bytes) -> bool:
    """Whether a line that is not whole may become a message's."""
    return b"\r\n" not in rest and any(
        rest.startswith(begin) or begin.startswith(rest) for begin in (b"MSG ", b"HMSG ")
    )
