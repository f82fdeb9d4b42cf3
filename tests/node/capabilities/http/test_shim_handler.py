"""What handlers by host functions promise, promised by the shim: the same tests, over the other handler."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import ModuleType
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from lattice.errors import LatticeError, NotFound, Trapped
from lattice.http import HttpResponse
from lattice.pouring import Pouring, Sink
from node.capabilities.http.client import HttpClient
from node.capabilities.http.shim_handler import ShimHandler
from node.capabilities.http.shim_host import EXCHANGE, ShimSettings, shim_interface
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.host import GuestCall
from node.engine.shim_compose import DOOR, DOOR_FUNCTION
from node.http.handler import response_of
from tests.node.capabilities.http import test_http_host_handler, test_http_outgoing
from tests.node.capabilities.http.conftest import context
from tests.node.capabilities.http.shims import Shims, request
from tests.node.engine.bare_instance import BareInstance

LAB = test_http_outgoing.LAB

OTHERWISE_HERE = {
    "test_a_component_without_a_handler_is_told_so",
    "test_a_body_that_was_not_finished_is_never_taken_for_whole",
    "test_a_guest_waits_while_nobody_takes_its_body",
}
"""Rules that have tests of their own below, or belong to the host functions alone."""


@pytest.fixture
async def handlers(compiler: Compiler, engine: Engine, client: HttpClient) -> AsyncIterator[Shims]:
    shims = Shims(compiler, engine, client)
    try:
        yield shims
    finally:
        await shims.aclose()


def _promises(module: ModuleType) -> Mapping[str, Any]:
    found = {name: value for name, value in vars(module).items() if name.startswith("test_")}
    return {name: value for name, value in found.items() if name not in OTHERWISE_HERE}


globals().update(_promises(test_http_host_handler), **_promises(test_http_outgoing))

lab = test_http_outgoing.lab


@pytest.mark.parametrize("fault", ["mid-trap", "leak", "drop", "sized-finish"])
async def test_an_unfinished_response_that_has_not_left_fails_as_a_whole(
    lab: ShimHandler, fault: str
) -> None:
    with pytest.raises(Trapped):
        await response_of(lab, request(path=f"/fault/{fault}"), context())


async def test_what_a_guest_does_after_its_response_changes_nothing_of_that(lab: ShimHandler) -> None:
    with capture_logs() as logs:
        response = await response_of(lab, request(path="/fault/answered-trap"), context())
        with anyio.fail_after(5):
            while not logs:  # noqa: ASYNC110
                await anyio.sleep(0.001)

    assert (response.status, response.body) == (200, b"early")
    assert [entry["event"] for entry in logs] == ["http.failed-after-response"]


async def test_a_response_does_not_wait_for_a_guest_that_computes_on(handlers: Shims) -> None:
    handler = await handlers.make(LAB)

    with capture_logs(), anyio.fail_after(5):
        response = await response_of(handler, request(path="/fault/answered-spin"), context(1))
        in_flight = handlers.pools[0].statistics().in_flight
        await handlers.pools[0].drain()

    assert (response.status, response.body) == (200, b"early")
    assert in_flight == 1


async def test_a_guest_ends_when_nobody_wants_its_body(handlers: Shims) -> None:
    handler = await handlers.make(LAB)

    response = await response_of(handler, request(path="/chunks/100000"), context())
    assert not isinstance(response.body, bytes)
    async with response.body as body:
        total = 0
        while total < 4 << 20:
            total += len(await body.receive())

    with anyio.fail_after(5):
        await handlers.pools[0].drain()  # returns when no call is in flight


@pytest.mark.parametrize(
    ("interface", "function", "said"),
    [
        ("wasi:http/incoming-handler@0.2.0", "handle", "latticectl route put"),
        (DOOR, DOOR_FUNCTION, "it exports `wasi:http/incoming-handler"),
    ],
)
async def test_what_only_requests_reach_can_not_be_called(
    handlers: Shims, interface: str, function: str, said: str
) -> None:
    await handlers.make(LAB)

    with pytest.raises(NotFound, match=said):
        await handlers.pools[0].call(interface, function, [""], context())


class Unread(Pouring):
    """A body that notes whether a guest asked for it."""

    def __init__(self) -> None:
        self.was_poured = False

    @property
    def trailers(self) -> Mapping[str, str]:
        return {}

    async def receive(self) -> bytes:
        raise anyio.EndOfStream

    def pour_into(self, sink: Sink) -> None:
        self.was_poured = True

    def abort(self, error: LatticeError) -> None:
        return None

    async def aclose(self) -> None:
        return None


async def test_a_body_that_its_guest_never_asked_for_is_not_that_of_the_sandboxs_next_call(
    handlers: Shims,
) -> None:
    handler = await handlers.make(LAB, reuse=10, slots=1)
    body = Unread()

    first = await response_of(handler, request(method="PUT", path="/sizes", body=body), context())
    second = await response_of(handler, request(path="/chunks/20"), context())
    assert not isinstance(second.body, bytes)
    async with second.body as chunks:
        async for _ in chunks:
            pass

    assert isinstance(first.body, bytes)
    assert handlers.pools[0].statistics().instances_made == 1
    assert not body.was_poured


async def test_nobody_waits_to_send_the_body_of_a_request_that_was_refused_at_once() -> None:
    ask = shim_interface(ShimSettings()).functions["ask"]  # no client: all are refused
    call = GuestCall("guest", context(), BareInstance(), lambda *_: None)

    ask(call, "s1\nPOST\nhttp\nexample.com\n/\n\n\n\n+\n\n\n" + "x" * 100_000)

    assert ask(call, "t1").startswith("!")
    assert ask(call, "w1\nmore") == "!"
    assert call.instance.state[EXCHANGE].outputs[1].size == 0


async def test_the_trailers_of_a_small_request_are_all_sent() -> None:
    call = GuestCall("guest", context(), BareInstance(), lambda *_: None)

    async with FaultyClient() as client:
        ask = shim_interface(ShimSettings(client=client)).functions["ask"]
        ask(call, "s1\nPOST\nhttp\nexample.com\n/\n\n\n\n.\n\nx-t:v\nx-t:w\n\nbody")
        [pipe] = call.instance.state[EXCHANGE].outputs.values()

    assert pipe.take_all() == b"body"
    assert pipe.trailers == {"x-t": "v, w"}


class FaultyClient(HttpClient):
    """A client with a fault of its own."""

    async def send(self, *args: object, **kwargs: object) -> HttpResponse:
        raise RuntimeError("a fault")


async def test_a_fault_of_the_client_is_an_error_of_one_request_alone() -> None:
    call = GuestCall("guest", context(), BareInstance(), lambda *_: None)

    async with FaultyClient() as client:
        ask = shim_interface(ShimSettings(client=client)).functions["ask"]
        ask(call, "s1\nGET\nhttp\nexample.com\n/\n\n\n\n.\n\n\n")
        with capture_logs() as logs:
            assert await ask(call, "pf1") == "0"

    assert ask(call, "t1").startswith("!")
    assert [entry["event"] for entry in logs] == ["http.request-failed"]
