"""The committed components in a node's engine, with its WASI: what the usual toolchains build runs here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from node.capabilities.wasi import WasiSettings, wasi_interfaces
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.host import CallContext, GuestCall, HostInterface
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool

EXAMPLES = Path(__file__).parents[2] / "examples"
TYPES = "types/rust/types.wasm"
NAN = float("nan")

PERSON = {"name": "Ada", "age": 36, "nickname": None, "languages": ["en", "fr"], "at": {"x": 1, "y": -1}}
EVERYTHING = {
    "yes": True,
    "small": -1,
    "large": 2**64 - 1,
    "ratio": 0.1,
    "letter": "🦉",
    "text": "Zoë",
    "data": b"\x00\xff",
    "pair": [7, "seven"],
    "who": PERSON,
    "what": {"polygon": [{"x": 1, "y": 2}]},
    "hue": "dark-blue",
    "rights": ["read", "execute"],
    "perhaps": [None],
    "outcome": {"err": "no"},
}
VALUES: Mapping[str, Sequence[Any]] = {
    "bool": [True, False],
    "u8": [0, 255],
    "s8": [-128, 127],
    "u16": [65535],
    "s16": [-32768],
    "u32": [2**32 - 1],
    "s32": [-(2**31)],
    "u64": [2**64 - 1],
    "s64": [-(2**63)],
    "f32": [1.5, float("inf")],
    "f64": [0.1, float("-inf")],
    "char": ["a", "🦉"],
    "string": ["", "Zoë"],
    "bytes": [b"", bytes(range(256))],
    "list": [[], [1, -2]],
    "strings": [["a", ""]],
    "chunks": [[b"a", b""]],
    "entries": [[["key", b"value"]]],
    "tuple": [[1, "x", 2.5]],
    "record": [PERSON],
    "variant": [{"nothing": None}, {"circle": 1.5}, {"rectangle": [1.0, 2.0]}, {"portrait": PERSON}],
    "enum": ["green", "dark-blue"],
    "permissions": [[], ["read", "write", "execute"]],
    "months": [["january", "december"]],
    "bits": [["b0", "b31"]],
    "option": [None, "x"],
    "option-bytes": [None, b"\xff"],
    "option-option": [None, [None], [3]],
    "option-thrice": [None, [None], [[None]], [[True]]],
    "result": [{"ok": 1}, {"err": "no"}],
    "result-same": [{"ok": "a"}, {"err": "a"}],
    "result-ok": [{"ok": 1}, {"err": None}],
    "result-err": [{"ok": None}, {"err": "no"}],
    "result-empty": [{"ok": None}, {"err": None}],
    "result-option": [{"ok": None}, {"ok": 3}, {"err": None}, {"err": "no"}],
    "everything": [EVERYTHING],
}


class Runner:
    """Compiles components and calls them; keeps what they print."""

    def __init__(self, engine: Engine, compiler: Compiler) -> None:
        self.output = b""
        self._engine = engine
        self._compiler = compiler
        self._pools: list[ComponentPool] = []

    async def start(
        self,
        path: str,
        *,
        environment: Mapping[str, str] | None = None,
        imports: Sequence[HostInterface] = (),
    ) -> Callable[..., Any]:
        """A function that calls one of the component's: interface, function, arguments."""
        artifact = await anyio.Path(EXAMPLES / path).read_bytes()
        settings = WasiSettings(environment=environment or {}, arguments=("program", "an argument"))
        pool = ComponentPool(
            self._engine,
            await self._compiler.compile(artifact),
            name="example",
            limits=InstanceLimits(),
            slots=1,
            imports=[*wasi_interfaces(settings), *imports],
            sink=self._keep,
        )
        self._pools.append(pool)

        async def call(interface: str, function: str, *arguments: Any) -> Any:
            context = CallContext(deadline=anyio.current_time() + 10)
            return await pool.call(interface, function, arguments, context)

        return call

    async def stop(self) -> None:
        for pool in self._pools:
            await pool.aclose()

    def _keep(self, call: GuestCall, stream: str, data: bytes) -> None:
        self.output += data


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """One for all tests here, so that each component is compiled once."""
    return Compiler(tmp_path_factory.mktemp("compiled"), b"k" * 32)


