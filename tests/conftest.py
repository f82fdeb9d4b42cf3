"""Fixtures that all tests share."""

from __future__ import annotations

import itertools
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import HealthCheck, settings

from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.nats_bus import NatsBus
from tests.servers import NatsServer

_numbers = itertools.count(1)

# A busy machine makes no example wrong.
settings.register_profile("lattice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lattice")


# A shell has what it runs in the background ignore Ctrl-C, which the programs that tests start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    """The event loop that the product runs on."""
    return "asyncio"


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster | None]:
    """Fail whatever blocks the event loop."""
    with blockbuster_ctx(["lattice", "providers", "node", "ctl"]) as active:
        for function in active.functions.values():
            function.can_block_in("structlog/_base.py", {"_proxy_to_logger"})
        yield active


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Programs that a test runs in this process set up logging for themselves, not for the next test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server for the whole session; leave it running and use names of your own (`lattice_name`)."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def make_nats_server(tmp_path: Path) -> Iterator[Callable[..., NatsServer]]:
    """Starts servers that a test may stop, kill and wipe; they are gone after it."""
    servers: list[NatsServer] = []

    def make(**options: object) -> NatsServer:
        server = NatsServer(tmp_path / f"nats-{len(servers)}", **options)  # type: ignore[arg-type]
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
def lattice_name() -> str:
    """A lattice name that no other test has."""
    return f"test-{next(_numbers)}"


@pytest.fixture
async def nats_bus(nats_server: NatsServer) -> AsyncIterator[NatsBus]:
    """A bus on the session's server."""
    async with NatsBus(nats_server.settings()) as bus:
        yield bus


@pytest.fixture(params=["memory", "nats"])
def connect(request: pytest.FixtureRequest, nats_server: NatsServer) -> Callable[[], Any]:
    """Makes buses that reach each other: all in memory, then all on the session's server."""
    broker = MemoryBroker()
    if request.param == "memory":
        return lambda: MemoryBus(broker)
    return lambda: NatsBus(nats_server.settings())
