"""Requests made at random, answered alike inside the shim and by host functions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lattice.http import HttpRequest, HttpResponse
from lattice.streams import receive_body
from node.capabilities.http.host_handler import HostHandler
from node.capabilities.http.shim_handler import ShimHandler
from node.capabilities.http.shim_text import read_response, request_text, take_fields
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.packing import pack, unpack
from node.http.handler import response_of
from tests.node.capabilities.http.conftest import Handlers, context
from tests.node.capabilities.http.corpus import LAB
from tests.node.capabilities.http.shims import Shims

TOKEN = st.text("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=20)
VALUE = st.binary(max_size=60).map(lambda data: bytes(byte for byte in data if byte >= 0x20 and byte != 0x7F))
PATH = st.text(
    st.characters(
        min_codepoint=0x21, max_codepoint=0x2FFF, exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]
    ),
    max_size=40,
)
REQUESTS = st.builds(
    HttpRequest,
    method=st.sampled_from(["GET", "POST", "PURGE", "x"]),
    scheme=st.sampled_from(["http", "https"]),
    authority=st.sampled_from(["example.com", "[::1]:8080"]),
    path=PATH.map(lambda text: f"/describe{text}"),
    headers=st.lists(st.tuples(TOKEN, VALUE), max_size=12).map(tuple),
)


@pytest.fixture
async def both(
    handlers: Handlers, compiler: Compiler, engine: Engine
) -> AsyncIterator[tuple[HostHandler, ShimHandler]]:
    shims = Shims(compiler, engine, None)
    try:
        yield await handlers.make(LAB), await shims.make(LAB, reuse=1000)
    finally:
        await shims.aclose()


async def _seen(handler: HostHandler | ShimHandler, request: HttpRequest) -> tuple[int, bytes]:
    response: HttpResponse = await response_of(handler, request, context())
    body = response.body
    if not isinstance(body, bytes):  # the guest was still running, as on a busy machine
        body = await receive_body(body, max_bytes=1 << 20)
    return response.status, body


async def test_guests_see_the_same_request_by_either_implementation(
    both: tuple[HostHandler, ShimHandler],
) -> None:
    host, shim = both
    for request in _examples(100):
        assert await _seen(shim, request) == await _seen(host, request), request


def _examples(count: int) -> list[HttpRequest]:
    """Requests drawn by Hypothesis; its own loop can't be awaited in."""
    found: list[HttpRequest] = []

    @settings(
        max_examples=count,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(REQUESTS)
    def draw(request: HttpRequest) -> None:
        found.append(request)

    draw()
    return found


@given(REQUESTS, st.binary(max_size=100))
def test_a_requests_text_is_utf8_whatever_it_holds(request: HttpRequest, body: bytes) -> None:
    text = request_text(request, body, has_more=False)

    flags, _, rest = text.partition(b"\n")
    text.decode()
    plain = unpack(rest) if flags == b"x" else rest
    *lines, rest = plain.split(b"\n", 4)
    assert [line.decode() for line in lines] == [
        request.method,
        request.scheme,
        request.authority,
        request.path,
    ]
    assert take_fields(rest) == (request.headers, body)


@given(
    st.lists(st.tuples(TOKEN, VALUE), max_size=8), st.lists(st.tuples(TOKEN, VALUE), max_size=3), st.binary()
)
def test_a_response_is_read_as_it_was_written(
    headers: list[tuple[str, bytes]], trailers: list[tuple[str, bytes]], body: bytes
) -> None:
    lines = [
        b"".join(b"%b:%b\n" % (name.encode(), value) for name, value in part) for part in (headers, trailers)
    ]
    plain = b"201\n%b\n%b\n%b" % (lines[0], lines[1], body)

    response = read_response(b"x" + pack(plain))

    assert response is not None
    assert (response.status, response.body) == (201, body)
    assert (response.headers, response.trailers) == (tuple(headers), tuple(trailers))