@pytest.fixture
async def runner(compiler: Compiler) -> AsyncIterator[Runner]:
    async with Engine() as engine:
        runner = Runner(engine, compiler)
        yield runner
        await runner.stop()


@pytest.mark.parametrize("language", ["wat", "c", "c-libc", "zig", "rust"])
async def test_the_greeters_of_all_toolchains_answer(runner: Runner, language: str) -> None:
    call = await runner.start(f"greeter/{language}/greeter.wasm")

    assert await call("demo:greeter/greet", "hello", "Zoë") == "Hello, Zoë!"


async def test_the_c_library_reads_the_environment_and_prints(runner: Runner) -> None:
    call = await runner.start("greeter/c-libc/greeter.wasm", environment={"GREETING": "Hej"})

    assert await call("demo:greeter/greet", "hello", "Ada") == "Hej, Ada!"
    assert b"greeting Ada" in runner.output


@pytest.mark.parametrize("language", ["c", "rust"])
async def test_commands_see_arguments_and_environment_and_sleep(runner: Runner, language: str) -> None:
    call = await runner.start(
        f"hello-command/{language}/hello.wasm", environment={"HELLO_SLEEP_MS": "20", "COLOR": "blue"}
    )
    start = anyio.current_time()

    assert await call("wasi:cli/run@0.2.6", "run") == {"ok": None}
    assert anyio.current_time() - start >= 0.02
    assert b"argument 1: an argument" in runner.output
    assert b"COLOR=blue" in runner.output
    assert b"time: plausible" in runner.output


@pytest.mark.parametrize(("language", "variable"), [("c", "HELLO_EXIT"), ("rust", "HELLO_FAIL")])
async def test_a_command_that_fails_says_so(runner: Runner, language: str, variable: str) -> None:
    call = await runner.start(
        f"hello-command/{language}/hello.wasm", environment={"HELLO_SLEEP_MS": "0", variable: "1"}
    )

    assert await call("wasi:cli/run@0.2.6", "run") == {"err": None}


@pytest.mark.parametrize("language", ["c", "rust"])
async def test_a_greeter_asks_the_store_that_it_is_given(runner: Runner, language: str) -> None:
    store = await runner.start("kv-store/c/kv-store.wasm")

    async def get(call: GuestCall, key: str) -> Any:
        return await store("demo:kv/store", "get", key)

    imports = [HostInterface(name="demo:kv/store", functions={"get": get})]
    call = await runner.start(f"greeter-kv/{language}/greeter-kv.wasm", imports=imports)

    assert await call("demo:greeter/greet", "hello", "Nobody") == "Hello, Nobody!"
    assert (await call("demo:greeter/greet", "hello", "Ada")).startswith("Hello, Ada! You said: The engine")


async def test_every_type_of_value_comes_back_unchanged(runner: Runner) -> None:
    call = await runner.start(TYPES)

    for type_, values in VALUES.items():
        for value in values:
            assert await call("demo:types/echo", f"echo-{type_}", value) == value, type_


async def test_not_a_number_comes_back_as_such(runner: Runner) -> None:
    call = await runner.start(TYPES)

    for function in ("echo-f32", "echo-f64"):
        back = await call("demo:types/echo", function, NAN)
        assert back != back


async def test_many_parameters_none_and_functions_of_the_world(runner: Runner) -> None:
    call = await runner.start(TYPES)

    assert await call("demo:types/echo", "sum", *range(17)) == sum(range(17))
    assert await call("demo:types/echo", "nothing") is None
    assert await call("-", "add", 2**32 - 1, 2) == 1


async def test_a_megabyte_comes_back_unchanged(runner: Runner) -> None:
    call = await runner.start("bytes/c/bytes.wasm")
    data = bytes(range(256)) * 4096

    assert await call("demo:bytes/echo", "echo", data) == data
    assert await call("demo:bytes/echo", "checksum", data) == sum(data) % 2**32
