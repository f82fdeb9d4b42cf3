"""When a connection writes what is sent: at once where a turn of the loop has one message, else together."""

from __future__ import annotations

import pytest
from anyio.lowlevel import checkpoint

from lattice import nats_connection
from lattice.nats_connection import NatsConnection


class _Socket:
    """Notes what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)


@pytest.fixture
def socket() -> _Socket:
    return _Socket()


@pytest.fixture
def connection(socket: _Socket) -> NatsConnection:
    made = NatsConnection(on_lost=lambda connection: None, on_denied=lambda what, subject: None)
    made._transport = socket  # type: ignore[assignment]
    return made


async def _turn(connection: NatsConnection, *commands: bytes) -> None:
    for command in commands:
        connection.send(command)
    await checkpoint()


async def test_a_message_alone_is_written_at_once(connection: NatsConnection, socket: _Socket) -> None:
    connection.send(b"one")

    assert socket.writes == [b"one"]


async def test_many_in_a_turn_are_written_together_from_the_second_turn_on(
    connection: NatsConnection, socket: _Socket
) -> None:
    await _turn(connection, b"a", b"b", b"c")
    await _turn(connection, b"d", b"e", b"f")
    await checkpoint()

    assert socket.writes == [b"a", b"bc", b"def"]


async def test_turns_with_many_are_written_together_with_those_right_behind_them(
    connection: NatsConnection, socket: _Socket
) -> None:
    await _turn(connection, b"a", b"b")
    await _turn(connection, b"c", b"d")
    await _turn(connection, b"e")
    held = list(socket.writes)
    await checkpoint()

    assert held == [b"a", b"b"]
    assert socket.writes == [b"a", b"b", b"cde"]


async def test_of_very_many_in_a_turn_some_are_written_before_the_others(
    connection: NatsConnection, socket: _Socket
) -> None:
    most = nats_connection.HELD_MESSAGES
    await _turn(connection, b"a", b"b")
    await _turn(connection, *[b"c"] * (2 * most + 1))
    await checkpoint()

    assert socket.writes == [b"a", b"b", b"c" * most, b"c" * most, b"c"]


async def test_after_a_turn_with_one_the_next_is_written_at_once(
    connection: NatsConnection, socket: _Socket
) -> None:
    await _turn(connection, b"a", b"b")
    await _turn(connection, b"c")
    await checkpoint()
    connection.send(b"d")

    assert socket.writes == [b"a", b"b", b"c", b"d"]


async def test_in_a_long_turn_none_waits_for_all_others(
    connection: NatsConnection, socket: _Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _turn(connection, b"a", b"b")
    monkeypatch.setattr(nats_connection, "HELD_SECONDS", 0.0)
    await _turn(connection, b"c", b"d", b"e")
    await checkpoint()

    assert socket.writes == [b"a", b"b", b"cd", b"e"]


async def test_what_is_unsent_is_written_before_the_connection_is_lost(
    connection: NatsConnection, socket: _Socket
) -> None:
    await _turn(connection, b"a", b"b")
    connection.send(b"c")
    connection.lose(ConnectionError("it broke"))
    await checkpoint()

    assert socket.writes == [b"a", b"b", b"c"]
