from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wasmtime import component as wasm

from lattice import wit
from lattice.errors import Denied
from node.engine import adapter
from node.engine.compiled import CompiledComponent
from node.engine.configuration import EngineSettings, make_engine
from node.engine.describe import describe
from node.engine.engine import Engine
from node.engine.host import GuestCall, HostFunction, HostInterface
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool
from node.engine.skeleton import skeleton
from tests.node.engine.conftest import SMALL, context
from tests.node.engine.echo import echo_wat, is_same, types, values
from tests.node.engine.guests import BYTES, RESOURCES, USED_TYPES, binary
from tests.node.engine.handing_on import API as HANDLES
from tests.node.engine.handing_on import HOST, OWN, handing_on

API = "demo:bytes/api"
EXAMPLES = Path(__file__).parents[3] / "examples"
BUILT = sorted(path for path in EXAMPLES.rglob("*.wasm") if "node_modules" not in path.parts)
EVERY_BYTE = bytes(range(256))


def compile_adapted(guest: str | bytes, folder: Path) -> CompiledComponent:
    """The component inside its adapter, compiled in this process; the adapter must fit."""
    engine = make_engine(EngineSettings(is_pooling=False))
    guest = binary(guest) if isinstance(guest, str) else guest
    type_ = describe(guest, engine)
    plan = adapter.plan(type_)
    digest = hashlib.sha256(guest).hexdigest()
    path = folder / f"{digest}.cwasm"
    path.write_bytes(wasm.Component(engine, adapter.adapt(guest, plan)).serialize())
    return CompiledComponent(
        digest=digest,
        size=len(guest),
        type=type_,
        adapted_imports=plan.imports,
        adapted_exports=plan.exports,
        path=path,
    )


