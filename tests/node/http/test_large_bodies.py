"""Bodies of any size pass through a listener in little memory: a budget for CI, a gigabyte by hand.

`LATTICE_HTTP_BODY_MIB` says how much; 1024 is what is promised.
"""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import anyio
import pytest

from lattice import streams
from lattice.http import HttpRequest, HttpResponse
from tests.node.http.sites import listening

MIB = 1 << 20
SIZE = int(os.environ.get("LATTICE_HTTP_BODY_MIB", "96")) * MIB
PIECE = bytes(MIB)
GROWTH = 16 * MIB
"""What the process may grow by, client and sockets included."""


def resident() -> int:
    """Bytes of memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def watch(peaks: list[int]) -> None:
    """Note the memory until cancelled."""
    while True:
        peaks.append(await anyio.to_thread.run_sync(resident))
        await anyio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_an_upload_is_never_held(is_chunked: bool) -> None:
    received = 0

    async def script(request: HttpRequest) -> HttpResponse:
        nonlocal received
        assert not isinstance(request.body, bytes)
        async for data in request.body:
            received += len(data)
            await asyncio.sleep(0)  # slower than the client
        return HttpResponse(status=200)

    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % SIZE
    async with listening(script) as site, site.client() as client, anyio.create_task_group() as tasks:
        await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
        gc.collect()
        before, peaks = await anyio.to_thread.run_sync(resident), [0]
        tasks.start_soon(watch, peaks)
        for _ in range(SIZE // MIB):
            await client.send(b"%x\r\n%b\r\n" % (MIB, PIECE) if is_chunked else PIECE)
        if is_chunked:
            await client.send(b"0\r\n\r\n")
        with anyio.fail_after(60):
            status = (await client.response()).status
        tasks.cancel_scope.cancel()

    assert (status, received) == (200, SIZE)
    assert max(peaks) - before < GROWTH


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_download_is_never_held() -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        sender, receiver = streams.pair()

        async def produce() -> None:
            for _ in range(SIZE // MIB):
                await sender.send(PIECE)
            await sender.end()

        producing.start_soon(produce)
        return HttpResponse(status=200, headers=(("content-length", b"%d" % SIZE),), body=receiver)

    received, peaks = 0, [0]
    async with (
        anyio.create_task_group() as producing,
        listening(script) as site,
        site.client() as client,
        anyio.create_task_group() as tasks,
    ):
        gc.collect()
        before = await anyio.to_thread.run_sync(resident)
        tasks.start_soon(watch, peaks)
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.read_head()
        while received < SIZE:
            data = await client.reader.read(65536)
            assert data
            received += len(data)
            await asyncio.sleep(0)  # slower than the listener
        tasks.cancel_scope.cancel()

    assert received == SIZE
    assert max(peaks) - before < GROWTH
