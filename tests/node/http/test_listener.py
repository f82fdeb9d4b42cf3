"""A listener sends requests to replicas here or elsewhere, says what is wrong, and drains."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from lattice.caller import CallRequest
from lattice.desired import DesiredComponent
from lattice.errors import (
    Failed,
    Interrupted,
    Invalid,
    LatticeError,
    Overloaded,
    TimedOut,
    Trapped,
    Unreachable,
)
from lattice.exchange import Exchange
from lattice.http import HttpRequest, HttpResponse
from lattice.model import Application, ComponentSpec, Trigger, TriggerKind
from lattice.state import LatticeState
from lattice.streams import ByteReceiver
from node.engine.host import CallContext
from node.http.address import Address, parse_address
from node.http.listener import Listener
from node.settings import NodeSettings
from tests.node.http.sites import Client, Script, hello
from tests.waiting import until

DIGEST = "sha256:" + "0" * 64
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


class FakeReplicas:
    """Handlers by component."""

    def __init__(self, **scripts: Script) -> None:
        self.scripts = scripts
        self.contexts: list[CallContext] = []

    def http(self, component: str) -> Any:
        script = self.scripts.get(component)
        if script is None:
            return None
        replicas = self

        class Handler:
            async def handle(self, request: HttpRequest, context: CallContext) -> HttpResponse:
                replicas.contexts.append(context)
                assert script is not None
                return await script(request)

        return Handler()


class FakeCaller:
    """The rest of the lattice."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.requests: list[CallRequest] = []
        self.bodies: list[ByteReceiver | None] = []

    def budget_seconds(self, component: str) -> float:
        return 30.0

    async def exchange(self, request: CallRequest, args: Any, body: ByteReceiver | None = None) -> Exchange:
        self.requests.append(request)
        self.bodies.append(body)
        if isinstance(self.answer, LatticeError):
            raise self.answer
        return Exchange(self.answer)


def desired(**routes: Mapping[str, str]) -> LatticeState:
    """A state in which each component has a route."""
    state = LatticeState()
    for name, configuration in routes.items():
        application = Application(
            name=name,
            incarnation=1,
            components=(ComponentSpec(name=name, digest=DIGEST),),
            triggers=(Trigger(component=name, kind=TriggerKind.HTTP, configuration=configuration),),
        )
        state.desired.merge(application)
    assert all(isinstance(each, DesiredComponent) for each in state.desired.components.values())
    return state


class Running:
    """A listener with what it stands on."""

    def __init__(self, listener: Listener, replicas: FakeReplicas, caller: FakeCaller) -> None:
        self.listener = listener
        self.replicas = replicas
        self.caller = caller

    @asynccontextmanager
    async def client(self, address: Address | None = None, **options: Any) -> AsyncIterator[Client]:
        """A connection."""
        port = (address or self.listener.addresses[0]).port
        client = Client(*await asyncio.open_connection("127.0.0.1", port, **options))
        try:
            yield client
        finally:
            await client.close()


@asynccontextmanager
async def running(
    state: LatticeState,
    replicas: FakeReplicas | None = None,
    caller: FakeCaller | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """A listener on a free port."""
    replicas, caller = replicas or FakeReplicas(), caller or FakeCaller()
    reasons = settings.pop("reasons", {})
    listener = Listener(
        NodeSettings(**{"http": Address("127.0.0.1", 0), **settings}),
        state=state,
        local=replicas,
        caller=caller,  # type: ignore[arg-type]
        name="n",
        reasons=lambda: reasons,
    )
    async with anyio.create_task_group() as tasks:
        await listener.start(tasks)
        try:
            yield Running(listener, replicas, caller)
        finally:
            listener.close()
            tasks.cancel_scope.cancel()


async def test_a_replica_here_is_asked_directly_with_all_that_belongs_to_a_call() -> None:
    trace = b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01\r\n"
    async with running(desired(web={}), FakeReplicas(web=hello)) as it, it.client() as client:
        await client.send(GET)
        assert (await client.response()).body == b"hello\n"
        await client.send(GET.replace(b"\r\n\r\n", b"\r\n" + trace + b"\r\n"))
        await client.response()

    made, given = it.replicas.contexts
    assert not it.caller.requests
    assert made.traceparent and made.traceparent != given.traceparent == trace[13:-2].decode()
    assert made.call_id != given.call_id and 25 < made.deadline - anyio.current_time() <= 30


async def test_without_one_the_lattice_is_asked() -> None:
    caller = FakeCaller([200, [["x", b"y"]], b"far", []])
    async with running(desired(web={}), caller=caller) as it, it.client() as client:
        await client.send(GET)
        response = await client.response()

    assert response.body == b"far" and response.header("x") == b"y"
    assert caller.requests[0].component == "web" and caller.requests[0].caller == "n"


@pytest.mark.parametrize("error", [Unreachable("gone"), Overloaded("full")])
async def test_what_is_not_begun_here_is_asked_elsewhere(error: LatticeError) -> None:
    async def refuse(request: HttpRequest) -> HttpResponse:
        raise error

    caller = FakeCaller([200, [], b"far", []])
    async with running(desired(web={}), FakeReplicas(web=refuse), caller) as it, it.client() as client:
        await client.send(GET)

        assert (await client.response()).body == b"far"


async def test_a_body_that_was_begun_is_not_asked_for_twice() -> None:
    async def refuse(request: HttpRequest) -> HttpResponse:
        assert not isinstance(request.body, bytes)
        await request.body.receive()
        raise Unreachable("gone")

    caller = FakeCaller([200, [], b"far", []])
    async with running(desired(web={}), FakeReplicas(web=refuse), caller) as it, it.client() as client:
        await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc")

        assert (await client.response()).status == 503
    assert not caller.requests


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unreachable("no replica"), 503),
        (Overloaded("full"), 503),
        (TimedOut("slow"), 504),
        (Interrupted("lost"), 502),
        (Trapped("unreachable executed"), 502),
        (Failed("broken"), 502),
        (Invalid("no response"), 502),
    ],
)
async def test_a_failure_says_which_component_why_and_where_to_look(error: LatticeError, status: int) -> None:
    async with running(desired(web={}), caller=FakeCaller(error)) as it, it.client() as client:
        with capture_logs() as logs:
            await client.send(GET.replace(b"\r\n\r\n", b"\r\nAccept: application/json\r\n\r\n"))
            response = await client.response()

    said = json.loads(response.body)["error"]
    assert response.status == said["status"] == status
    assert (said["component"], said["code"], said["message"]) == ("web", error.code, error.message)
    [line] = [line for line in logs if line["event"] == "http.failed"]
    assert line["error_id"] == said["error_id"] and line["component"] == "web"


