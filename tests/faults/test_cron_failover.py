"""Cron triggers while the nodes that run them are killed (`kill -9`): no tick twice, or none lost, as set."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import anyio.to_thread
import pytest

from ctl.client import ControlClient
from lattice.sealing import Secret
from tests.e2e.processes import GREETER, Lattice, until
from tests.e2e.questions import controller

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(120)]

INTERVAL_SECONDS = 0.2
KILLS = 2
VALUE = "hunter2-correct-horse"
CRON = {"schedule": "every 200ms", "call": "demo:greeter/greet.hello"}


def moment(tick: str) -> float:
    return datetime.fromisoformat(tick.rpartition("/")[2]).timestamp()


def contents(folder: Path) -> dict[Path, bytes]:
    """All files: data folders, the server's stores, and the logs."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


async def runs_of_ticks(
    lattice: Lattice, client: ControlClient, configuration: dict[str, str]
) -> Counter[str]:
    """How often each tick was run, while the node that leads is killed and comes back, several times."""
    await lattice.deploy(GREETER, replicas=3)
    runs: Counter[str] = Counter()
    async with client.events() as events:
        await client.put_trigger("greeter", "cron", configuration)

        async def more(count: int) -> None:
            wanted = len(runs) + count
            async for event in events:
                if event.event in ("trigger.fired", "trigger.failed"):
                    runs[event.details["tick"]] += 1
                if len(runs) >= wanted:
                    return

        await more(5)
        for _ in range(KILLS):
            leader = lattice[await controller(client)]
            leader.kill()
            await more(10)
            leader.start()
            await leader.ready()
        await more(5)
    return runs


async def test_at_least_once_no_tick_is_lost_when_leaders_are_killed(
    lattice: Lattice, client: ControlClient
) -> None:
    runs = await runs_of_ticks(lattice, client, {**CRON, "delivery": "at-least-once"})

    ticks = sorted(map(moment, runs))
    gaps = [after - before for before, after in pairwise(ticks)]
    assert max(gaps) == pytest.approx(INTERVAL_SECONDS, abs=0.001)


async def test_at_most_once_no_tick_is_run_twice_when_leaders_are_killed(
    lattice: Lattice, client: ControlClient
) -> None:
    runs = await runs_of_ticks(lattice, client, {**CRON, "missed": "all", "overlap": "allow"})

    assert max(runs.values()) == 1


async def test_a_node_that_joins_is_given_the_secrets_and_no_log_or_file_has_one(tmp_path: Path) -> None:
    async with Lattice(tmp_path, "sealed") as lattice:
        await lattice.add("a")
        async with lattice.connect() as client:
            put = await client.put_secret("db-password", Secret(VALUE))
            await lattice.add("b")

            async def is_sealed() -> bool:
                return (await client.secret("db-password")).nodes == ("a", "b")

            await until(is_sealed, what="the secret is sealed to the new node")
        files = await anyio.to_thread.run_sync(contents, tmp_path)

        assert put.nodes == ("a",)
        assert len(files) > 10
        assert not [file for file, data in files.items() if VALUE.encode() in data]
