"""The host's end of the shim: what the shim can't do inside the sandbox by itself.

One function, `ask`, takes a question and gives an answer, both texts (shim/host.c lists them). Another,
`wait`, is for guests that wait for the shim's pollables and the host's at once. All that belongs to a call,
the streams and requests under way, is its `ShimExchange`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio
import structlog

from lattice.errors import LatticeError, Trapped
from lattice.http import INLINE_BYTES, Body, Headers, HttpRequest, HttpResponse, as_trailers
from lattice.pouring import Pouring
from lattice.streams import ByteReceiver
from node.capabilities.http import incoming_body, outgoing_body, shim_text
from node.capabilities.http.client import HttpClient, RequestOptions
from node.capabilities.http.errors import BodyFailed, HttpError, from_lattice
from node.capabilities.http.fields import Fields
from node.capabilities.http.incoming_body import BodyBuffer
from node.capabilities.http.outgoing import MAX_REQUESTS, PolicyOf
from node.capabilities.http.outgoing_body import BodyPipe
from node.capabilities.http.policy import DENY_ALL
from node.capabilities.wasi.cli import Exited
from node.capabilities.wasi.io_interfaces import POLL_LENGTH
from node.capabilities.wasi.pollables import Deadline, Disarm, Pollable, Signal, Source, wait_any
from node.capabilities.wasi.streams import StreamClosed
from node.engine.host import PAUSE, GuestCall, HostInterface
from node.engine.packing import unpack
from node.engine.shim_text import HOST_INTERFACE

log = structlog.get_logger()

Answer = str | Awaitable[str]

SEED_BYTES = 32

EXCHANGE = "lattice:shim"
"""Where an instance's state has the exchange of the call that it is in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimSettings:
    """What guests inside the shim find around them."""

    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    client: HttpClient | None = None
    """For requests to the network; without it all are denied."""
    policy_of: PolicyOf = lambda call: DENY_ALL


def shim_interface(settings: ShimSettings) -> HostInterface:
    """What a component that was put together with the shim imports."""

    def ask(call: GuestCall, question: str) -> object:
        if question[0] in "=x":  # the whole response: the driver keeps it without asking here
            call.instance.answer_early(question.encode())
            return ""
        return _OPERATIONS[question[0]](_exchange(call), settings, question[1:])

    def wait(call: GuestCall, question: str, pollables: Sequence[Pollable]) -> Answer:
        return _wait_for_both(_exchange(call), question, pollables)

    functions: Mapping[str, Callable[..., object]] = {"ask": ask, "wait": wait}
    return HostInterface(name=HOST_INTERFACE, functions=functions, channelled=frozenset({"ask"}))


def _exchange(call: GuestCall) -> ShimExchange:
    """The exchange of a call, which is bound to it at its first question; other exports have one too."""
    known: ShimExchange | None = call.instance.state.get(EXCHANGE)
    if known is not None and known.call is call:
        return known
    exchange = known if known is not None and known.call is None else ShimExchange()
    call.instance.state[EXCHANGE] = exchange
    exchange.begin(call)
    call.at_end(call.instance.part_stores)  # once: after it the sandbox may be in another call
    call.at_end(exchange.close)
    return exchange


