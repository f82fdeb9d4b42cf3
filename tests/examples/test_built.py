"""The components that are committed: their imports, exports and answers, and that they can be rebuilt."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from wasmtime import Engine, Store, WasiConfig, wat2wasm
from wasmtime.component import Component, ComponentInstanceType, Linker

EXAMPLES = Path(__file__).parents[2] / "examples"
MAX_BYTES = 100_000
COMPONENT_LD = "wasm-component-ld 0.5.21"
"""The linker that the committed files were made with; another may encode the same component otherwise."""

RUN = "wasi:cli/run@0.2.6"
HTTP = "wasi:http/incoming-handler@0.2.0"
CAPABILITIES = ("wasi:", "wasmcloud:messaging/", "wasmcloud:secrets/", "demo:kv/store")


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What is expected of one committed file; functions are some of those that the interface has."""

    interface: str
    functions: set[str]
    has_wasi: bool = False
    has_store: bool = False


def greeter(*, has_wasi: bool = False, has_store: bool = False) -> Built:
    return Built(interface="demo:greeter/greet", functions={"hello"}, has_wasi=has_wasi, has_store=has_store)


BUILT: Mapping[str, Built] = {
    "greeter/wat/greeter.wasm": greeter(),
    "greeter/c/greeter.wasm": greeter(),
    "greeter/c-libc/greeter.wasm": greeter(has_wasi=True),
    "greeter/zig/greeter.wasm": greeter(),
    "greeter/rust/greeter.wasm": greeter(has_wasi=True),
    "greeter-kv/c/greeter-kv.wasm": greeter(has_store=True),
    "greeter-kv/rust/greeter-kv.wasm": greeter(has_store=True, has_wasi=True),
    "kv-store/c/kv-store.wasm": Built(interface="demo:kv/store", functions={"get"}),
    "counter/c/counter.wasm": Built(
        interface="demo:counter/visits", functions={"visit", "seen", "forget"}, has_wasi=True
    ),
    "keyvalue-loop/c/keyvalue-loop.wasm": Built(
        interface="demo:loop/keyvalue", functions={"get", "set"}, has_wasi=True
    ),
    "bytes/c/bytes.wasm": Built(interface="demo:bytes/echo", functions={"echo", "checksum"}),
    "calculator/calculator.wasm": Built(interface="demo:calculator/calculate", functions={"add", "divide"}),
    "misbehave/misbehave.wasm": Built(
        interface="demo:misbehave/acts",
        functions={"spin", "trap", "recurse", "grow", "bump", "fib", "devour"},
    ),
    "flood/c/flood.wasm": Built(interface="demo:flood/output", functions={"forever", "lines"}, has_wasi=True),
    "hello-command/c/hello.wasm": Built(interface=RUN, functions={"run"}, has_wasi=True),
    "hello-command/rust/hello.wasm": Built(interface=RUN, functions={"run"}, has_wasi=True),
    "tool-command/c/tool.wasm": Built(interface=RUN, functions={"run"}, has_wasi=True),
    "tally/c/tally.wasm": Built(interface=RUN, functions={"run"}, has_wasi=True),
    "http-hello/c/http-hello.wasm": Built(interface=HTTP, functions={"handle"}, has_wasi=True),
    "http-hello/rust/http-hello.wasm": Built(interface=HTTP, functions={"handle"}, has_wasi=True),
    "http-echo/c/http-echo.wasm": Built(interface=HTTP, functions={"handle"}, has_wasi=True),
    "http-relay/c/http-relay.wasm": Built(interface=HTTP, functions={"handle"}, has_wasi=True),
    "guestbook/c/guestbook.wasm": Built(interface=HTTP, functions={"handle"}, has_wasi=True),
    "changes/c/changes.wasm": Built(
        interface="wasi:keyvalue/watcher@0.2.0-draft", functions={"on-set", "on-delete"}, has_wasi=True
    ),
    "thumbs/c/thumbs.wasm": Built(
        interface="demo:thumbs/album",
        functions={"add", "photo", "thumb", "names", "remove", "shrink"},
        has_wasi=True,
    ),
    "report/c/report.wasm": Built(
        interface="wasmcloud:cron/scheduler@0.1.0", functions={"invoke"}, has_wasi=True
    ),
    "types/rust/types.wasm": Built(
        interface="demo:types/echo",
        functions={"echo-everything", "echo-option-thrice", "sum", "nothing"},
    ),
}
GREETERS = [name for name in BUILT if name.startswith("greeter/")]

MODULES = {"tool-command/c/tool.wasip1.wasm"}
"""Commands that are no components."""

