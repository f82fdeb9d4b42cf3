"""Several links of one interface through whole nodes: the guest chooses, an operator changes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
import wasmtime

from ctl.client import ControlClient
from lattice.errors import Denied
from tests.node.capabilities.relays import OPTIONS
from tests.node.capabilities.test_bus import text
from tests.node.whole_nodes import Lattice, deploy, until

INTERFACE = "test:probe/probe"


def answering(word: str) -> str:
    """A component that exports the interface and answers with one word."""
    return f"""(component
      (core module $m (memory (export "memory") 1) (data (i32.const 16) "{word}")
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
        (func (export "ask") (result i32)
          (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const {len(word)}))
          (i32.const 0)))
      (core instance $memory (instantiate $m))
      (func $ask (result string) (canon lift (core func $memory "ask") {OPTIONS}))
      (instance $probe (export "ask" (func $ask)))
      (export "{INTERFACE}" (instance $probe)))"""


async def build(folder: Path, name: str, source: str) -> Path:
    file = folder / f"{name}.wasm"
    await anyio.Path(file).write_bytes(bytes(wasmtime.wat2wasm(source)))
    return file


async def start(lattice: Lattice, folder: Path, version: str) -> ControlClient:
    """Two nodes, two components that answer, and one that asks whichever it chooses."""
    await lattice.start("a")
    await lattice.start("b")
    client = await lattice.client()
    for word in ("one", "two"):
        await deploy(client, await build(folder, word, answering(word)))
    source = text(version).replace('"wasikeyvaluestore"', '"testprobeprobe...."')
    # Where the guest's words begin and how long they are: `wasi`, `keyvalue`, `store` become the probe's.
    source = source.replace(
        "(i32.const 16) (i32.const 4) (i32.const 20) (i32.const 8)\n        (i32.const 28) (i32.const 5)",
        "(i32.const 16) (i32.const 4) (i32.const 20) (i32.const 5)\n        (i32.const 25) (i32.const 5)",
    )
    asker = await build(folder, "asker", source)
    await client.put_link("asker", INTERFACE, "one")
    await client.put_link("asker", INTERFACE, "two", name="cache")
    await deploy(client, asker, replicas=2)
    return client


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
async def test_a_guest_calls_over_the_link_that_it_chose(
    lattice: Lattice, tmp_path: Path, version: str
) -> None:
    client = await start(lattice, tmp_path, version)

    assert await client.call("asker", "ask") == "one"
    assert await client.call("asker", "choose-and-ask", ["cache"]) == "two"
    assert await client.call("asker", "choose-and-ask", ["default"]) == "one"


async def test_a_link_that_is_not_there_is_refused_when_it_is_called(
    lattice: Lattice, tmp_path: Path
) -> None:
    client = await start(lattice, tmp_path, "1.0.0")

    with pytest.raises(Denied, match="cash"):
        await client.call("asker", "choose-and-ask", ["cash"])


async def test_a_link_that_is_changed_or_taken_away_is_so_for_the_next_call(
    lattice: Lattice, tmp_path: Path
) -> None:
    client = await start(lattice, tmp_path, "2.0.0")
    before = await client.replicas("asker")

    async def ask(name: str) -> Any:
        return await client.call("asker", "choose-and-ask", [name])

    await client.put_link("asker", INTERFACE, "one", name="cache")
    await until(lambda: ask("cache"), "one")
    await client.put_link("asker", INTERFACE, "two", name="third")
    await until(lambda: ask("third"), "two")
    await client.delete_link("asker", INTERFACE, name="cache")

    async def refusal() -> str:
        return str((await client.call("asker", "choose", ["cache"])).get("err"))

    async def is_refused() -> bool:
        return "has no link 'cache'" in await refusal()

    await until(is_refused, True)
    assert {item.id for item in await client.replicas("asker")} == {item.id for item in before}
