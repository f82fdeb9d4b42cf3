"""Standard streams that lead out of a sandbox while it runs."""

from __future__ import annotations

import anyio
import pytest

from lattice.errors import Interrupted
from lattice.streams import pair
from node.capabilities.wasi import Exited
from node.capabilities.wasi.pipes import PIPE_BYTES, PipeInput, PipeOutput, pump_input, pump_output
from node.capabilities.wasi.streams import StreamClosed, StreamFailed
from tests.node.capabilities.wasi.bare_guest import BareGuest

CLOSED = {"closed": None}


async def test_a_guest_reads_what_is_fed_to_its_end() -> None:
    pipe = PipeInput()
    guest = BareGuest(standard_input=pipe)
    stdin = await guest("cli/stdin", "get-stdin")

    assert await guest.stream("input-stream.read", stdin, 9) == b""
    await pipe.feed(b"hello")
    assert await guest.stream("input-stream.blocking-read", stdin, 3) == b"hel"
    pipe.end()
    assert await guest.stream("input-stream.blocking-read", stdin, 9) == b"lo"
    assert await guest.stream("input-stream.blocking-read", stdin, 9) == CLOSED


async def test_a_guest_waits_for_what_comes_later() -> None:
    pipe = PipeInput()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pipe.feed, b"late")

        assert await pipe.blocking_read(9) == b"late"


async def test_feeding_waits_for_a_guest_that_reads_slowly() -> None:
    pipe, total = PipeInput(), 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pipe.feed, bytes(PIPE_BYTES * 3))
        while total < PIPE_BYTES * 3:
            total += len(await pipe.blocking_read(1 << 20))

    assert total == PIPE_BYTES * 3


async def test_a_broken_source_is_an_error_that_the_guest_reads() -> None:
    pipe = PipeInput()
    sender, receiver = pair()
    await sender.send(b"some")
    await sender.fail(Interrupted("the sender died"))

    await pump_input(receiver, pipe)

    assert pipe.read(9) == b"some"
    with pytest.raises(StreamFailed, match="the sender died"):
        pipe.read(9)


async def test_what_a_guest_writes_is_taken_as_bytes_and_not_logged() -> None:
    out, err = PipeOutput(), PipeOutput()
    guest = BareGuest(standard_output=out, standard_error=err)
    for name in ("stdout", "stderr"):
        stream = await guest(f"cli/{name}", f"get-{name}")
        await guest.stream("output-stream.blocking-write-and-flush", stream, name.encode())
    out.end()

    assert (await out.take(), await err.take()) == (b"stdout", b"stderr")
    assert guest.logged == []
    with pytest.raises(anyio.EndOfStream):
        await out.take()


async def test_output_that_is_not_taken_makes_the_guest_wait() -> None:
    pipe, sent = PipeOutput(), 0
    while room := pipe.check_write():
        pipe.write(bytes(room))
        sent += room
    assert (sent, pipe.is_ready()) == (PIPE_BYTES, False)

    assert len(await pipe.take()) == PIPE_BYTES
    assert pipe.is_ready()


async def test_output_is_sent_to_its_end_and_found_closed_when_nobody_receives() -> None:
    pipe = PipeOutput()
    sender, receiver = pair()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pump_output, pipe, sender)
        await pipe.blocking_write_and_flush(b"hello")
        assert await receiver.receive() == b"hello"
        await receiver.aclose()
        await pipe.blocking_write_and_flush(b"lost")

    with pytest.raises(StreamClosed):
        pipe.check_write()


@pytest.mark.parametrize(
    ("function", "argument", "status"), [("exit", {"ok": None}, 0), ("exit-with-code", 7, 7)]
)
async def test_the_exact_status_of_a_command_is_told_where_it_is_wanted(
    function: str, argument: object, status: int
) -> None:
    guest = BareGuest(exact_exit=True)
    assert guest.call is not None
    guest.call.function = "wasi:cli/run@0.2.0#run"

    with pytest.raises(Exited) as raised:
        await guest("cli/exit", function, argument)

    assert raised.value.status == status
