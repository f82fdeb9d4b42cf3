from __future__ import annotations

import random
from pathlib import Path

import anyio
import pytest
from wasmtime import component as wasm

from lattice import wit
from lattice.errors import Failed, Invalid, LatticeError
from node.engine import compiler as compiler_module
from node.engine.binary import COMPONENT_HEADER, MODULE_HEADER, number, section
from node.engine.compile_process import CompileLimits
from node.engine.compiler import Compiler, entry_name
from node.engine.configuration import EngineSettings, make_engine
from tests.node.engine.guests import BYTES, IDENTITY, binary

KEY = b"the node's key"


def component_of(*bodies: bytes) -> bytes:
    """A component with one core module of functions without parameters."""
    types, count = b"\x01\x60\0\0", number(len(bodies))
    code = count + b"".join(number(len(body)) + body for body in bodies)
    functions = count + b"\0" * len(bodies)
    return COMPONENT_HEADER + section(
        1, MODULE_HEADER + section(1, types) + section(3, functions) + section(10, code)
    )


SLOW = component_of(b"\0" + b"\x41\x01" + b"\x41\x01\x6a" * 2_000_000 + b"\x1a\x0b")
"""Additions in one function: tens of seconds of compilation."""
HUNGRY = component_of(b"\0" + b"\x02\x40" * 1_000_000 + b"\x0b" * 1_000_001)
"""Nested blocks: gigabytes."""
WIDE = component_of(b"\0\x02\x40\x41\0\x0e" + number(1_000_000) + b"\0" * 1_000_001 + b"\x0b\x0b")
"""A jump table with a million targets."""


@pytest.fixture
def compiler(tmp_path: Path) -> Compiler:
    return Compiler(tmp_path / "code", KEY)


async def test_a_component_becomes_code_that_an_engine_loads(compiler: Compiler) -> None:
    phases: list[str] = []

    compiled = await compiler.compile(binary(IDENTITY), phases.append)

    wasm.Component.deserialize_file(make_engine(EngineSettings(max_instances=10)), str(compiled.path))
    assert phases == ["describe", "compile", "store"]
    assert compiled.size == len(binary(IDENTITY))
    assert "run" in compiled.type.exports[wit.WORLD].functions


async def test_the_same_bytes_are_compiled_once(compiler: Compiler) -> None:
    first = await compiler.compile(binary(IDENTITY))
    again = await compiler.compile(binary(IDENTITY))

    assert again == first
    assert (compiler.statistics().compiled, compiler.statistics().from_cache) == (1, 1)


async def test_simultaneous_requests_share_one_compilation(compiler: Compiler) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(compiler.compile, binary(IDENTITY))

    assert compiler.statistics().compiled == 1


async def test_compiled_code_survives_a_restart(compiler: Compiler, tmp_path: Path) -> None:
    compiled = await compiler.compile(binary(IDENTITY))

    restarted = await anyio.to_thread.run_sync(
        lambda: Compiler(tmp_path / "code", KEY).cached(compiled.digest)
    )

    assert restarted == compiled


async def test_damaged_code_is_compiled_again(compiler: Compiler) -> None:
    compiled = await compiler.compile(binary(IDENTITY))
    await anyio.Path(compiled.path).chmod(0o600)
    await anyio.Path(compiled.path).write_bytes(b"something else")

    again = await compiler.compile(binary(IDENTITY))

    assert await anyio.Path(again.path).stat()
    assert compiler.statistics().compiled == 2


async def test_the_adapted_interfaces_are_named(compiler: Compiler) -> None:
    compiled = await compiler.compile(binary(BYTES))

    assert compiled.adapted_imports == {"demo:bytes/host"}
    assert compiled.adapted_exports == {"demo:bytes/api", wit.WORLD}
    assert wit.contains_bytes(compiled.type.exports["demo:bytes/api"].functions["echo"].result)


