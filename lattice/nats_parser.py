"""The messages in what a NATS server sends; pure.

The library's parser removes each line and each payload from the front of its buffer and awaits
three coroutines for each message. Here the messages of one read are found by their offsets, and
handed over by plain calls, in half the time. What is no message, or a large one that is not whole,
is left to the library.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

HandOver = Callable[[int, str, bytes, bytes, bytes], None]
"""Takes a message: the subscription's number, subject, reply, block of headers (both may be empty), data."""

MAX_LINE_BYTES = 4096
MAX_KEPT_BYTES = 64 * 1024
"""An unfinished message that is larger goes to the library, which appends to it without copying it anew."""
MAX_KNOWN_LINES = 1024

_INBOX = b"_INBOX."
"""How the subjects of replies begin. Each has its own, so their lines do not recur."""
_SUBJECT = rb"([^ \t\r\n]+)"
"""The server takes any other byte in a subject, from anybody: none may end the connection."""
LIBRARY_MESSAGE = re.compile(rb"\AMSG %b +([0-9]+) +(%b +)?([0-9]+)\r\n" % (_SUBJECT, _SUBJECT))
LIBRARY_WITH_HEADERS = re.compile(
    rb"\AHMSG %b +([0-9]+) +(%b +)?([0-9]+) +([0-9]+)\r\n" % (_SUBJECT, _SUBJECT)
)
"""With the groups of the library's own expressions, which refuse what the server takes."""


_Line: TypeAlias = tuple[int, str, bytes, int, int]
"""What precedes the data of a message, read: the subscription's number, subject, reply, the bytes of the
headers, with which the message begins, and of all that follows the line."""


def text_of(subject: bytes) -> str:
    """A subject that came; bytes that are no text are shown as such, and match no subject of ours."""
    return subject.decode("utf-8", "replace")


class Messages:
    """The mutable state is the beginning of a message whose end is still to come, and lines that may recur.

    Messages of one subject and size, which come in numbers, have the same line; its meaning is looked up.
    """

    def __init__(self, hand_over: HandOver) -> None:
        self._hand_over = hand_over
        self._kept = b""
        self._known: dict[bytes, _Line] = {}

    def reset(self) -> None:
        """Forget what came: another connection begins."""
        self._kept = b""

    def take(self, data: bytes) -> bytes:
        """Hand over the messages at the beginning of what was read; returns what is for the library.

        The next read belongs to the library, too, until it has used up what it was given.
        """
        data, self._kept = self._kept + data if self._kept else data, b""
        at, size, known, hand_over = 0, len(data), self._known, self._hand_over
        while at < size:
            stop = data.find(b"\r\n", at, at + MAX_LINE_BYTES)
            text = data[at:stop] if stop >= 0 else b""
            line = known.get(text) or self._read(text)
            if line is None:
                rest = data[at:]
                return self._keep(rest, MAX_LINE_BYTES) if _may_begin(rest) else rest
            number, subject, reply, headers, length = line
            begin = stop + 2
            middle, end = begin + headers, begin + length
            if end + 2 > size:
                return self._keep(data[at:], MAX_KEPT_BYTES if end - at < MAX_KEPT_BYTES else 0)
            hand_over(number, subject, reply, data[begin:middle], data[middle:end])
            at = end + 2
        return b""

    def _read(self, text: bytes) -> _Line | None:
        """What a line says; None if it is no message's. Where replies go differs: such lines do not recur."""
        words = text.split(b" ")
        if b"" in words:
            words = [word for word in words if word]
        count, headers = len(words), b"0"
        if count > 4 and words[0] == b"HMSG":
            count, headers = count - 1, words[-2]
        elif words[:1] != [b"MSG"]:
            return None
        if not 4 <= count <= 5:
            return None
        subject, number, length, reply = words[1], words[2], words[-1], words[3] if count == 5 else b""
        if not (number.isdigit() and length.isdigit() and headers.isdigit()):
            return None
        line = int(number), text_of(subject), reply, int(headers), int(length)
        if not reply and not subject.startswith(_INBOX):
            if len(self._known) >= MAX_KNOWN_LINES:
                self._known.clear()
            self._known[text] = line
        return line

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
