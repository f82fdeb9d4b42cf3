"""Stores of blobs, each started, with what they need."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.nats_bus import NatsBus
from providers.blobstore.bucket import Store
from providers.blobstore.filesystem import FilesystemStore
from providers.blobstore.nats import NatsStore
from providers.blobstore.s3 import S3Settings, S3Store
from tests.ports import own_port
from tests.signals import resume, suspend

START_SECONDS = 20.0


class S3Server:
    """An S3-compatible server in a process of its own; it forgets everything when it ends."""

    def __init__(self) -> None:
        self.port = own_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when it answers and has the bucket `blobs`."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "the S3 server has ended"
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.05)
        self.client().create_bucket(Bucket="blobs")

    def client(self) -> Any:  # boto3 makes its types at run time
        """A client of another make."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )

    def kill(self) -> None:
        """End it as `kill -9` does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)

    def suspend(self) -> None:
        """Stop the process without ending it, and return when it stands still."""
        assert self._process is not None
        suspend(self._process.pid)

    def resume(self) -> None:
        """Let a suspended process go on."""
        assert self._process is not None
        resume(self._process.pid)

    def settings(self, **changes: Any) -> S3Settings:
        """With which a store connects to it."""
        given = {"s3_bucket": "blobs", "access_key": "key", "secret_key": "secret", **changes}
        return S3Settings(endpoint=self.endpoint, **given)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server for the whole session; leave it running and use buckets of your own."""
    server = S3Server()
    server.start()
    yield server
    server.kill()


@pytest.fixture
def make_s3_server() -> Iterator[Callable[[], S3Server]]:
    """Starts servers that a test may kill."""
    servers: list[S3Server] = []

    def make() -> S3Server:
        servers.append(server := S3Server())
        server.start()
        return server

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
async def memory_store(lattice_name: str) -> AsyncIterator[Store]:
    async with MemoryBus(MemoryBroker()) as bus:
        yield NatsStore(bus, lattice_name)


@pytest.fixture
def nats_store(nats_bus: NatsBus, lattice_name: str) -> Store:
    return NatsStore(nats_bus, lattice_name)


@pytest.fixture
async def filesystem_store(tmp_path: Path) -> AsyncIterator[Store]:
    store = FilesystemStore(tmp_path / "blobs")
    await store.start()
    yield store
    await store.aclose()


@pytest.fixture
async def s3_store(s3_server: S3Server) -> AsyncIterator[Store]:
    store = S3Store(s3_server.settings(prefix="lattice/test"))
    await store.start()
    yield store
    await store.aclose()