def test_whatever_shapes_the_code_shapes_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EngineSettings()
    name = entry_name("sha256:0", settings)

    assert entry_name("sha256:1", settings) != name
    assert entry_name("sha256:0", EngineSettings(wasm_stack_bytes=1 << 20)) != name
    assert entry_name("sha256:0", EngineSettings(max_instances=3)) == name
    monkeypatch.setattr(compiler_module, "ADAPTER_VERSION", -1)
    assert entry_name("sha256:0", settings) != name


REFUSED = [
    (b"", "empty"),
    (MODULE_HEADER, "core WebAssembly module"),
    (b"\0" * 100_000_000, "zeros"),
    (COMPONENT_HEADER + b"\0" * 10_000_000, "more than 100000 sections"),
    (binary(IDENTITY)[:-20], "truncated"),
    (component_of(b"\0\x6a\x0b"), "not valid"),
    (WIDE, "br_table"),
    (binary('(component (import "wasi:clocks/wall-clock@0.3.0" (instance)))'), "WASI 0.3"),
    (binary('(component (import "f" (func async)))'), "WASI 0.3"),
    (binary('(component (import "f" (func (param "s" (stream u8)))))'), "WASI 0.3"),
]


@pytest.mark.parametrize(("artifact", "words"), REFUSED, ids=[words for _, words in REFUSED])
async def test_what_cannot_be_compiled_is_refused_clearly(
    compiler: Compiler, tmp_path: Path, artifact: bytes, words: str
) -> None:
    with anyio.fail_after(20), pytest.raises(Invalid, match=words):
        await compiler.compile(artifact)

    assert [path async for path in anyio.Path(tmp_path / "code").iterdir()] == []


async def test_a_file_above_the_limit_is_not_looked_at(tmp_path: Path) -> None:
    small = await anyio.to_thread.run_sync(lambda: Compiler(tmp_path, KEY, CompileLimits(artifact_bytes=10)))

    with pytest.raises(Invalid, match="artifact_bytes"):
        await small.compile(binary(IDENTITY))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "artifact", "words"),
    [
        (CompileLimits(cpu_seconds=1), SLOW, "cpu_seconds"),
        (CompileLimits(wall_seconds=0.5), SLOW, "wall_seconds"),
        (CompileLimits(memory_bytes=256 << 20), HUNGRY, "memory_bytes"),
        (CompileLimits(code_bytes=5000), binary(IDENTITY), "code_bytes"),
    ],
)
async def test_each_limit_holds_and_is_named(
    tmp_path: Path, limits: CompileLimits, artifact: bytes, words: str
) -> None:
    limited = await anyio.to_thread.run_sync(lambda: Compiler(tmp_path, KEY, limits))

    with anyio.fail_after(20), pytest.raises(Invalid, match=words):
        await limited.compile(artifact)

    assert [path async for path in anyio.Path(tmp_path).iterdir()] == []


@pytest.mark.slow
async def test_cancelling_kills_the_process_and_leaves_nothing(compiler: Compiler, tmp_path: Path) -> None:
    with anyio.move_on_after(1) as scope:
        await compiler.compile(SLOW)

    assert scope.cancelled_caught
    assert [path async for path in anyio.Path(tmp_path / "code").iterdir()] == []
    assert (await compiler.compile(binary(IDENTITY))).size  # the slot is free again


async def test_a_folder_lost_meanwhile_is_explained(compiler: Compiler, tmp_path: Path) -> None:
    await anyio.Path(tmp_path / "code").rmdir()
    await anyio.Path(tmp_path / "code").write_bytes(b"")

    with pytest.raises(Failed):
        await compiler.compile(binary(IDENTITY))


@pytest.mark.slow
async def test_mutated_components_never_break_the_compiler(compiler: Compiler) -> None:
    generator = random.Random(7)
    for _ in range(30):
        mutated = bytearray(binary(BYTES))
        for _ in range(generator.randint(1, 4)):
            mutated[generator.randrange(8, len(mutated))] = generator.randrange(256)
        try:
            await compiler.compile(bytes(mutated))
        except LatticeError as error:
            assert error.code == "invalid", error.message  # noqa: PT017
