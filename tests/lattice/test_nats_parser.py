"""Messages from a server's bytes, however they are cut into reads."""

from __future__ import annotations

import pytest
from nats.errors import ProtocolError

from lattice.nats_connection import MessageParser
from lattice.nats_parser import MAX_KEPT_BYTES, MAX_KNOWN_LINES, Messages

Heard = list[tuple[object, ...]]

PLAIN = b"MSG a.b 7 5\r\nhello\r\n"
WITH_REPLY = b"MSG a.b 7 re.ply 3\r\nMSG\r\n"
BLOCK = b"NATS/1.0\r\na: b\r\n\r\n"
WITH_HEADERS = b"HMSG a.b 7 18 23\r\n" + BLOCK + b"hello\r\n"
WITH_BOTH = b"HMSG a.b 7 18 18 23\r\n" + BLOCK + b"hello\r\n"
EMPTY = b"MSG a.b 8 0\r\n\r\n"
NUMBER_AS_REPLY = b"MSG a.b 8 12 2\r\n\r\n\r\n"

HEARD: Heard = [
    (7, "a.b", b"", b"", b"hello"),
    (7, "a.b", b"re.ply", b"", b"MSG"),
    ("ping",),
    (7, "a.b", b"", BLOCK, b"hello"),
    (7, "a.b", b"18", BLOCK, b"hello"),
    (8, "a.b", b"", b"", b""),
    (8, "a.b", b"12", b"", b"\r\n"),
]
STREAM = PLAIN + WITH_REPLY + b"PING\r\n" + WITH_HEADERS + WITH_BOTH + EMPTY + NUMBER_AS_REPLY


class _Client:
    """What the library's parser calls."""

    def __init__(self) -> None:
        self.heard: Heard = []

    def hand_over(self, sid: int, subject: str, reply: bytes, block: bytes, data: bytes) -> None:
        self.heard.append((sid, subject, reply, block, data))

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.hand_over(sid, subject.decode(), reply, headers or b"", data)

    async def _process_ping(self) -> None:
        self.heard.append(("ping",))


async def _heard(*reads: bytes) -> Heard:
    client = _Client()
    parser = MessageParser(client, client.hand_over)
    for read in reads:
        await parser.parse(read)
    return client.heard


async def test_hands_over_in_order_what_comes_in_one_read() -> None:
    assert await _heard(STREAM * 3) == HEARD * 3


@pytest.mark.parametrize("size", range(1, len(STREAM)))
async def test_finds_messages_however_they_are_cut(size: int) -> None:
    stream = STREAM * 2
    reads = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert await _heard(*reads) == HEARD * 2


@pytest.mark.parametrize("size", [MAX_KEPT_BYTES - 1, MAX_KEPT_BYTES, MAX_KEPT_BYTES * 3])
async def test_a_large_message_comes_whole_and_so_does_what_follows(size: int) -> None:
    message = f"MSG large 9 {size}\r\n".encode() + bytes(size) + b"\r\n"
    headed = f"HMSG large 9 18 {size + 18}\r\n".encode() + BLOCK + bytes(size) + b"\r\n"
    stream = PLAIN + message + PLAIN + headed + PLAIN
    reads = [stream[at : at + 32768] for at in range(0, len(stream), 32768)]
    larges = [(9, "large", b"", block, bytes(size)) for block in (b"", BLOCK)]
    assert await _heard(*reads) == [HEARD[0], larges[0], HEARD[0], larges[1], HEARD[0]]


@pytest.mark.parametrize(
    "line", [b"MSG\r\n", b"HMSG a 1 5\r\n", b"MSG a 1\r\n", b"MSG a b 3\r\n", b"what\r\n"]
)
async def test_the_library_refuses_what_is_no_message(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        await _heard(PLAIN + line)


async def test_lines_that_recur_are_known_and_no_more_than_so_many() -> None:
    heard: Heard = []
    messages = Messages(lambda *message: heard.append(message))
    for number in range(MAX_KNOWN_LINES + 2):
        messages.take(b"MSG a.%d 7 1\r\nx\r\nMSG a.%d 7 1\r\ny\r\nMSG a 7 re.%d 0\r\n\r\n" % ((number,) * 3))

    last = MAX_KNOWN_LINES + 1
    assert heard[-3:] == [
        (7, f"a.{last}", b"", b"", b"x"),
        (7, f"a.{last}", b"", b"", b"y"),
        (7, "a", b"re.%d" % last, b"", b""),
    ]
    assert len(messages._known) == 2


@pytest.mark.parametrize("begin", [b"MSG ", b"HMSG "])
async def test_a_line_without_end_is_not_kept_for_ever(begin: bytes) -> None:
    client = _Client()
    parser = MessageParser(client, client.hand_over)
    for _ in range(16):
        await parser.parse(begin + b"a" * 1020)
    assert len(parser.buf) > 4096
