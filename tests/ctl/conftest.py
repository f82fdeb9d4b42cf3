"""A lattice of one fake node, for the client and for the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ctl.cli import cli
from ctl.client import ControlClient
from ctl.session import Session
from ctl.settings import ClientSettings
from lattice.memory_bus import MemoryBroker, MemoryBus
from tests.ctl.fake_node import FakeNode

COMPONENT_BYTES = b"\0asm\x0d\x00\x01\x00"
"""The beginning of a component; the fake node does not look further."""


class CommandLine:
    """Runs commands against a fake node that outlives each of them."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.broker = MemoryBroker()
        self.settings: ClientSettings | None = None
        """Those of the last command that connected."""

    @asynccontextmanager
    async def connect(self, settings: ClientSettings) -> AsyncIterator[ControlClient]:
        self.settings = settings
        async with (
            MemoryBus(self.broker) as nodes_bus,
            self.node.serving(nodes_bus),
            MemoryBus(self.broker) as bus,
        ):
            yield ControlClient(bus, lattice=settings.lattice, timeout_seconds=settings.timeout_seconds)

    def __call__(self, *args: str, input: str | None = None, env: dict[str, str] | None = None) -> Result:
        session = Session(connect=self.connect)
        return CliRunner(env={"COLUMNS": "100", **(env or {})}).invoke(cli, args, input=input, obj=session)


@pytest.fixture
def latticectl() -> CommandLine:
    return CommandLine()


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    async with MemoryBus(MemoryBroker()) as bus:
        yield bus


@pytest.fixture
async def node(bus: MemoryBus) -> AsyncIterator[FakeNode]:
    async with FakeNode().serving(bus) as node:
        yield node


@pytest.fixture
def client(bus: MemoryBus) -> ControlClient:
    return ControlClient(bus, timeout_seconds=2.0)


@pytest.fixture
def greeter_file(tmp_path: Path) -> Path:
    path = tmp_path / "Greeter_1.wasm"
    path.write_bytes(COMPONENT_BYTES)
    return path
