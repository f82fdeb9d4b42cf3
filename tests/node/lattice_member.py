"""A process that shares an embedded server, for tests: says what happens on its standard output."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from lattice.nats_bus import NatsBus
from node.embedded_server import EmbeddedServer


async def main(folder: str) -> None:
    async with EmbeddedServer(Path(folder), preferred_port=0) as server, NatsBus(server.connection()) as bus:
        sys.stdout.write(f"up {bus.server_id} {bus.client_id}\n")
        sys.stdout.flush()
        await anyio.to_thread.run_sync(sys.stdin.readline)


anyio.run(main, sys.argv[1])
