"""A guest with handles of the shim's and of the host's answers alike in both forms."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from lattice.errors import LatticeError, Trapped
from lattice.streams import ByteSender, pair
from node.capabilities.http.client import HttpClient
from node.capabilities.http.handler import make_handler
from node.capabilities.http.interfaces import HttpSettings, http_interfaces
from node.capabilities.http.shim_host import ShimSettings, shim_interface
from node.capabilities.wasi import WasiSettings, wasi_interfaces
from node.capabilities.wasi.filesystem import Folder
from node.capabilities.wasi.network import parse_grants
from node.engine.compiled import Form
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool
from node.http.handler import HttpHandler, response_of
from tests.node.capabilities.http.client_requests import whole_body
from tests.node.capabilities.http.conftest import ROOT, context
from tests.node.capabilities.http.servers import Peer, serving
from tests.node.capabilities.http.shims import request

GUEST = ROOT / "tests/node/capabilities/http/mixed_guest/mixed.wasm"
FORMS = (Form.PLAIN, Form.GRANTED)
LARGE = bytes(range(256)) * 1200

Make = Callable[..., Awaitable[HttpHandler]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_bytes(b"first file\n")
    (tmp_path / "large").write_bytes(LARGE)
    (tmp_path / "empty").write_bytes(b"")
    return tmp_path


@pytest.fixture(params=FORMS, ids=[form.value for form in FORMS])
async def make(
    request: pytest.FixtureRequest, compiler: Compiler, engine: Engine, client: HttpClient, folder: Path
) -> AsyncIterator[Make]:
    compiled = await compiler.compile(GUEST.read_bytes(), form=request.param)
    assert compiled.is_shimmed is (request.param is Form.GRANTED)
    grants = WasiSettings(
        folders=(Folder(host_path=folder, guest_path="/data", writable=True),),
        network=parse_grants(["tcp:127.0.0.1:*"]),
    )
    pools = []

    async def make(reuse: int = 1) -> HttpHandler:
        imports = [
            *wasi_interfaces(grants),
            *http_interfaces(HttpSettings(client=client)),
            shim_interface(ShimSettings(client=client)),
        ]
        limits = InstanceLimits(reuse=reuse, prewarm=0)
        pool = ComponentPool(engine, compiled, name="guest", limits=limits, slots=4, imports=imports)
        pools.append(pool)
        handler = make_handler(pool)
        assert handler is not None
        return handler

    yield make
    for pool in pools:
        await pool.aclose()


@pytest.fixture
async def handler(make: Make) -> HttpHandler:
    return await make()


async def _answer(handler: HttpHandler, path: str, body: bytes = b"") -> bytes:
    with anyio.fail_after(10):
        return await whole_body(await response_of(handler, request("POST", path, body=body), context()))


@pytest.mark.parametrize("way", ["read", "splice", "polls"])
async def test_a_file_becomes_a_response(handler: HttpHandler, way: str) -> None:
    assert await _answer(handler, f"/{way}/a.txt") == b"first file\n"
    assert await _answer(handler, f"/{way}/empty") == b""
    assert await _answer(handler, f"/{way}/large") == LARGE


@pytest.mark.parametrize("way", ["store", "store-splice", "store-polls"])
async def test_a_body_becomes_a_file(handler: HttpHandler, folder: Path, way: str) -> None:
    for body in (b"some text", b"", LARGE):
        assert await _answer(handler, f"/{way}/new", body) == b"stored\n"
        assert (folder / "new").read_bytes() == body


@pytest.mark.parametrize("way", ["store", "store-splice", "store-polls"])
async def test_a_body_becomes_a_file_while_it_comes(handler: HttpHandler, folder: Path, way: str) -> None:
    sender, receiver = pair()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_send, sender, [b"one, ", b"two, ", LARGE])
        with anyio.fail_after(10):
            response = await response_of(handler, request("POST", f"/{way}/new", body=receiver), context())
            assert await whole_body(response) == b"stored\n"

    assert (folder / "new").read_bytes() == b"one, two, " + LARGE


async def test_a_file_that_is_ready_ends_a_wait_for_timers(handler: HttpHandler) -> None:
    assert await _answer(handler, "/wait/a.txt") == b"1\n1\n"


async def test_whichever_is_first_ends_the_wait_for_a_peer_or_a_timer(handler: HttpHandler) -> None:
    async with serving(_silent) as server:
        assert await _answer(handler, f"/hasty/{server.port}") == b"0\n"
    async with serving(_greeting) as server:
        assert await _answer(handler, f"/patient/{server.port}") == b"1\nhello"


async def test_a_body_and_a_peer_are_waited_for_together(handler: HttpHandler) -> None:
    sender, receiver = pair()

    async def talk(peer: Peer) -> None:
        await peer.send(b"peer, ")
        await sender.send(b"body, ")

    async with serving(talk) as server, anyio.create_task_group() as tasks:
        response = await response_of(
            handler, request("POST", f"/either/{server.port}", body=receiver), context()
        )
        assert not isinstance(response.body, bytes)
        async with response.body as body:
            heard = b""
            while len(heard) < 12:
                heard += await body.receive()
            tasks.start_soon(sender.end)
            heard += b"".join([chunk async for chunk in body])

    assert heard in (b"peer, body, ", b"body, peer, ")


async def test_what_a_peer_says_leaves_while_the_next_is_waited_for(handler: HttpHandler) -> None:
    heard = anyio.Event()

    async def talk(peer: Peer) -> None:
        await peer.send(b"first, ")
        await heard.wait()
        await peer.send(b"second")

    async with serving(talk) as server:
        with anyio.fail_after(10):
            response = await response_of(handler, request(path=f"/relay/{server.port}"), context())
            assert not isinstance(response.body, bytes)
            async with response.body as body:
                assert await body.receive() == b"first, "
                heard.set()
                assert b"".join([chunk async for chunk in body]) == b"second"


async def test_an_error_of_the_hosts_tells_what_it_is(handler: HttpHandler) -> None:
    async def reset(peer: Peer) -> None:
        raw = peer.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.writer.transport.abort()

    async with serving(reset) as server:
        assert await _answer(handler, f"/reset/{server.port}") == b"0\n0\n0\n1\n"


@pytest.mark.parametrize("number", range(19))
async def test_a_forged_handle_traps(handler: HttpHandler, number: int) -> None:
    with pytest.raises(LatticeError):
        await _answer(handler, f"/forge/{number}")


@pytest.mark.parametrize("number", [0, 2, 4])
async def test_handles_are_dropped_in_any_order(handler: HttpHandler, number: int) -> None:
    assert await _answer(handler, f"/drop/{number}") == b"dropped\n"


@pytest.mark.parametrize("number", [1, 3])
async def test_what_must_not_be_dropped_first_or_twice_traps(handler: HttpHandler, number: int) -> None:
    with pytest.raises(Trapped):
        await _answer(handler, f"/drop/{number}")


async def test_a_file_may_stay_open_from_request_to_request(make: Make, folder: Path) -> None:
    handler = await make(reuse=10)

    first = await _answer(handler, "/keep/a.txt")
    (folder / "a.txt").write_bytes(b"second\n")
    others = [await _answer(handler, "/keep/large") for _ in range(5)]

    assert first == b"first file\n1\n"
    assert others == [b"second\n1\n"] * 5


async def _send(sender: ByteSender, parts: list[bytes]) -> None:
    for part in parts:
        await sender.send(part)
    await sender.end()


async def _silent(peer: Peer) -> None:
    await peer.reader.read()


async def _greeting(peer: Peer) -> None:
    await peer.send(b"hello")
    await peer.reader.read()