async def test_a_request_without_a_route_learns_the_cure() -> None:
    async with running(desired(web={"host": "b"})) as it, it.client() as client:
        await client.send(GET)
        response = await client.response()

    assert response.status == 404 and b"latticectl route put" in response.body


async def test_routes_follow_what_is_desired() -> None:
    state = desired()
    async with running(state, FakeReplicas(web=hello)) as it, it.client() as client:
        await client.send(GET)
        assert (await client.response()).status == 404
        for application in desired(web={}).desired.applications.values():
            state.desired.merge(application)
        it.listener.dispatcher.learn_routes()
        await client.send(GET)

        assert (await client.response()).status == 200


async def test_requests_above_the_limit_are_told_to_come_back() -> None:
    gate = anyio.Event()

    async def wait(request: HttpRequest) -> HttpResponse:
        await gate.wait()
        return HttpResponse(status=204)

    async with (
        running(desired(web={}), FakeReplicas(web=wait), http_max_requests=1) as it,
        it.client() as one,
        it.client() as two,
    ):
        await one.send(GET)
        await until(lambda: it.listener.dispatcher.in_progress)
        await two.send(GET)
        refused = await two.response()
        gate.set()

        assert refused.status == 503 and refused.header("retry-after") == b"1"
        assert (await one.response()).status == 204


async def test_readiness_says_what_is_missing() -> None:
    admin = Address("127.0.0.1", 0)
    reasons = {"bus": "not connected"}
    async with (
        running(desired(), http_admin=admin, reasons=reasons) as it,
        it.client(it.listener.admin_addresses[0]) as client,
    ):
        await client.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        alive = await client.response()
        await client.send(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        waiting = await client.response()
        reasons.clear()
        await client.send(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        ready = await client.response()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        other = await client.response()

    assert (alive.status, waiting.status, ready.status, other.status) == (200, 503, 200, 404)
    assert json.loads(waiting.body)["reasons"] == {"bus": "not connected"}


async def test_a_draining_listener_takes_nobody_new_and_is_not_ready() -> None:
    async with running(desired(web={}), FakeReplicas(web=hello), http_admin=Address("127.0.0.1", 0)) as it:
        async with it.client() as client:
            await client.send(GET)
            await client.response()
        await it.listener.drain()

        with pytest.raises(OSError):
            async with it.client():
                pass
        assert it.listener.not_ready() == {"node": "it is draining"}


async def test_a_port_that_is_taken_is_named() -> None:
    async with running(desired()) as it:
        with pytest.raises(ExceptionGroup) as caught:
            async with running(desired(), http=it.listener.addresses[0]):
                pass

    assert f"can't listen for HTTP at {it.listener.addresses[0]}" in str(caught.value.exceptions[0])


async def test_tls_is_spoken_with_a_certificate(certificate: tuple[Path, Path]) -> None:
    schemes = []

    async def script(request: HttpRequest) -> HttpResponse:
        schemes.append((request.scheme, dict(request.headers)["x-forwarded-proto"]))
        return await hello(request)

    cert, key = certificate
    context = ssl.create_default_context(cafile=cert)
    context.set_alpn_protocols(["h2", "http/1.1"])
    replicas = FakeReplicas(web=script)
    async with running(desired(web={}), replicas, http_tls_cert=cert, http_tls_key=key) as it:
        async with it.client(ssl=context) as client:
            await client.send(GET)
            assert (await client.response()).status == 200
            protocol = client.writer.get_extra_info("ssl_object").selected_alpn_protocol()
        async with it.client() as plain:
            await plain.send(GET)
            assert b"HTTP/1.1 200" not in await plain.read_all()

    assert protocol == "http/1.1" and schemes == [("https", b"https")]


async def test_tls_files_that_do_not_fit_are_named(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    for wrong_cert, wrong_key in ((key, cert), (cert, tmp_path / "none")):
        with pytest.raises(ExceptionGroup) as caught:
            async with running(desired(), http_tls_cert=wrong_cert, http_tls_key=wrong_key):
                pass
        assert "--http-tls" in str(caught.value.exceptions[0])


@pytest.mark.parametrize(
    ("raw", "address"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), (":80", ("", 80)), ("80", ("", 80)), ("[::1]:8", ("::1", 8))],
)
def test_addresses_are_read(raw: str, address: tuple[str, int]) -> None:
    assert parse_address(raw, "--http") == address


@pytest.mark.parametrize("raw", ["", "a", "a:", "a:b", "a:70000", "::1:80", "a:-1"])
def test_what_is_no_address_is_refused(raw: str) -> None:
    with pytest.raises(Invalid, match="--http"):
        parse_address(raw, "--http")
