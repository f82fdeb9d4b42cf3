"""Every WIT value goes into a guest, on to a host function, back, and out again unchanged."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lattice import wit
from lattice.errors import Invalid
from node.engine.engine import Engine
from node.engine.host import GuestCall, HostInterface
from node.engine.limits import InstanceLimits
from node.engine.lowering import MAX_LIST_BYTES
from node.engine.pool import ComponentPool
from tests.node.engine.components import compile_wat
from tests.node.engine.conftest import SMALL, Bench, context
from tests.node.engine.echo import echo_wat, is_same, string_echo_wat, types, values


class Mirror:
    """A host whose `echo` answers what it gets."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.interface = HostInterface(name="demo:echo/host", functions={"echo": self._echo})

    def _echo(self, call: GuestCall, value: Any) -> Any:
        self.seen.append(value)
        return value


@given(data=st.data())
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_values_of_any_type_go_there_and_back(data: st.DataObject) -> None:
    type_ = data.draw(types())
    examples: list[Any] = data.draw(st.lists(st.lists(values(type_), max_size=10), min_size=1, max_size=4))
    if type_ == wit.U8:
        examples = [bytes(example) for example in examples]

    async def run() -> None:
        mirror = Mirror()
        with tempfile.TemporaryDirectory() as folder:
            async with Engine(SMALL) as engine:
                compiled = compile_wat(echo_wat(type_), Path(folder))
                limits = InstanceLimits(prewarm=0)
                pool = ComponentPool(
                    engine, compiled, name="echo", limits=limits, slots=1, imports=[mirror.interface]
                )
                results = [await pool.call("-", "echo", [example], context()) for example in examples]
                await pool.aclose()
        for example, seen, result in zip(examples, mirror.seen, results, strict=True):
            assert is_same(example, seen)
            assert is_same(example, result)

    anyio.run(run)


@pytest.mark.parametrize("size", [0, 1, 1000, 65_536, 1_000_000])
async def test_bytes_cross_an_adapter_as_a_string(bench: Bench, size: int) -> None:
    mirror = Mirror()
    pool = bench.pool(string_echo_wat(), imports=[mirror.interface], adapted=True)
    payload = (bytes(range(256)) * (size // 256 + 1))[:size]

    result = await pool.call("-", "echo", [payload], context())

    assert mirror.seen == [payload]
    assert result == payload


@pytest.mark.parametrize("size", [0, 5, 65_536, 65_537, 1_000_000])
async def test_bytes_cross_without_an_adapter(bench: Bench, size: int) -> None:
    mirror = Mirror()
    pool = bench.pool(echo_wat(wit.U8), imports=[mirror.interface])
    payload = (bytes(range(256)) * (size // 256 + 1))[:size]

    result = await pool.call("-", "echo", [payload], context())

    assert mirror.seen == [payload]
    assert result == payload


async def test_more_bytes_than_a_list_can_carry_are_refused_with_the_limit(bench: Bench) -> None:
    pool = bench.pool(echo_wat(wit.U8), imports=[Mirror().interface])

    with pytest.raises(Invalid, match=f"argument 'a': 2795655 bytes .*{MAX_LIST_BYTES}"):
        await pool.call("-", "echo", [bytes(MAX_LIST_BYTES + 1)], context())


@pytest.mark.parametrize("name", ["u32", "s8", "f64", "string"])
async def test_long_lists_cross_unchanged(bench: Bench, name: str) -> None:
    items: dict[str, list[Any]] = {
        "u32": list(range(100_000)),
        "s8": [number % 256 - 128 for number in range(70_000)],
        "f64": [number / 3 for number in range(70_000)],
        "string": [str(number) for number in range(5_000)],
    }
    pool = bench.pool(echo_wat(wit.Primitive(name)), imports=[Mirror().interface])

    assert await pool.call("-", "echo", [items[name]], context()) == items[name]


RESULTS = """
(component
  (core module $m (memory (export "memory") 1)
    (func (export "checked") (param i32) (result i32)
      (i32.store (i32.const 20) (local.get 0)) (i32.const 16)))
  (core instance $i (instantiate $m))
  (func (export "checked") (param "a" u32) (result (result u32 (error string)))
    (canon lift (core func $i "checked") (memory (core memory $i "memory")))))
"""


async def test_a_reused_instance_gives_one_result_after_another(bench: Bench) -> None:
    """A result owns memory of its own, which is freed once."""
    pool = bench.pool(RESULTS, reuse=100, prewarm=0)

    for number in range(100):
        assert await pool.call("-", "checked", [number], context()) == {"ok": number}
    assert pool.statistics().instances_made == 1
