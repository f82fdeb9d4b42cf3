"""The alternative for calls: request and reply of nats-py between two processes, and nothing else.

`python -m benchmarks.raw SUBJECT LOOP` answers with what it is sent; the environment has the server's URL.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

LOOPS = ("asyncio", "uvloop")
URL_VARIABLE = "BENCHMARK_NATS"
WARM_UP_CALLS = 50


async def answer(subject: str) -> None:
    """Answer until the process is ended."""
    client = await nats.connect(os.environ[URL_VARIABLE])

    async def echo(message: Msg) -> None:
        await message.respond(message.data)

    await client.subscribe(subject, cb=echo)
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


def responders(url: str) -> AbstractContextManager[None]:
    """One process that answers for each event loop, as long as the context lasts."""
    return peers(url, "benchmarks.raw", "raw")


@contextmanager
def peers(url: str, module: str, subject: str) -> Iterator[None]:
    """A process for each event loop that runs the module, on a subject of its own, once all are ready."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for loop in LOOPS:
            command = [sys.executable, "-m", module, f"{subject}.{loop}", loop]
            environment = {**os.environ, URL_VARIABLE: url}
            running += [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)]
        for process in running:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


async def request_seconds(url: str, subject: str, body: bytes, calls: int) -> list[float]:
    """How long each of so many requests took, one after the other."""
    client = await nats.connect(url)
    try:
        for _ in range(min(calls, WARM_UP_CALLS)):
            await client.request(subject, body, timeout=5)
        seconds = []
        for _ in range(calls):
            began = time.perf_counter()
            await client.request(subject, body, timeout=5)
            seconds.append(time.perf_counter() - began)
        return seconds
    finally:
        await client.close()


async def requests_per_second(url: str, subject: str, body: bytes, calls: int, callers: int) -> float:
    """How many requests are answered when so many callers make them side by side."""
    client = await nats.connect(url)
    try:
        await _many(client, subject, body, callers, 1)
        began = time.perf_counter()
        await _many(client, subject, body, callers, max(1, calls // callers))
        return max(1, calls // callers) * callers / (time.perf_counter() - began)
    finally:
        await client.close()


async def _many(client: Client, subject: str, body: bytes, callers: int, each: int) -> None:
    async def caller() -> None:
        for _ in range(each):
            await client.request(subject, body, timeout=30)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(caller())


if __name__ == "__main__":
    runner = {"asyncio": asyncio.run, "uvloop": uvloop.run}[sys.argv[2]]
    runner(answer(sys.argv[1]))
