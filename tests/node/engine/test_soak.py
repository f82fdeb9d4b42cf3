"""Many calls, a third of which fail in every way there is, leave nothing behind.

`LATTICE_SOAK_CALLS=200000` makes it the real thing.
"""

from __future__ import annotations

import gc
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog

from lattice import wit
from lattice.errors import Conflict, Failed, LatticeError
from node.engine.configuration import EngineSettings
from node.engine.engine import Engine
from node.engine.host import GuestCall, HostInterface
from node.engine.pool import ComponentPool
from tests.node.engine.components import ADD, FILES, KEY_VALUE
from tests.node.engine.conftest import Bench, context
from tests.node.engine.echo import echo_wat, string_echo_wat
from tests.node.engine.test_host_functions import store
from tests.node.engine.test_host_resources import File, Files

CALLS = int(os.environ.get("LATTICE_SOAK_CALLS", "5000"))
CALLERS = 32
MAX_GROWTH_BYTES = 8 << 20

DECOMMITTING = EngineSettings(max_instances=100, memory_keep_resident_bytes=0)
"""Kept memory is bounded, but takes half a million calls to reach its bound; here it would hide a leak."""

SAMPLE = wit.Record(
    (
        ("name", wit.STRING),
        ("maybe", wit.Option(wit.Option(wit.Primitive("u16")))),
        (
            "outcome",
            wit.Result(wit.Variant((("none", None), ("text", wit.STRING))), wit.Enum(("no", "never"))),
        ),
        ("marks", wit.Flags(("a", "b", "c"))),
        ("numbers", wit.List(wit.Primitive("f64"))),
    )
)
VALUE = {
    "name": "größe",
    "maybe": [7],
    "outcome": {"ok": {"text": "x" * 50}},
    "marks": ["a", "c"],
    "numbers": [1.5] * 20,
}


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _get(call: GuestCall, key: int) -> int:
    match key % 8:
        case 0:
            raise Conflict("on purpose")
        case 1:
            await anyio.lowlevel.checkpoint()
            raise Failed("on purpose", error_id="x")
        case 2:
            await anyio.sleep_forever()
        case 3:
            return "not a number"  # type: ignore[return-value]
        case 4:
            await anyio.sleep(0.0002)
    return key


def _echo(call: GuestCall, value: Any) -> Any:
    if isinstance(value, list) and len(value) == 3:
        return [value[0], {**value[1], "marks": ["d"]}]  # fails halfway
    return value


class ForgetfulFiles(Files):
    """Files whose records do not grow."""

    def _make(self, call: GuestCall, size: int) -> File:
        for record in (self.made, self.dropped, self.closed):
            record.clear()
        return super()._make(call, size)


class Traffic:
    """All kinds of calls, most of which succeed."""

    def __init__(self, bench: Bench) -> None:
        echo = [HostInterface(name="demo:echo/host", functions={"echo": _echo})]
        pool = partial(bench.pool, slots=CALLERS, queue_length=CALLERS)
        self.add = pool(ADD, memory_bytes=4 << 16)
        self.reused = pool(ADD, reuse=7)
        self.store = pool(KEY_VALUE, imports=store(_get))
        self.files = pool(FILES, imports=ForgetfulFiles().interfaces(), reuse=3)
        self.sample = pool(echo_wat(SAMPLE), imports=echo)
        self.plain_bytes = pool(echo_wat(wit.U8), imports=echo)
        self.bytes = pool(string_echo_wat(), imports=echo, adapted=True)
        self.outcomes: Counter[str] = Counter()

    def call(self, number: int, chance: random.Random) -> Awaitable[Any]:
        kinds: Sequence[tuple[ComponentPool, str, Any, float]] = (
            (self.add, "add", [1, 2], 10),
            (self.reused, "count", [], 10),
            (self.add, "add", [1, "x"], 10),
            (self.add, "grow", [100], 10),
            (self.reused, "trap", [], 10),
            (self.store, "run", [chance.randrange(64)], 0.005),
            (self.store, "repeat", [5], 10),
            (self.files, "measure", [5], 10),
            (self.files, "keep", [5], 10),
            (self.files, "hand-over", [5], 10),
            (self.sample, "echo", [[VALUE, VALUE]], 10),
            (self.sample, "echo", [[VALUE, {**VALUE, "outcome": {"err": "maybe"}}]], 10),
            (self.sample, "echo", [[VALUE, VALUE, VALUE]], 10),
            (self.plain_bytes, "echo", [bytes(chance.randrange(500))], 10),
            (self.bytes, "echo", [bytes(range(256)) * chance.randrange(20)], 10),
        )
        if number % 1000 == 999:
            return self.add.call("-", chance.choice(["spin", "recurse"]), [], context(0.02))
        pool, function, arguments, seconds = chance.choice(kinds)
        return pool.call("-", function, arguments, context(seconds))

    async def one(self, number: int, chance: random.Random) -> None:
        """One call, sometimes cancelled in flight."""
        try:
            if number % 50 == 0:
                with anyio.move_on_after(chance.random() * 0.0003):
                    await self.call(number, chance)
            else:
                await self.call(number, chance)
            self.outcomes["ok"] += 1
        except LatticeError as error:
            self.outcomes[error.code] += 1


async def _run(traffic: Traffic, calls: int) -> None:
    numbers = iter(range(calls))

    async def caller(seed: int) -> None:
        chance = random.Random(seed)
        for number in numbers:
            await traffic.one(number, chance)

    async with anyio.create_task_group() as tasks:
        for seed in range(CALLERS):
            tasks.start_soon(caller, seed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_calls_that_fail_in_all_ways_leave_nothing_behind(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        async with Engine(DECOMMITTING) as engine:
            bench = Bench(engine, tmp_path)
            traffic = Traffic(bench)
            await _run(traffic, CALLS // 3)
            before = _resident_bytes()
            await _run(traffic, CALLS)
            growth = _resident_bytes() - before
            for pool in bench.pools:
                await pool.aclose()
    finally:
        structlog.reset_defaults()

    record_property("growth_bytes", growth)
    print(f"{CALLS} calls: {dict(traffic.outcomes)}; memory grew by {growth} bytes of {before}")  # noqa: T201
    assert engine.instances == 0
    for pool in bench.pools:
        assert (pool.statistics().in_flight, pool.statistics().queued) == (0, 0)
    assert growth < MAX_GROWTH_BYTES
    assert traffic.outcomes["ok"] < CALLS