class ShimExchange:
    """One call of a guest: its request's body, its response if that streams, its requests to the network."""

    # The mutable state: the streams by their numbers, and the requests. Nothing of it outlives the call.

    __slots__ = ("_body", "_pump", "call", "fetches", "head", "inputs", "outputs", "under_way")

    def __init__(self) -> None:
        self.call: GuestCall | None = None
        self.head: tuple[int, Headers] | None = None
        """Status and fields of a response that has begun to leave; its body is output 0."""
        self.inputs: dict[int, BodyBuffer] = {}
        self.outputs: dict[int, BodyPipe] = {}
        self.fetches: dict[int, _Fetch] = {}
        self.under_way = 0
        """Requests to the network of which something may still come."""
        self._body: tuple[ByteReceiver, Callable[..., None]] | None = None
        self._pump: anyio.CancelScope | None = None

    def read_from(self, body: ByteReceiver, start_soon: Callable[..., None]) -> None:
        """Let the guest read a stream as the request's body, once it asks for anything."""
        self._body = body, start_soon

    def begin(self, call: GuestCall) -> None:
        """Bind it to the guest's call, which reads the request's body from a channel from now on."""
        self.call = call
        if self._body is None:
            return
        body, start_soon = self._body
        buffer = BodyBuffer(is_complete=False)
        self.add_input(0, buffer)
        if isinstance(body, Pouring):
            body.pour_into(buffer)
            return
        self._pump = anyio.CancelScope()
        start_soon(_pump, buffer, body, self._pump)

    def add_input(self, number: int, buffer: BodyBuffer) -> None:
        """Let the guest read a body as a stream of that number."""
        assert self.call is not None
        self.inputs[number] = buffer
        buffer.move_to(self.call.instance.new_store(number, incoming_body.WINDOW_BYTES, is_input=True))

    def add_output(self, number: int) -> BodyPipe:
        """Let the guest write a body as a stream of that number."""
        assert self.call is not None
        store = self.call.instance.new_store(number, outgoing_body.WINDOW_BYTES, is_input=False)
        pipe = BodyPipe(store=store)
        self.outputs[number] = pipe
        return pipe

    def close(self) -> None:
        """Give up whatever is still under way."""
        self._body = None  # of a guest that never asked: the sandbox's next call must not find it
        if self._pump is not None:
            self._pump.cancel()
        for fetch in self.fetches.values():
            fetch.scope.cancel()
        for number, pipe in self.outputs.items():
            if number:
                pipe.abort(HttpError("HTTP-protocol-error", reason="the component ended before its request"))

    def input(self, number: str) -> BodyBuffer:
        return self.inputs[int(number)]


async def _pump(buffer: BodyBuffer, body: ByteReceiver, scope: anyio.CancelScope) -> None:
    with scope:
        await buffer.pump(body)


# Streams


def _chunk(buffer: BodyBuffer) -> str:
    """What of a body is here: data, the end with its trailers, or why it broke."""
    try:
        return shim_text.data_text(buffer.read(INLINE_BYTES))
    except BodyFailed as failure:
        return shim_text.error_text(failure.error)
    except StreamClosed:
        if buffer.trailers is None:
            return "e"
        return "e" + shim_text.fields_text(buffer.trailers.headers()).decode("utf-8", "replace")


async def _read(exchange: ShimExchange, settings: ShimSettings, text: str) -> str:
    buffer = exchange.input(text)
    await wait_any((_Reading(buffer),))
    return _chunk(buffer)


def _read_now(exchange: ShimExchange, settings: ShimSettings, text: str) -> str:
    buffer = exchange.input(text)
    return _chunk(buffer) if buffer.is_readable else "n"


def _split(text: str) -> tuple[int, str]:
    number, _, rest = text.partition("\n")
    return int(number), rest


def _data(text: str) -> tuple[int, bytes]:
    number, rest = _split(text)
    return number, unpack(rest.encode())


def _give(pipe: BodyPipe, data: bytes) -> str:
    try:
        pipe.room()
    except StreamClosed:
        return "!"
    pipe.write(data)
    return ""


async def _write_when_taken(pipe: BodyPipe, data: bytes) -> str:
    await wait_any((_Writing(pipe),))
    return _give(pipe, data)


def _write(exchange: ShimExchange, settings: ShimSettings, text: str) -> Answer:
    number, data = _data(text)
    pipe = exchange.outputs[number]
    return _give(pipe, data) if _Writing(pipe).is_ready() else _write_when_taken(pipe, data)


def _offer(exchange: ShimExchange, settings: ShimSettings, text: str) -> str:
    number, data = _data(text)
    pipe = exchange.outputs[number]
    return _give(pipe, data) if _Writing(pipe).is_ready() else "n"


def _end(exchange: ShimExchange, settings: ShimSettings, text: str) -> str:
    number, trailers = _split(text)
    exchange.outputs[number].finish(shim_text.read_trailers(trailers))
    return ""


def _break(exchange: ShimExchange, settings: ShimSettings, text: str) -> str:
    reason = "the component broke its body off before it was finished"
    exchange.outputs[int(text)].fail(HttpError("HTTP-protocol-error", reason=reason))
    return ""


class _Reading:
    """The source of a pollable: a body that is read."""

    __slots__ = ("_buffer",)

    def __init__(self, buffer: BodyBuffer) -> None:
        self._buffer = buffer

    def is_ready(self) -> bool:
        return self._buffer.is_readable

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._buffer.arm(wake)


