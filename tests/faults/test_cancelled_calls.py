"""Nobody waits any more: what a call does elsewhere ends with its caller, and streams with either end."""

from __future__ import annotations

import anyio
import pytest

from ctl.artifact import read_program
from ctl.calling import CallOptions
from ctl.client import ControlClient
from ctl.jobs import running
from lattice import streams
from lattice.errors import Interrupted
from lattice.jobs import JobSpec
from lattice.model import ComponentSpec
from lattice.tasks import open_tasks
from tests.e2e.processes import EXAMPLES, LATTICECTL, MISBEHAVE, Lattice, until
from tests.e2e.questions import holders, in_flight

pytestmark = [pytest.mark.slow, pytest.mark.fault]

TOOL = EXAMPLES / "tool-command/c/tool.wasm"
AT_ONCE_SECONDS = 5.0
"""Long before their budget is over."""
UNHEARD_SECONDS = 8.0
"""A client is no node: its death shows when the server has nobody to give the next sign of life to."""
LONG = CallOptions(budget_seconds=60)


async def is_free(client: ControlClient) -> bool:
    return not await in_flight(client, "misbehave")


@pytest.mark.parametrize("file", ["tool.wasm", "tool.wasip1.wasm"])
async def test_a_client_that_is_killed_leaves_no_job_behind(
    lattice: Lattice, client: ControlClient, file: str
) -> None:
    command = [*LATTICECTL, "run", str(TOOL.parent / file), "spin"]
    async with await anyio.open_process(command, env=lattice.environment) as process:
        await until(client.jobs, what="the job runs")
        process.kill()

    async def is_over() -> bool:
        return not await client.jobs()

    await until(is_over, seconds=UNHEARD_SECONDS, what="the job has ended")


@pytest.fixture
async def holder(lattice: Lattice, client: ControlClient) -> str:
    """The node that runs `misbehave`."""
    await lattice.deploy(MISBEHAVE)
    (name,) = await holders(client, "misbehave")
    return name


@pytest.mark.parametrize("routes_calls", [False, True])
async def test_a_client_that_leaves_ends_its_call(
    lattice: Lattice, client: ControlClient, holder: str, routes_calls: bool
) -> None:
    async with lattice.connect(routes_calls=routes_calls) as caller, open_tasks() as tasks:
        tasks.start_soon(caller.invoke, await caller.function("misbehave", "spin"), [], LONG)
        await until(lambda: in_flight(client, "misbehave"), what="the call is in flight")
        tasks.cancel_scope.cancel()

    await until(lambda: is_free(client), seconds=AT_ONCE_SECONDS, what="the callee has ended")


async def test_a_node_that_is_killed_ends_what_it_called_elsewhere(
    lattice: Lattice, client: ControlClient, holder: str
) -> None:
    entry = next(node for node in lattice.nodes.values() if node.name != holder)
    spin = await client.function("misbehave", "spin")

    async with open_tasks() as tasks:
        tasks.start_soon(client.invoke, spin, [], CallOptions(budget_seconds=60, node=entry.id))
        await until(lambda: in_flight(client, "misbehave"), what="the call is in flight")
        entry.kill()
        await until(lambda: is_free(client), seconds=AT_ONCE_SECONDS, what="the callee has ended")
        tasks.cancel_scope.cancel()


async def test_a_node_that_is_killed_ends_both_streams_of_its_job_at_once(
    lattice: Lattice, client: ControlClient
) -> None:
    artifact = await anyio.to_thread.run_sync(read_program, TOOL)
    await client.upload(artifact)
    spec = JobSpec(component=ComponentSpec(name="tool", digest=artifact.digest), arguments=("cat",))
    source, body = streams.pair()
    ended = anyio.Event()

    async def feed() -> None:
        try:
            while True:
                await source.send(bytes(65536))
        except Interrupted:
            ended.set()

    async def follow() -> None:
        received = 0
        async with running(client, spec, node="b", source=body) as job:
            async for _, piece in job.output():
                received += len(piece)
                if received > 1_000_000 and lattice["b"].is_running:
                    lattice["b"].kill()

    async with open_tasks() as tasks:
        tasks.start_soon(feed)
        with pytest.raises(Interrupted), anyio.fail_after(10):
            await follow()
        with anyio.fail_after(AT_ONCE_SECONDS):
            await ended.wait()
