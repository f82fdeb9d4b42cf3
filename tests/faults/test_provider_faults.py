"""Providers whose server or process dies in the middle of calls, and comes back."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from ctl.calling import CallOptions
from ctl.client import ControlClient
from lattice.errors import Interrupted, LatticeError, NotFound, TimedOut
from tests.e2e.processes import EXAMPLES, GREETER_KV, Lattice, until
from tests.redis_server import RedisServer, require_redis
from tests.servers import NatsServer

pytestmark = [pytest.mark.slow, pytest.mark.fault]

COUNTER = EXAMPLES / "counter" / "c" / "counter.wasm"
LOOP = EXAMPLES / "keyvalue-loop" / "c" / "keyvalue-loop.wasm"
PROVIDER = EXAMPLES / "provider-python"
STORE = "wasi:keyvalue"
PROMPTLY_SECONDS = 3.0
"""What is promised is 0.1 s; the machine of the tests may be busy with other things."""
ONCE = CallOptions(budget_seconds=10)


class ProviderProcess:
    """One `python -m providers.sdk` of the example."""

    def __init__(self, lattice: Lattice, number: int) -> None:
        self.log_file = lattice.folder / f"provider-{number}.log"
        command = [sys.executable, "-m", "providers.sdk", "quotations:Quotations", "--name", "quotations"]
        command += ["--log-format", "json"]
        environment = {**lattice.environment, "PYTHONPATH": str(EXAMPLES.parent)}
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(command, cwd=PROVIDER, env=environment, stdout=log, stderr=log)

    async def ready(self) -> None:
        async def is_ready() -> bool:
            assert self.process.poll() is None, self.log_file.read_text()
            return "member.ready" in self.log_file.read_text()

        await until(is_ready, what="the provider's process is ready")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    require_redis()
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def lattice(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Lattice]:
    """A lattice of one test, without nodes."""
    async with Lattice(tmp_path / "lattice", "provider-faults") as lattice:
        (tmp_path / "lattice").mkdir(exist_ok=True)
        yield lattice


async def visit(client: ControlClient, name: str = "counter") -> str | int:
    """The count, or the reason why there is none."""
    result = await client.call(name, "visit", ["home"], options=ONCE)
    return int(result["ok"]) if "ok" in result else str(result["err"])


async def counts_again(client: ControlClient) -> int:
    async def find() -> int:
        found = await visit(client)
        return found if isinstance(found, int) else 0

    return int(await until(find, what="visits are counted again"))


async def test_redis_that_dies_in_the_middle_is_told_at_once_and_used_again_when_it_is_back(
    lattice: Lattice, redis: RedisServer
) -> None:
    await lattice.add("a", options=("--provider", f"cache=keyvalue-redis,url={redis.url}"))
    await lattice.deploy(COUNTER, links=((STORE, "cache"),))
    await lattice.deploy(LOOP, links=((STORE, "cache"),))

    async with lattice.connect() as client, anyio.create_task_group() as tasks:
        assert await visit(client) == 1
        await client.call("keyvalue-loop", "set", ["k", 10, 1])
        ended: list[object] = []

        async def loop() -> None:
            ended.append(await client.call("keyvalue-loop", "get", ["k", 10**6], options=ONCE))

        redis.suspend()  # so that an operation surely is in progress
        tasks.start_soon(loop)
        await until(lambda: _is_busy(client, "keyvalue-loop"), what="the guest is in its loop")
        redis.kill()
        killed = time.monotonic()
        await until(lambda: _given(ended), what="the call in progress has ended")
        assert time.monotonic() - killed < PROMPTLY_SECONDS
        assert "interrupted" in str(ended) or "unreachable" in str(ended)

        began = time.monotonic()
        reason = str(await visit(client))
        assert reason.startswith("unreachable"), reason
        assert time.monotonic() - began < PROMPTLY_SECONDS
        await until(lambda: _is_healthy(client, "cache", healthy=False), what="the offer says so")
        redis.start()
        assert await counts_again(client) == 2
        await until(lambda: _is_healthy(client, "cache", healthy=True), what="the offer says so")


async def test_redis_that_hangs_costs_callers_their_budget_at_most_and_is_said_to_hang(
    lattice: Lattice, redis: RedisServer
) -> None:
    await lattice.add("a", options=("--provider", f"cache=keyvalue-redis,url={redis.url}"))
    await lattice.deploy(COUNTER, links=((STORE, "cache"),))

    async with lattice.connect() as client:
        assert await visit(client) == 1
        redis.suspend()
        began = time.monotonic()
        with pytest.raises(TimedOut):
            await client.call("counter", "visit", ["home"], options=CallOptions(budget_seconds=1))
        assert time.monotonic() - began < 1 + PROMPTLY_SECONDS
        await until(lambda: _is_healthy(client, "cache", healthy=False), what="the offer says so")
        assert time.monotonic() - began < 4 + PROMPTLY_SECONDS
        assert "does not answer" in str((await client.describe_provider("cache")).nodes[0].reason)

        asked = time.monotonic()
        reason = str(await visit(client))
        assert reason.startswith("unreachable"), reason
        assert time.monotonic() - asked < PROMPTLY_SECONDS
        redis.resume()
        assert await counts_again(client) >= 2


async def test_nats_that_restarts_keeps_what_was_counted(
    anyio_backend: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    await anyio.to_thread.run_sync(server.start)
    try:
        nats = server.url.replace("//", "//app:app@")
        async with Lattice(tmp_path, "keyvalue-nats-loss", nats=nats) as lattice:
            await lattice.add("a")
            await lattice.deploy(COUNTER, links=((STORE, "keyvalue-nats"),))
            async with lattice.connect() as client:
                assert [await visit(client) for _ in range(3)] == [1, 2, 3]
                await anyio.to_thread.run_sync(server.kill)
                await anyio.to_thread.run_sync(server.start)
                assert await counts_again(client) >= 4
    finally:
        await anyio.to_thread.run_sync(server.kill)


async def test_providers_process_that_is_killed_is_replaced_by_another_of_its_name(lattice: Lattice) -> None:
    await lattice.add("a", "b")
    processes = [ProviderProcess(lattice, number) for number in range(2)]
    try:
        for process in processes:
            await process.ready()
        await lattice.deploy(GREETER_KV, links=(("demo:kv/store", "quotations"),))
        async with lattice.connect() as client:
            await until(lambda: _offered(client, 2), what="both are seen")
            assert "engine" in await client.call("greeter-kv", "hello", ["Ada"])

            processes[0].kill()
            answers = [await _answer(client) for _ in range(20)]
            assert sum("engine" in answer for answer in answers) >= 19, answers

            processes[1].kill()
            await until(lambda: _offered(client, 0), what="the death is noticed")
            began = time.monotonic()
            with pytest.raises(LatticeError) as caught:
                await client.call("greeter-kv", "hello", ["Ada"], options=ONCE)
            assert isinstance(caught.value, Interrupted), caught.value
            assert time.monotonic() - began < PROMPTLY_SECONDS

            processes.append(ProviderProcess(lattice, 2))
            await processes[2].ready()
            await until(lambda: _answers(client), what="a new process serves")
    finally:
        for process in processes:
            process.kill()


async def _answer(client: ControlClient) -> str:
    try:
        return str(await client.call("greeter-kv", "hello", ["Ada"], options=ONCE))
    except LatticeError as error:
        return error.code


async def _answers(client: ControlClient) -> bool:
    return "engine" in await _answer(client)


async def _offered(client: ControlClient, count: int) -> bool:
    try:
        return len((await client.describe_provider("quotations")).nodes) == count
    except NotFound:
        return count == 0


async def _is_healthy(client: ControlClient, provider: str, *, healthy: bool) -> bool:
    return (await client.describe_provider(provider)).is_healthy == healthy


async def _is_busy(client: ControlClient, component: str) -> bool:
    return any(replica.in_flight for replica in await client.replicas(component))


async def _given(items: list[object]) -> bool:
    return bool(items)
