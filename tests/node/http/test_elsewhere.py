"""Requests to a listener whose node has no replica, over both buses: another node answers them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from lattice import streams
from lattice.bus import Bus
from lattice.caller import Caller
from lattice.errors import LatticeError, Overloaded
from lattice.http import HttpRequest, HttpResponse
from lattice.model import ComponentSpec, new_application
from lattice.serving import Serving
from lattice.state import LatticeState
from lattice.streams import ByteReceiver
from lattice.tasks import open_tasks
from node.capabilities.http.errors import HttpError
from node.engine.host import CallContext
from node.http.dispatcher import Dispatcher
from node.http.handler import HttpHandler
from node.http.limits import HttpLimits
from node.http.protocol import Connection
from node.http.routes import Route, RouteTable
from node.http.site import Site
from node.runner import HttpReplicas
from tests.node.http.sites import Client, connected
from tests.waiting import until

Handle = Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]]
GET = b"GET /path?query HTTP/1.1\r\nHost: a.example\r\n\r\n"
ANSWER = HttpResponse(status=200, headers=(("x", b"y"),), body=b"hello")


@dataclass
class _Place:
    node: str
    load: float
    zone: str | None = None
    is_draining: bool = False


@dataclass
class _Handler:
    """A component's handler on one node."""

    handle_request: Handle = lambda request: ANSWER
    requests: list[HttpRequest] = field(default_factory=list)
    contexts: list[CallContext] = field(default_factory=list)
    cancelled: anyio.Event = field(default_factory=anyio.Event)

    def handle(self, request: HttpRequest, context: CallContext) -> HttpResponse | Awaitable[HttpResponse]:
        self.requests.append(request)
        self.contexts.append(context)
        return self.handle_request(request)

    async def never(self, request: HttpRequest) -> HttpResponse:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled.set()
        return ANSWER


@dataclass
class _Replicas:
    """Those of one node; none without a handler."""

    handler: HttpHandler | None = None

    def http(self, component: str) -> HttpHandler | None:
        return self.handler

    def serves(self, component: str) -> bool:
        return self.handler is not None

    def exchange(self, *args: Any) -> Any:
        return HttpReplicas(self).exchange(*args)  # type: ignore[arg-type]


class World:
    """A listener on `NA`, which has no replica, and other nodes."""

    def __init__(self, stack: AsyncExitStack, tasks: Any, connect: Callable[[], Any], lattice: str) -> None:
        self.stack, self.tasks, self.connect, self.lattice = stack, tasks, connect, lattice
        self.state = LatticeState()
        self.places: list[_Place] = []
        spec = ComponentSpec.from_dict({"name": "guest", "digest": "sha256:" + "0" * 64})
        self.state.apply(new_application("guest", None, 1, components=[spec]), 0.0)
        self.state.placements = lambda component: self.places  # type: ignore[method-assign, assignment, return-value]

    async def serve(self, node: str, handler: _Handler) -> Serving:
        """Another node with a replica; the first one is asked first."""
        bus: Bus = await self.stack.enter_async_context(self.connect())
        caller = Caller(bus, self.lattice, self.state, name=node.lower(), node=node, knows_all=lambda: True)
        caller.start(self.tasks)
        serving = Serving(
            bus,
            self.lattice,
            node,
            local=_Replicas(handler),  # type: ignore[arg-type]
            caller=caller,
            max_calls=100,
            is_quiet=lambda: False,
        )
        await serving.start(self.tasks)
        self.places.append(_Place(node, load=float(len(self.places))))
        return serving

    @asynccontextmanager
    async def listening(self, **limits: Any) -> AsyncIterator[Far]:
        """The listener."""
        bus: Bus = await self.stack.enter_async_context(self.connect())
        caller = Caller(bus, self.lattice, self.state, name="far", node="NA", knows_all=lambda: True)
        caller.start(self.tasks)
        dispatcher = Dispatcher(self.state, _Replicas(), caller, HttpLimits(**limits), name="far")
        route = Route(host="", prefix="", component="guest", application="guest", incarnation=1)
        dispatcher.table = RouteTable([route])
        async with anyio.create_task_group() as tasks:
            site = Site(dispatcher, HttpLimits(), tasks)
            tasks.start_soon(site.run)
            loop = asyncio.get_running_loop()
            server = await loop.create_server(lambda: Connection(site), "127.0.0.1", 0)
            try:
                yield Far(site, caller, server.sockets[0].getsockname()[1])
            finally:
                server.close()
                tasks.cancel_scope.cancel()
        site.abort()


@dataclass
class Far:
    """The listener, and what it calls by."""

    site: Site
    caller: Caller
    port: int

    def client(self) -> AbstractAsyncContextManager[Client]:
        return connected(self.port)


@pytest.fixture
async def world(connect: Callable[[], Any], lattice_name: str) -> AsyncIterator[World]:
    async with open_tasks() as tasks, AsyncExitStack() as stack:
        yield World(stack, tasks, connect, lattice_name)
        tasks.cancel_scope.cancel()


async def test_a_request_crosses_and_its_answer_comes_back(world: World) -> None:
    handler = _Handler()
    await world.serve("N1", handler)

    async with world.listening() as far, far.client() as client:
        await client.send(GET)
        response = await client.response()

    assert (response.status, response.header("x"), response.body) == (200, b"y", b"hello")
    (request,), (context,) = handler.requests, handler.contexts
    assert (request.method, request.authority, request.path) == ("GET", "a.example", "/path?query")
    assert dict(request.headers)["traceparent"] == (context.traceparent or "").encode()
    assert (context.hops, context.caller) == (1, "far")