class Host:
    """Implements `demo:bytes/host` and remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        functions: dict[str, HostFunction] = {"flip": self.flip, "take": self.take, "count": self.count}
        self.interface = HostInterface(name="demo:bytes/host", functions=functions)

    async def flip(self, call: GuestCall, data: bytes) -> bytes:
        self.seen.append(data)
        await anyio.lowlevel.checkpoint()
        return data[::-1]

    def take(self, call: GuestCall, chunk: dict[str, Any], count: int) -> dict[str, Any]:
        self.seen.append(chunk)
        if count == 0:
            raise Denied("nothing to take")
        return {"data": chunk["data"][:count], "note": chunk["note"] + " 🦀"}

    def count(self, call: GuestCall, number: int) -> int:
        return number + 1


def pool_of(
    engine: Engine, compiled: CompiledComponent, *imports: HostInterface, reuse: int = 1
) -> ComponentPool:
    limits = InstanceLimits(prewarm=0, reuse=reuse)
    return ComponentPool(engine, compiled, name="guest", limits=limits, slots=4, imports=imports)


@pytest.fixture
def compiled(tmp_path: Path) -> CompiledComponent:
    return compile_adapted(BYTES, tmp_path)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 1024, 65_536, 1 << 20, 8 << 20])
async def test_bytes_cross_unchanged(engine: Engine, compiled: CompiledComponent, size: int) -> None:
    pool = pool_of(engine, compiled, Host().interface)
    payload = (EVERY_BYTE * (size // 256 + 1))[:size]

    assert await pool.call(API, "echo", [payload], context()) == payload
    await pool.aclose()


async def test_bytes_cross_imports_several_times_in_one_call(
    engine: Engine, compiled: CompiledComponent
) -> None:
    host = Host()
    pool = pool_of(engine, compiled, host.interface)

    assert await pool.call(API, "twice", [EVERY_BYTE], context()) == EVERY_BYTE
    assert host.seen == [EVERY_BYTE, EVERY_BYTE[::-1]]
    await pool.aclose()


@pytest.mark.parametrize("note", ["", "plain", "Käse", "日本語", "🦀🦀", "a\0b"])
async def test_text_beside_bytes_stays_text(engine: Engine, compiled: CompiledComponent, note: str) -> None:
    host = Host()
    pool = pool_of(engine, compiled, host.interface)

    result = await pool.call(API, "take", [{"data": EVERY_BYTE, "note": note}, 200], context())

    assert host.seen == [{"data": EVERY_BYTE, "note": note}]
    assert result == {"data": EVERY_BYTE[:200], "note": note + " 🦀"}
    await pool.aclose()


async def test_world_functions_and_functions_without_bytes_work_too(
    engine: Engine, compiled: CompiledComponent
) -> None:
    pool = pool_of(engine, compiled, Host().interface)

    assert await pool.call(wit.WORLD, "size", [EVERY_BYTE], context()) == 257
    await pool.aclose()


FRUGAL = """
(component
  (core module $m (memory (export "memory") 40)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
    (func (export "size") (param i32 i32) (result i32) local.get 1))
  (core instance $i (instantiate $m))
  (func (export "size") (param "data" (list u8)) (result u32) (canon lift (core func $i "size")
    (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
"""
"""Takes bytes at the same place of its memory every time."""


async def test_the_adapters_memory_is_free_again_after_each_call(engine: Engine, tmp_path: Path) -> None:
    limits = InstanceLimits(prewarm=0, reuse=1000, memory_bytes=4 << 20)
    compiled = compile_adapted(FRUGAL, tmp_path)
    pool = ComponentPool(engine, compiled, name="guest", limits=limits, slots=1, imports=())
    payload = EVERY_BYTE * 4096

    for _ in range(20):
        assert await pool.call(wit.WORLD, "size", [payload], context()) == 1 << 20
    assert pool.statistics().instances_made == 1
    await pool.aclose()


STRICT = """
(component
  (core module $m (memory (export "memory") 1)
    (func (export "realloc") (param $old i32) (param i32 i32 i32) (result i32)
      (if (local.get $old) (then unreachable))
      i32.const 1024)
    (func (export "length") (param i32 i32 i32 i32) (result i32) local.get 3))
  (core instance $i (instantiate $m))
  (func (export "length") (param "data" (list u8)) (param "note" string) (result u32)
    (canon lift (core func $i "length")
      (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
"""
"""Never makes a block larger or smaller, like components of some toolchains."""


@pytest.mark.parametrize("note", ["plain", "Käse", "日本語", "🦀🦀"])
async def test_a_guest_is_never_asked_to_reallocate(engine: Engine, tmp_path: Path, note: str) -> None:
    pool = pool_of(engine, compile_adapted(STRICT, tmp_path))

    assert await pool.call(wit.WORLD, "length", [EVERY_BYTE, note], context()) == len(note.encode())
    await pool.aclose()


async def test_an_error_of_the_host_ends_the_call_as_it_is(
    engine: Engine, compiled: CompiledComponent
) -> None:
    pool = pool_of(engine, compiled, Host().interface)

    with pytest.raises(Denied, match="nothing to take"):
        await pool.call(API, "take", [{"data": b"", "note": ""}, 0], context())
    assert await pool.call(API, "echo", [b"next"], context()) == b"next"
    await pool.aclose()


@given(data=st.data())
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
def test_types_of_any_shape_around_bytes_fit_the_adapter(data: st.DataObject) -> None:
    type_ = wit.Tuple((data.draw(types()), wit.BYTES))
    examples = data.draw(st.lists(st.lists(values(type_), max_size=4), min_size=1, max_size=3))

    async def run() -> None:
        seen: list[Any] = []

        def echo(call: GuestCall, value: Any) -> Any:
            seen.append(value)
            return value

        with tempfile.TemporaryDirectory() as folder:
            compiled = compile_adapted(echo_wat(type_), Path(folder))
            async with Engine(SMALL) as engine:
                host = HostInterface(name="demo:echo/host", functions={"echo": echo})
                pool = pool_of(engine, compiled, host, reuse=10)
                results = [await pool.call("-", "echo", [example], context()) for example in examples]
                await pool.aclose()
        for example, passed, result in zip(examples, seen, results, strict=True):
            assert is_same(example, passed)
            assert is_same(example, result)

    anyio.run(run)


async def hand_on(type_: wit.Type, examples: Sequence[Any]) -> None:
    """Lend and give each value to the host through a guest: it must come back, and nothing may be dropped."""
    seen: list[Any] = []
    dropped: list[Any] = []

    def take(call: GuestCall, value: Any) -> Any:
        seen.append(value)
        return value

    with tempfile.TemporaryDirectory() as folder:
        compiled = await anyio.to_thread.run_sync(lambda: compile_adapted(handing_on(type_), Path(folder)))
        assert compiled.adapted_imports == {HOST}
        async with Engine(SMALL) as engine:
            host = HostInterface(
                name=HOST,
                functions={"look": lambda call, value: seen.append(value), "pass": take},
                resources={"thing": lambda call, thing: dropped.append(thing)},
            )
            pool = pool_of(engine, compiled, host, reuse=10)
            for example in examples:
                result = await pool.call(HANDLES, "run", [example], context(), takes_objects=True)
                assert is_same(example, result)
            await pool.aclose()
    assert is_same(seen, [example for example in examples for _ in ("lent", "given")])
    assert dropped == []


@given(data=st.data())
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
def test_handles_beside_bytes_are_lent_given_and_returned(data: st.DataObject) -> None:
    type_ = wit.Tuple((data.draw(types(OWN, wit.BYTES)), OWN, wit.BYTES, data.draw(types(OWN))))
    examples = data.draw(st.lists(values(type_), min_size=1, max_size=3))

    anyio.run(hand_on, type_, examples)


U64 = wit.Primitive("u64")
SHARED = wit.Variant((("number", U64), ("thing", OWN), ("none", None)))


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (SHARED, lambda: {"thing": object()}),
        (SHARED, lambda: {"number": 1 << 40}),
        (wit.Option(SHARED), lambda: {"thing": object()}),
        (wit.List(SHARED), lambda: [{"thing": object()}, {"none": None}, {"thing": object()}]),
        (wit.List(wit.List(OWN)), lambda: [[object(), object()], [], [object()]]),
        (wit.Tuple((U64,) * 17 + (OWN,)), lambda: [*range(17), object()]),
        (wit.Tuple((SHARED,) * 9), lambda: [{"thing": object()}] + [{"none": None}] * 8),
        (wit.Result(wit.List(OWN), U64), lambda: {"ok": [object()]}),
    ],
)
async def test_borrowed_handles_are_given_back_wherever_they_are(
    type_: wit.Type, value: Callable[[], Any]
) -> None:
    await hand_on(wit.Tuple((wit.BYTES, type_)), [[b"bytes", value()], [b"\xff" * 300, value()]])


class Store:
    """`wasi:keyvalue/store` with one bucket."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.dropped = 0
        functions: dict[str, HostFunction] = {
            "open": lambda call, name: {"ok": self},
            "[method]bucket.get": lambda call, bucket, key: {"ok": bucket.kept.get(key)},
            "[method]bucket.set": self.set,
        }
        self.interface = HostInterface(
            name="wasi:keyvalue/store@0.2.0-draft", functions=functions, resources={"bucket": self.drop}
        )

    async def set(self, call: GuestCall, bucket: Store, key: str, value: bytes) -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        bucket.kept[key] = value
        return {"ok": None}

    def drop(self, call: GuestCall, bucket: Store) -> None:
        self.dropped += 1


@pytest.mark.parametrize("size", [0, 10, 8 << 20])
async def test_methods_of_a_resource_carry_bytes_of_any_size(
    engine: Engine, tmp_path: Path, size: int
) -> None:
    guest = await anyio.Path(EXAMPLES / "keyvalue-loop/c/keyvalue-loop.wasm").read_bytes()
    store = Store()
    pool = pool_of(engine, compile_adapted(guest, tmp_path), store.interface, reuse=2)

    assert await pool.call("demo:loop/keyvalue", "set", ["k\u00e4y", size, 2], context()) == {"ok": 2}
    assert await pool.call("demo:loop/keyvalue", "get", ["k\u00e4y", 2], context()) == {"ok": size}
    assert len(store.kept["k\u00e4y"]) == size
    assert store.dropped == 2
    await pool.aclose()


@pytest.mark.parametrize("path", BUILT, ids=lambda path: path.name)
def test_the_adapter_fits_every_example(path: Path) -> None:
    """It changes nothing but how bytes are described."""
    engine = make_engine(EngineSettings(is_pooling=False))
    if path.name.endswith(".wasip1.wasm"):
        pytest.skip("a core module")
    guest = skeleton(path.read_bytes())
    type_ = describe(guest, engine)
    plan = adapter.plan(type_)

    adapted = describe(adapter.adapt(guest, plan), engine)

    for before, after, names in (
        (type_.imports, adapted.imports, plan.imports),
        (type_.exports, adapted.exports, plan.exports),
    ):
        assert after == {
            name: adapter.adapted_interface(item) if name in names else item for name, item in before.items()
        }


async def test_a_type_that_the_world_imports_carries_bytes(engine: Engine, tmp_path: Path) -> None:
    sent: list[Any] = []

    def send(call: GuestCall, mail: dict[str, Any], urgency: str) -> dict[str, Any]:
        sent.append((mail, urgency))
        return {**mail, "subject": "Re: " + mail["subject"]}

    compiled = compile_adapted(USED_TYPES, tmp_path)
    pool = pool_of(engine, compiled, HostInterface(name=wit.WORLD, functions={"send": send}))
    mail = {"subject": "Gr\u00fc\u00dfe", "body": EVERY_BYTE * 300}

    assert await pool.call(wit.WORLD, "forward", [mail], context()) == {
        **mail,
        "subject": "Re: Gr\u00fc\u00dfe",
    }
    assert sent == [(mail, "high")]
    assert wit.WORLD in compiled.adapted_imports and wit.WORLD in compiled.adapted_exports
    await pool.aclose()


def plan_of(text: str) -> adapter.AdapterPlan:
    engine = make_engine(EngineSettings(is_pooling=False))
    return adapter.plan(describe(binary(text), engine))


def test_interfaces_without_bytes_are_left_alone() -> None:
    assert plan_of(
        '(component (import "demo:a/b" (instance (export "f" (func (param "s" string))))))'
    ).is_empty


def test_exports_of_wasi_and_ones_with_resources_are_left_alone() -> None:
    with_bytes = """(core module $m (memory (export "memory") 1) (func (export "f") (result i32) i32.const 0))
      (core instance $m (instantiate $m))
      (func $f (result (list u8)) (canon lift (core func $m "f") (memory (core memory $m "memory"))))
      (instance $a (export "f" (func $f))) (export "demo:a/b" (instance $a))
      (instance $w (export "f" (func $f))) (export "wasi:a/b@0.2.0" (instance $w))"""

    assert plan_of(RESOURCES).is_empty
    assert plan_of(f"(component {with_bytes})").exports == {"demo:a/b"}


def test_what_has_no_bytes_passes_through_with_its_resources() -> None:
    engine = make_engine(EngineSettings(is_pooling=False))
    guest = binary(
        RESOURCES[: RESOURCES.rindex(")")]
        + '(import "demo:a/b" (instance (export "f" (func (result (list u8)))))))'
    )
    type_ = describe(guest, engine)

    adapted = describe(adapter.adapt(guest, adapter.plan(type_)), engine)

    assert adapted.imports["wasi:io/streams@0.2.0"] == type_.imports["wasi:io/streams@0.2.0"]
    assert adapted.imports["demo:a/b"].functions["f"].result == wit.STRING


def test_a_resource_that_its_interface_names_twice_keeps_its_functions() -> None:
    engine = make_engine(EngineSettings(is_pooling=False))
    guest = binary("""(component
      (import "wasi:http/types@0.2.0" (instance
        (export "fields" (type $fields (sub resource)))
        (export "trailers" (type (eq $fields)))
        (export "[method]fields.get" (func (param "self" (borrow $fields)) (result (list u8))))
        (export "[constructor]fields" (func (result (own $fields))))))
      (import "demo:a/b" (instance (export "f" (func (result (list u8)))))))""")
    type_ = describe(guest, engine)

    adapted = describe(adapter.adapt(guest, adapter.plan(type_)), engine)

    before = type_.imports["wasi:http/types@0.2.0"]
    assert adapted.imports["wasi:http/types@0.2.0"] == adapter.adapted_interface(before)


def test_lesser_plans_follow_the_best_one() -> None:
    plan = plan_of(BYTES)

    tried = [(bool(item.imports), bool(item.exports)) for item in adapter.candidates(plan)]

    assert tried == [(True, True), (True, False), (False, True)]


def test_where_resources_do_not_fit_plain_interfaces_are_still_adapted() -> None:
    plan = plan_of("""(component
      (import "demo:a/b" (instance (export "f" (func (result (list u8))))))
      (import "demo:a/c" (instance (export "r" (type $r (sub resource)))
        (export "f" (func (param "r" (borrow $r)) (result (list u8)))))))""")

    assert [item.imports for item in adapter.candidates(plan)] == [{"demo:a/b", "demo:a/c"}, {"demo:a/b"}]