FREESTANDING = [name for name in BUILT if name.split("/")[-2] in ("c", "zig") and "-command" not in name]
TEXTS = [name for name in BUILT if (EXAMPLES / name).with_suffix(".wat").exists()]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.fixture(params=BUILT)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def call(engine: Engine, name: str, interface: str, function: str, *arguments: Any) -> Any:
    """One call in a fresh instance with WASI; what the component prints is dropped."""
    component = Component.from_file(engine, str(EXAMPLES / name))
    store = Store(engine)
    store.set_wasi(WasiConfig())
    linker = Linker(engine)
    linker.add_wasip2()
    instance = linker.instantiate(store, component)
    owner = component.get_export_index(interface)
    index = component.get_export_index(function, owner)
    assert index is not None
    found = instance.get_func(store, index)
    assert found is not None
    return found(store, *arguments)


def test_every_committed_component_is_listed() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--", "*.wasm"], cwd=EXAMPLES, capture_output=True, text=True
    )
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")

    assert set(tracked.stdout.split()) == set(BUILT) | MODULES


def test_exports_what_its_world_says(engine: Engine, name: str) -> None:
    exports = Component.from_file(engine, str(EXAMPLES / name)).type.exports(engine)

    interface = exports[BUILT[name].interface].ty
    assert isinstance(interface, ComponentInstanceType)
    assert BUILT[name].functions <= set(interface.exports(engine))


def test_imports_no_more_than_it_needs(engine: Engine, name: str) -> None:
    imports = set(Component.from_file(engine, str(EXAMPLES / name)).type.imports(engine))

    assert any(item.startswith("wasi:") for item in imports) == BUILT[name].has_wasi
    assert ("demo:kv/store" in imports) == BUILT[name].has_store
    assert all(item.startswith(CAPABILITIES) for item in imports)


def test_is_small_and_tells_nothing_of_the_machine_that_built_it(name: str) -> None:
    data = (EXAMPLES / name).read_bytes()

    assert len(data) < MAX_BYTES
    assert not any(path in data for path in (b"/root/", b"/home/", b"/tmp/", b"/work/", b"/Users/"))


@pytest.mark.parametrize("path", GREETERS)
@pytest.mark.parametrize(
    "who", ["Ada", "", "Zoë 🦉", "x" * 100_000], ids=["name", "empty", "unicode", "long"]
)
def test_all_greeters_greet_alike(engine: Engine, path: str, who: str) -> None:
    assert call(engine, path, "demo:greeter/greet", "hello", who) == f"Hello, {who}!"


def test_kv_store_knows_some_keys(engine: Engine) -> None:
    get = "kv-store/c/kv-store.wasm", "demo:kv/store", "get"

    assert "algebraic patterns" in call(engine, *get, "Ada")
    assert call(engine, *get, "Nobody") is None


def test_bytes_come_back_unchanged(engine: Engine) -> None:
    data = bytes(range(256))

    assert call(engine, "bytes/c/bytes.wasm", "demo:bytes/echo", "echo", data) == data
    assert call(engine, "bytes/c/bytes.wasm", "demo:bytes/echo", "checksum", data) == sum(data)


@pytest.mark.parametrize(
    ("arguments", "quotient"),
    [((7, -2), -3), ((1, 0), "division by zero"), ((-(2**31), -1), "the quotient is out of range")],
)
def test_calculator_divides_or_says_why_not(
    engine: Engine, arguments: tuple[int, int], quotient: Any
) -> None:
    calculator = "calculator/calculator.wasm", "demo:calculator/calculate", "divide"

    assert call(engine, *calculator, *arguments) == quotient


@pytest.mark.parametrize("name", TEXTS)
def test_text_assembles_to_the_committed_file(name: str) -> None:
    path = EXAMPLES / name

    assert bytes(wat2wasm(path.with_suffix(".wat").read_text())) == path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", FREESTANDING)
def test_rebuilds_to_the_committed_file(name: str, tmp_path: Path) -> None:
    require_toolchain()
    copy = tmp_path / "examples"
    ignored = shutil.ignore_patterns("*.wasm", "target", "node_modules", ".venv", "__pycache__")
    for part in ("tools", "include", name.split("/")[0]):
        shutil.copytree(EXAMPLES / part, copy / part, ignore=ignored)

    built = subprocess.run(
        ["make", "--silent", "-C", str((copy / name).parent), f"PYTHON={sys.executable}"],
        capture_output=True,
        text=True,
    )

    assert built.returncode == 0, built.stderr
    assert (copy / name).read_bytes() == (EXAMPLES / name).read_bytes()


def require_toolchain() -> None:
    """Skip unless the compilers and the very linker of the committed files are here."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("needs the package ziglang")
    if shutil.which("rustc") is None or shutil.which("make") is None:
        pytest.skip("needs make, and rustc's component linker")
    query = ["rustc", "--print", "target-libdir"]
    libraries = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    linker = Path(libraries).parent / "bin" / "wasm-component-ld"
    if not linker.exists():
        pytest.skip(f"{linker} does not exist")
    version = subprocess.run([linker, "--version"], capture_output=True, text=True).stdout.strip()
    if version != COMPONENT_LD:
        pytest.skip(f"built with {COMPONENT_LD}, here is {version}")