async def test_requests_that_wait_for_their_answers_are_no_tasks(world: World) -> None:
    handler = _Handler()
    handler.handle_request = handler.never
    await world.serve("N1", handler)

    async with world.listening() as far, far.client() as one, far.client() as two:
        await one.send(GET)
        await two.send(GET)
        await until(lambda: len(handler.requests) == 2)

        assert len(far.site.prompt_tasks) == 2


async def test_requests_of_one_connection_are_answered_in_their_order(world: World) -> None:
    async def later(request: HttpRequest) -> HttpResponse:
        await anyio.lowlevel.checkpoint()
        return HttpResponse(status=200, body=request.path.encode())

    handler = _Handler(lambda request: later(request) if request.path == "/0" else ANSWER)
    await world.serve("N1", handler)

    async with world.listening() as far, far.client() as client:
        await client.send(b"".join(GET.replace(b"/path?query", b"/%d" % number) for number in range(5)))
        bodies = [(await client.response()).body for _ in range(5)]

    assert bodies == [b"/0", b"hello", b"hello", b"hello", b"hello"]


async def test_a_client_that_leaves_ends_the_callee(world: World) -> None:
    handler = _Handler()
    handler.handle_request = handler.never
    await world.serve("N1", handler)

    async with world.listening() as far:
        async with far.client() as client:
            await client.send(GET)
            await until(lambda: len(handler.requests) == 1)
        with anyio.fail_after(5):
            await handler.cancelled.wait()
        await until(lambda: not far.site.connections and not len(far.site.prompt_tasks))

        handler.handle_request = lambda request: ANSWER
        async with far.client() as client:
            await client.send(GET)
            assert (await client.response()).status == 200


async def test_a_listener_that_ends_ends_what_it_asked_for(world: World) -> None:
    handler = _Handler()
    handler.handle_request = handler.never
    await world.serve("N1", handler)

    async with contextlib.AsyncExitStack() as clients:
        async with world.listening() as far:
            client = await clients.enter_async_context(far.client())
            await client.send(GET)
            await until(lambda: len(handler.requests) == 1)
        with anyio.fail_after(5):
            await handler.cancelled.wait()


async def test_a_lost_node_is_told_at_once(world: World) -> None:
    handler = _Handler()
    handler.handle_request = handler.never
    await world.serve("N1", handler)

    async with world.listening() as far, far.client() as client:
        await client.send(GET)
        await until(lambda: len(handler.requests) == 1)
        far.caller.node_lost("N1")
        with anyio.fail_after(5):  # the request itself may take thirty
            response = await client.response()

    assert response.status == 502 and b"n1 was lost" in response.body


def _full(error: LatticeError) -> Handle:
    def handle(request: HttpRequest) -> HttpResponse:
        raise error

    return handle


async def test_what_one_replica_does_not_begin_another_one_answers(world: World) -> None:
    full, free = _Handler(_full(Overloaded("full"))), _Handler()
    await world.serve("N1", full)
    await world.serve("N2", free)

    async with world.listening() as far, far.client() as client:
        await client.send(GET)
        assert (await client.response()).status == 200

    assert [context.attempt for context in (*full.contexts, *free.contexts)] == [1, 2]


async def test_what_no_replica_begins_is_said_to_the_client(world: World) -> None:
    await world.serve("N1", _Handler(_full(Overloaded("full"))))

    async with world.listening() as far, far.client() as client:
        await client.send(GET)
        response = await client.response()

    assert response.status == 503 and b"full" in response.body


async def test_an_answer_that_takes_too_long_is_not_waited_for(world: World) -> None:
    handler = _Handler()
    handler.handle_request = handler.never
    await world.serve("N1", handler)

    async with world.listening(request_seconds=0.1) as far, far.client() as client:
        await client.send(GET)
        assert (await client.response()).status == 504
        with anyio.fail_after(5):
            await handler.cancelled.wait()


async def test_an_answer_that_breaks_off_there_breaks_off_here(world: World) -> None:
    error = HttpError("HTTP-response-body-size", 5, reason="the component wrote 5 bytes and had announced 9")

    async def cut(request: HttpRequest) -> HttpResponse:
        sender, receiver = streams.pair()
        world.tasks.start_soon(_send_and_fail, sender, b"early", error)
        return HttpResponse(status=200, headers=(("content-length", b"9"),), body=receiver)

    await world.serve("N1", _Handler(cut))

    async with world.listening() as far, far.client() as client:
        await client.send(GET)
        with anyio.fail_after(5):
            said = await client.read_all()

    assert said.endswith(b"\r\n\r\nearly")


async def test_streams_cross_in_both_directions(world: World) -> None:
    async def echo(request: HttpRequest) -> HttpResponse:
        sender, receiver = streams.pair()
        world.tasks.start_soon(_copy, request.body, sender)
        return HttpResponse(status=200, body=receiver)

    await world.serve("N1", _Handler(echo))
    data = bytes(range(256)) * 2000
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data)

    async with world.listening() as far, far.client() as client:
        await client.send(head + data)
        response = await client.response()
        await client.send(GET)
        again = await client.response()

    assert response.body == data and again.body == b""


async def _send_and_fail(sender: streams.ByteSender, data: bytes, error: LatticeError) -> None:
    await sender.send(data)
    await sender.fail(error)


async def _copy(body: ByteReceiver | bytes, sender: streams.ByteSender) -> None:
    if not isinstance(body, bytes):
        async for chunk in body:
            await sender.send(chunk)
    await sender.end({})