class _Writing:
    """The source of a pollable: a body that is written."""

    __slots__ = ("_pipe",)

    def __init__(self, pipe: BodyPipe) -> None:
        self._pipe = pipe

    def is_ready(self) -> bool:
        return self._pipe.is_over or self._pipe.room() > 0

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._pipe.arm(wake)


# The response


def _begin_response(
    exchange: ShimExchange, settings: ShimSettings, text: str, *, is_packed: bool = False
) -> object:
    """The response leaves while the guest runs: whoever waits for it gets its head now."""
    exchange.head = shim_text.read_head(unpack(text.encode()) if is_packed else text.encode())
    exchange.add_output(0)
    return PAUSE


# Requests to the network


class _Fetch:
    """A request under way; also the source that a guest's pollables wait for."""

    # The mutable state: what came of it, and the scope that it runs in.

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.answer: str | None = None
        self.buffer: BodyBuffer | None = None
        self._changed = Signal()

    def is_ready(self) -> bool:
        return self.answer is not None

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._changed.arm(wake)

    def settle(self, answer: str) -> None:
        self.answer = answer
        self._changed.notify()

    async def run(
        self,
        exchange: ShimExchange,
        settings: ShimSettings,
        request: HttpRequest,
        options: RequestOptions,
    ) -> None:
        """Make the request, and receive the response's body until it ends, or nobody wants it."""
        assert exchange.call is not None
        try:
            await self._run(exchange.call, settings, request, options)
        finally:
            exchange.under_way -= 1

    async def _run(
        self, call: GuestCall, settings: ShimSettings, request: HttpRequest, options: RequestOptions
    ) -> None:
        assert settings.client is not None
        with self.scope:
            try:
                response = await settings.client.send(
                    request, options, settings.policy_of(call), component=call.component
                )
                await self._receive(response)
            except LatticeError as error:
                self._refuse(from_lattice(error))
            except Exception:  # it must not end the requests of others
                log.exception("http.request-failed", component=call.component)
                self._refuse(HttpError("internal-error", "the host failed"))

    def _refuse(self, error: HttpError) -> None:
        if self.buffer is None:
            self.settle(shim_text.error_text(error))
        else:  # the guest has the head already, and reads
            self.buffer.break_off(error)

    async def _receive(self, response: HttpResponse) -> None:
        body = response.body
        head = b"%d\n%b" % (response.status, shim_text.fields_text(response.headers))
        if isinstance(body, bytes):
            if response.trailers:
                self.buffer = BodyBuffer(body, Fields.received(response.trailers))
                self.settle(shim_text.message(b"+" + head))
            else:
                self.settle(shim_text.message(b"." + head + body))
            return
        self.buffer = BodyBuffer(is_complete=False)
        self.settle(shim_text.message(b"+" + head))
        async with body:
            await self.buffer.pump(body)


def _fetch(exchange: ShimExchange, settings: ShimSettings, text: str, *, is_packed: bool = False) -> str:
    data = unpack(text.encode()) if is_packed else text.encode()
    *lines, rest = data.split(b"\n", 9)
    number = int(lines[0])
    fetch = exchange.fetches[number] = _Fetch()
    body = _fetch_body(exchange, number, has_more=lines[8] == b"+", rest=rest)
    call = exchange.call
    assert call is not None
    if settings.client is None or exchange.under_way >= MAX_REQUESTS:
        case = "HTTP-request-denied" if settings.client is None else "connection-limit-reached"
        fetch.settle(shim_text.error_text(HttpError(case)))
        if isinstance(body, BodyPipe):
            body.close()  # else it would be kept, and its guest wait for somebody to take the rest
        return ""
    request = HttpRequest(
        method=lines[1].decode(),
        scheme=lines[2].decode(),
        authority=lines[3].decode(),
        path=lines[4].decode(),
        headers=_traced(shim_text.take_fields(rest)[0], call),
        body=body,
    )
    exchange.under_way += 1
    settings.client.tasks.start_soon(fetch.run, exchange, settings, request, _options(lines[5:8]))
    return ""


