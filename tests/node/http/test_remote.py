"""A request crosses the lattice as it is, with its body, and its response comes back the same."""

from __future__ import annotations

import pytest

from lattice import streams
from lattice.caller import CallRequest
from lattice.clock import now
from lattice.errors import Invalid
from lattice.exchange import Exchange
from lattice.http import HttpRequest, HttpResponse
from lattice.streams import ByteReceiver
from node.engine.host import CallContext
from node.http import remote

CALL = CallRequest(
    component="web",
    interface=remote.INTERFACE,
    function=remote.FUNCTION,
    deadline=now() + 9,
    call_id="c",
    hops=1,
)


class Handler:
    """Remembers what came, and gives it back."""

    def __init__(self) -> None:
        self.request: HttpRequest | None = None
        self.context: CallContext | None = None

    async def handle(self, request: HttpRequest, context: CallContext) -> HttpResponse:
        self.request, self.context = request, context
        return HttpResponse(status=201, headers=(("x", b"\xff"),), body=request.body, trailers=(("t", b"v"),))


ARGS = ["PUT", "https", "a:1", "/b?c", [["x", b"1"], ["x", b"2"]], b"body"]


async def test_a_small_body_travels_with_the_call() -> None:
    handler = Handler()

    exchange = await remote.serve(handler, CALL, ARGS, None)

    assert exchange.body is None
    assert exchange.value == [201, (("x", b"\xff"),), b"body", (("t", b"v"),)]
    assert handler.request is not None and handler.context is not None
    assert handler.request.headers == (("x", b"1"), ("x", b"2"))
    assert (handler.request.method, handler.request.authority) == ("PUT", "a:1")
    assert (handler.context.hops, handler.context.call_id) == (1, "c")


async def test_a_stream_travels_beside_it() -> None:
    sender, receiver = streams.pair()
    await streams.send_body(sender, b"long")

    exchange = await remote.serve(Handler(), CALL, [*ARGS[:5], b""], receiver)

    assert exchange.body is receiver and exchange.value[0] == 201


async def test_a_body_that_nobody_read_is_closed_with_a_whole_answer() -> None:
    class Brief(Handler):
        async def handle(self, request: HttpRequest, context: CallContext) -> HttpResponse:
            return HttpResponse(status=204)

    sender, receiver = streams.pair()
    exchange = await remote.serve(Brief(), CALL, ARGS, receiver)

    assert exchange.body is None
    with pytest.raises(Exception, match="no more"):
        await sender.send(b"x")


@pytest.mark.parametrize(
    "args", [[], {}, ["GET"], [1, 2, 3, 4, [], b""], [*ARGS[:4], [1], b""], [*ARGS[:5], "x"]]
)
async def test_what_is_no_request_is_invalid(args: list[object]) -> None:
    with pytest.raises(Invalid):
        await remote.serve(Handler(), CALL, args, None)


class _FakeCaller:
    def __init__(self, value: object, body: ByteReceiver | None = None) -> None:
        self.value, self.body = value, body
        self.asked: list[object] = []

    async def exchange(
        self, request: CallRequest, args: list[object], body: ByteReceiver | None = None
    ) -> object:

        self.asked = [request, args, body]
        return Exchange(self.value, self.body)


async def test_the_answer_is_read_back() -> None:
    caller = _FakeCaller([200, [["a", b"b"]], b"x", [["t", b"v"]]])
    request = HttpRequest(
        method="GET", scheme="http", authority="a", path="/", headers=(("h", b"v"),), body=b"q"
    )

    response = await remote.send(caller, CALL, request)  # type: ignore[arg-type]

    assert (response.status, response.headers, response.body) == (200, (("a", b"b"),), b"x")
    assert response.trailers == (("t", b"v"),)
    assert caller.asked[1:] == [["GET", "http", "a", "/", (("h", b"v"),), b"q"], None]


@pytest.mark.parametrize(
    "value", [None, [], [200], ["200", [], b""], [200, [["a", "b"]], b""], [200, [], None]]
)
async def test_an_answer_that_is_none_fails(value: object) -> None:
    request = HttpRequest(method="GET", scheme="http", authority="a", path="/")
    with pytest.raises(Exception, match="no HTTP response"):
        await remote.send(_FakeCaller(value), CALL, request)  # type: ignore[arg-type]
