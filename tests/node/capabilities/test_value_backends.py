"""`wasi:config` and `wasmcloud:secrets` answer alike, wherever an operator keeps the values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio import to_thread

from lattice import wit
from lattice.configuration import Configurations
from lattice.configuration_sources import OpenedSource, Sources
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import ComponentSpec
from lattice.sealing import SealKey, Secret
from lattice.secret_sources import SecretSources
from lattice.secrets import Secrets, sealed_record
from node.capabilities.config import config_interfaces
from node.capabilities.secrets import secrets_interfaces
from node.capabilities.secrets.interfaces import REVEAL, STORE

LATTICE, NODE = "test", "NTEST"
VALUES = {"COLOUR": "red", "EMPTY": "", "TEXT": "ä = b # c"}
SECRET = "hunter2-correct-horse"
SPEC = ComponentSpec(name="shop", digest="sha256:" + "0" * 64)
CALL: Any = SimpleNamespace(component="shop")
CONFIG = "wasi:config/runtime@0.2.0-draft"
IMPORTS = wit.ComponentType(
    {
        CONFIG: wit.Interface(
            name=CONFIG,
            functions={name: wit.Function((), wit.Result(None, None)) for name in ("get", "get-all")},
        )
    },
    {},
)


class World:
    """A node with one bus; what a test begins ends with it."""

    def __init__(self, stack: AsyncExitStack, tasks: anyio.abc.TaskGroup, folder: Path) -> None:
        self.folder = folder
        self._stack = stack
        self._tasks = tasks

    async def bus(self) -> MemoryBus:
        return await self._stack.enter_async_context(MemoryBus(MemoryBroker()))

    async def configurations(self, *sources: str, **environment: str) -> Configurations:
        opened = Sources(tuple(map(OpenedSource.parse, sources)), environment)
        found = Configurations(await self.bus(), LATTICE, sources=opened)
        await self._tasks.start(found.run)
        return found

    async def secrets(self, key: SealKey, *sources: str, **environment: str) -> Secrets:
        opened = SecretSources(tuple(map(OpenedSource.parse, sources)), environment)
        found = Secrets(await self.bus(), LATTICE, node=NODE, key=key, sources=opened)
        await self._tasks.start(found.run)
        return found

    async def write(self, name: str, text: str) -> None:
        """A file below the folder that sources open."""
        await to_thread.run_sync((self.folder / name).parent.mkdir, 0o777, True, True)
        await anyio.Path(self.folder / name).write_text(text)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        yield World(stack, tasks, tmp_path)
        tasks.cancel_scope.cancel()


# Configurations


async def lattice_configuration(world: World) -> Configurations:
    found = await world.configurations()
    await found.put("shop", VALUES)
    return found


async def environment_configuration(world: World) -> Configurations:
    variables = {f"SHOP_{key}": value for key, value in VALUES.items()}
    return await world.configurations("env:SHOP_", **variables, OTHER="hidden")


async def file_configuration(world: World) -> Configurations:
    await world.write("shop.env", "".join(f"{key}='{value}'\n" for key, value in VALUES.items()))
    return await world.configurations(f"file:{world.folder}")


async def folder_configuration(world: World) -> Configurations:
    for key, value in VALUES.items():
        await world.write(f"shop/{key}", value)
    return await world.configurations(f"file:{world.folder}")


CONFIGURATIONS: list[tuple[str, Callable[[World], Awaitable[Configurations]]]] = [
    ("shop", lattice_configuration),
    ("env:SHOP_", environment_configuration),
    ("file:shop.env", file_configuration),
    ("file:shop", folder_configuration),
]


@pytest.mark.parametrize(("name", "make"), CONFIGURATIONS, ids=lambda item: getattr(item, "__name__", ""))
async def test_configurations_of_all_backends_are_read_alike(
    world: World, name: str, make: Callable[[World], Awaitable[Configurations]]
) -> None:
    spec = replace(SPEC, configuration_from=(name,))
    (interface,) = config_interfaces(IMPORTS, await make(world), lambda component: spec)
    get, get_all = interface.functions["get"], interface.functions["get-all"]

    assert get_all(CALL) == {"ok": sorted(VALUES.items())}
    assert {key: get(CALL, key)["ok"] for key in VALUES} == VALUES
    assert get(CALL, "MISSING") == get(CALL, "colour") == get(CALL, "") == {"ok": None}
    spec = replace(SPEC, configuration_from=(name,), configuration={"COLOUR": "own"})
    assert get(CALL, "COLOUR") == {"ok": "own"}
    spec = replace(SPEC, configuration_from=(name, f"{name}x"))
    cure = "--config-source" if ":" in name else "latticectl config put shopx"
    assert cure in get(CALL, "COLOUR")["err"]["upstream"]
    spec = SPEC
    assert (get(CALL, "COLOUR"), get_all(CALL)) == ({"ok": None}, {"ok": []})


# Secrets


async def sealed_secret(world: World) -> Secrets:
    key = SealKey.generate()
    found = await world.secrets(key)
    nodes: Mapping[str, bytes] = {NODE: key.public}
    await found.put(sealed_record("key", Secret(SECRET), None, 1, lattice=LATTICE, nodes=nodes))
    return found


async def file_secret(world: World) -> Secrets:
    await world.write("mount/key", SECRET + "\n")
    return await world.secrets(SealKey.generate(), f"file:{world.folder / 'mount'}")


async def variable_secret(world: World) -> Secrets:
    return await world.secrets(SealKey.generate(), "env:SHOP_", SHOP_key=SECRET)


SECRETS: list[tuple[str, Callable[[World], Awaitable[Secrets]]]] = [
    ("key", sealed_secret),
    ("file:key", file_secret),
    ("env:SHOP_key", variable_secret),
]


@pytest.mark.parametrize(("name", "make"), SECRETS, ids=lambda item: getattr(item, "__name__", ""))
async def test_secrets_of_all_backends_are_revealed_alike(
    world: World, name: str, make: Callable[[World], Awaitable[Secrets]]
) -> None:
    spec = replace(SPEC, secrets={"session": name, "gone": f"{name}x"})
    store, reveal = secrets_interfaces(await make(world), lambda component: spec)
    assert (store.name, reveal.name) == (STORE, REVEAL)
    get, tell = store.functions["get"], reveal.functions["reveal"]

    handle = get(CALL, "session")["ok"]
    assert tell(CALL, handle) == {"string": SECRET}
    assert SECRET not in f"{handle} {handle!r}"
    not_found = {"err": {"not-found": None}}
    assert get(CALL, "gone") == get(CALL, name) == get(CALL, "key") == not_found
    spec = SPEC
    assert get(CALL, "session") == not_found
    assert tell(CALL, handle) == {"string": SECRET}
