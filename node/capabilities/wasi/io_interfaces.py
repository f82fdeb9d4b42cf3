"""`wasi:io`: the functions of error, poll and streams over the objects of `pollables` and `streams`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from lattice.errors import Trapped
from node.capabilities.wasi.pollables import Pollable, wait_any
from node.capabilities.wasi.streams import (
    InputStream,
    OutputStream,
    SlowInput,
    SlowOutput,
    StreamClosed,
    StreamFailed,
    slow_read,
)
from node.engine.host import GuestCall, HostFunction, HostInterface

POLL_LENGTH = 1024
"""So many pollables may be waited for at once: arming them takes some milliseconds of the event loop."""

CLOSED = {"err": {"closed": None}}


class IoError:
    """The resource `error`: what went wrong, for people, and for the interface that knows such failures."""

    __slots__ = ("cause", "text")

    def __init__(self, cause: StreamFailed) -> None:
        self.cause = cause
        self.text = str(cause)


def at_once(operation: Callable[..., Any]) -> HostFunction:
    """A host function of a stream's method: its exceptions become the interface's `stream-error`."""

    def function(call: GuestCall, *args: Any) -> Any:
        try:
            return {"ok": operation(*args)}
        except StreamClosed:
            return CLOSED
        except StreamFailed as error:
            return _failed(error)

    return function


def waiting(operation: Callable[..., Awaitable[Any]]) -> HostFunction:
    """Like `at_once`, for a method that may wait."""

    async def function(call: GuestCall, *args: Any) -> Any:
        try:
            return {"ok": await operation(*args)}
        except StreamClosed:
            return CLOSED
        except StreamFailed as error:
            return _failed(error)

    return function


def _failed(error: StreamFailed) -> Any:
    return {"err": {"last-operation-failed": IoError(error)}}


def _method(name: str) -> Callable[..., Any]:
    """A stream's own method of this name."""
    return lambda stream, *args: getattr(stream, name)(*args)


def _if_slow(
    is_slow: Callable[..., bool], slow: Callable[..., Awaitable[Any]], fast: Callable[..., Any]
) -> HostFunction:
    """A method that is done at once with most streams, and awaited with those that take a moment."""
    waits, goes_on = waiting(slow), at_once(fast)

    def function(call: GuestCall, *args: Any) -> Any:
        return (waits if is_slow(*args) else goes_on)(call, *args)

    return function


def _reads_slowly(stream: InputStream, length: int) -> bool:
    return isinstance(stream, SlowInput)


def _writes_slowly(stream: OutputStream, contents: object) -> bool:
    return isinstance(stream, SlowOutput)


def _splices_slowly(stream: OutputStream, source: InputStream, length: int) -> bool:
    return isinstance(stream, SlowOutput) or isinstance(source, SlowInput)


def _skip(stream: InputStream, length: int) -> int:
    return len(stream.read(length))


async def _blocking_skip(stream: InputStream, length: int) -> int:
    return len(await stream.blocking_read(length))


async def _slow_write(stream: SlowOutput, contents: bytes) -> None:
    await stream.slow_write(contents)


async def _slow_write_zeroes(stream: SlowOutput, length: int) -> None:
    stream.check_permit(length)
    await stream.slow_write(bytes(length))


async def _slow_splice(stream: OutputStream, source: InputStream, length: int) -> int:
    if isinstance(stream, SlowOutput):
        return await stream.slow_splice(source, length)
    room = min(length, stream.check_write())
    if not room:
        return 0
    contents = await slow_read(source, room)
    stream.write(contents)
    return len(contents)


def _subscribe(call: GuestCall, stream: InputStream | OutputStream) -> Pollable:
    return stream.subscribe()


def _close(call: GuestCall, stream: InputStream | OutputStream) -> None:
    stream.close()
    stream.check_unwatched("a stream")


async def poll(call: GuestCall, pollables: Sequence[Pollable]) -> list[int]:
    """Wait for the first ready ones; raises `Trapped` for an empty list, which would never end."""
    if not pollables:
        raise Trapped("the component polled an empty list, which would never end")
    if len(pollables) > POLL_LENGTH:
        raise Trapped(
            f"the component polled {len(pollables)} pollables at once: at most {POLL_LENGTH} are allowed"
        )
    return await wait_any([pollable.source for pollable in pollables])


async def _block(call: GuestCall, pollable: Pollable) -> None:
    await pollable.block()


def forget(call: GuestCall, resource: Any) -> None:
    """What to do when a guest drops a resource that holds nothing."""


def io_interfaces(version: str) -> tuple[HostInterface, ...]:
    """`wasi:io`, which other capabilities that hand out streams or pollables rely on."""
    error = HostInterface(
        name=f"wasi:io/error@{version}",
        functions={"[method]error.to-debug-string": lambda call, error: error.text},
        resources={"error": forget},
    )
    poll_interface = HostInterface(
        name=f"wasi:io/poll@{version}",
        functions={
            "[method]pollable.ready": lambda call, pollable: pollable.is_ready(),
            "[method]pollable.block": _block,
            "poll": poll,
        },
        resources={"pollable": lambda call, pollable: pollable.drop()},
    )
    return error, poll_interface, _streams(version)


def _streams(version: str) -> HostInterface:
    return HostInterface(
        name=f"wasi:io/streams@{version}",
        functions={
            "[method]input-stream.read": _if_slow(_reads_slowly, _method("blocking_read"), _method("read")),
            "[method]input-stream.blocking-read": waiting(_method("blocking_read")),
            "[method]input-stream.skip": _if_slow(_reads_slowly, _blocking_skip, _skip),
            "[method]input-stream.blocking-skip": waiting(_blocking_skip),
            "[method]input-stream.subscribe": _subscribe,
            "[method]output-stream.check-write": at_once(_method("check_write")),
            "[method]output-stream.write": _if_slow(_writes_slowly, _slow_write, _method("write")),
            "[method]output-stream.blocking-write-and-flush": waiting(_method("blocking_write_and_flush")),
            "[method]output-stream.flush": at_once(_method("flush")),
            "[method]output-stream.blocking-flush": waiting(_method("blocking_flush")),
            "[method]output-stream.subscribe": _subscribe,
            "[method]output-stream.write-zeroes": _if_slow(
                _writes_slowly, _slow_write_zeroes, _method("write_zeroes")
            ),
            "[method]output-stream.blocking-write-zeroes-and-flush": waiting(
                _method("blocking_write_zeroes_and_flush")
            ),
            "[method]output-stream.splice": _if_slow(_splices_slowly, _slow_splice, _method("splice")),
            "[method]output-stream.blocking-splice": waiting(_method("blocking_splice")),
        },
        resources={"input-stream": _close, "output-stream": _close},
    )