def _fetch_body(exchange: ShimExchange, number: int, *, has_more: bool, rest: bytes) -> Body:
    _, rest = shim_text.take_fields(rest)
    trailers, data = shim_text.take_fields(rest)
    if not has_more and not trailers:
        return data
    pipe = exchange.add_output(number)
    pipe.write(data)
    if not has_more:
        pipe.finish(as_trailers(trailers))
    return pipe


def _traced(headers: Headers, call: GuestCall) -> Headers:
    """With the trace of the call that the guest is in, unless the guest traces by itself."""
    trace = call.context.traceparent
    if trace is None or any(name == "traceparent" for name, _ in headers):
        return headers
    return (*headers, ("traceparent", trace.encode()))


def _options(lines: list[bytes]) -> RequestOptions:
    connect, first_byte, between_bytes = (int(line) / 1e9 if line else None for line in lines)
    return RequestOptions(
        connect_timeout=connect, first_byte_timeout=first_byte, between_bytes_timeout=between_bytes
    )


def _give_up(exchange: ShimExchange, settings: ShimSettings, text: str) -> str:
    exchange.fetches[int(text)].scope.cancel()
    return ""


def _take(exchange: ShimExchange, settings: ShimSettings, text: str) -> str:
    number = int(text)
    fetch = exchange.fetches[number]
    if fetch.answer is None:
        return "n"
    if fetch.buffer is not None and number not in exchange.inputs:
        exchange.add_input(number, fetch.buffer)
    return fetch.answer


# Waiting, and the rest of WASI


async def _wait(exchange: ShimExchange, settings: ShimSettings, text: str) -> str:
    return await _first_of(_sources(exchange, text))


def _wait_for_both(exchange: ShimExchange, question: str, pollables: Sequence[Pollable]) -> Answer:
    """Wait for what the shim has pollables of, by lines, and for what the host has, numbered behind them."""
    sources = [*_sources(exchange, question[1:]), *(pollable.source for pollable in pollables)]
    if len(sources) > POLL_LENGTH:
        raise Trapped(f"the component polled {len(sources)} pollables at once; {POLL_LENGTH} are the limit")
    if question[0] == "p":
        return _first_of(sources)
    return "\n".join(str(number) for number, source in enumerate(sources) if source.is_ready())


async def _first_of(sources: Sequence[Source]) -> str:
    return "\n".join(map(str, await wait_any(sources)))


def _sources(exchange: ShimExchange, text: str) -> list[Source]:
    return [_source(exchange, line) for line in text.split("\n") if line]


def _source(exchange: ShimExchange, line: str) -> Source:
    number = int(line[1:])
    match line[0]:
        case "r":
            return _Reading(exchange.inputs[number])
        case "w":
            return _Writing(exchange.outputs[number])
        case "f":
            return exchange.fetches[number]
    return Deadline(number, time.monotonic_ns)


def _log(
    exchange: ShimExchange,
    settings: ShimSettings,
    text: str,
    *,
    stream: str = "stdout",
) -> str:
    _, data = _data(text)
    assert exchange.call is not None
    exchange.call.log(stream, data)
    return ""


def _environment(exchange: ShimExchange, settings: ShimSettings, text: str) -> str:
    variables = [item for pair in settings.environment.items() if pair[0] for item in pair]
    return "".join(f"{item.replace(chr(0), '')}\0" for item in (*variables, "", *settings.arguments))


def _exit(exchange: ShimExchange, settings: ShimSettings, text: str) -> str:
    raise Exited(int(text))


def _fault(exchange: ShimExchange, settings: ShimSettings, text: str) -> str:
    raise Trapped(f"the component broke a rule of WASI: {text}")


_OPERATIONS: Mapping[str, Callable[[ShimExchange, ShimSettings, str], object]] = {
    "r": _read,
    "R": _read_now,
    "h": _begin_response,
    "H": partial(_begin_response, is_packed=True),
    "w": _write,
    "o": _offer,
    "e": _end,
    "a": _break,
    "s": _fetch,
    "S": partial(_fetch, is_packed=True),
    "c": _give_up,
    "t": _take,
    "p": _wait,
    "m": lambda *_: str(time.monotonic_ns()),
    "y": lambda *_: str(time.time_ns()),
    "k": lambda *_: os.urandom(SEED_BYTES).hex(),
    "v": _environment,
    "1": _log,
    "2": partial(_log, stream="stderr"),
    "q": _exit,
    "!": _fault,
}
