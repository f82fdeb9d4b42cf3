"""Several core modules as one: they do what they did, whatever they import of each other or from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice.errors import Invalid
from node.engine.core_fusion import Inner, Origin, Outer, export_name, fuse
from node.engine.core_module import read_module

ENGINE = wasmtime.Engine()
HUGE = 0xFFFFFFFF


def _fuse(*texts: str, exported: tuple[Inner, ...], outside: tuple[str, ...] = ()) -> bytes:
    """Modules that import from `0`, `1`, ... what those export, and from `outside` by names."""
    modules = [read_module(bytes(wasmtime.wat2wasm(text))) for text in texts]

    def origin(module: str, name: str) -> Origin:
        return Outer(outside.index(name)) if module == "outside" else Inner(int(module), name)

    origins = [
        {(item.module, item.name): origin(item.module, item.name) for item in module.imports}
        for module in modules
    ]
    return fuse(modules, origins, exported)


class _Running:
    """An instance whose exports are called by module and name."""

    def __init__(
        self, code: bytes, imports: list[Any] | None = None, store: wasmtime.Store | None = None
    ) -> None:
        self.store = store or wasmtime.Store(ENGINE)
        self._instance = wasmtime.Instance(self.store, wasmtime.Module(ENGINE, code), imports or [])

    def __call__(self, module: int, name: str, *args: int) -> Any:
        function = self._instance.exports(self.store)[export_name(Inner(module, name))]
        assert isinstance(function, wasmtime.Func)
        return function(self.store, *args)


def test_functions_memories_tables_and_globals_of_each_other_are_shared() -> None:
    code = _fuse(
        """(module (memory (export "m") 1) (table (export "t") 2 funcref)
          (global (export "g") (mut i32) (i32.const 5))
          (func (export "double") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2)))
          (data (i32.const 8) "\\2a"))""",
        """(module (import "0" "m" (memory 1)) (import "0" "t" (table 2 funcref))
          (import "0" "g" (global $g (mut i32)))
          (import "0" "double" (func $double (param i32) (result i32)))
          (type $unary (func (param i32) (result i32)))
          (func $next (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
          (elem (i32.const 1) $next)
          (func (export "run") (result i32)
            (global.set $g (i32.add (global.get $g) (i32.const 1)))
            (call_indirect (type $unary) (call $double (i32.add (global.get $g) (i32.load8_u (i32.const 8))))
              (i32.const 1))))""",
        exported=(Inner(1, "run"),),
    )

    running = _Running(code)

    assert [running(1, "run"), running(1, "run")] == [97, 99]


def test_each_keeps_its_own_memory_and_its_data() -> None:
    small = """(module (memory 1) (data (i32.const 0) "a")
      (func (export "get") (result i32) (i32.load8_u (i32.const 0))))"""
    large = """(module (memory 1) (data (i32.const 0) "b") (data $more "cd")
      (func (export "get") (result i32) (memory.init $more (i32.const 1) (i32.const 1) (i32.const 1))
        (i32.load16_u (i32.const 0))) (func) (func))"""
    running = _Running(_fuse(small, large, exported=(Inner(0, "get"), Inner(1, "get"))))

    assert (running(0, "get"), running(1, "get")) == (ord("a"), ord("b") | ord("d") << 8)


def test_what_comes_from_outside_is_imported_once() -> None:
    text = """(module (import "outside" "{0}" (func $f (param i32) (result i32)))
      (import "outside" "seed" (global $seed i32)) (global $mine i32 (global.get $seed))
      (func (export "run") (result i32) (call $f (global.get $mine))))"""
    code = _fuse(
        text.format("next"), text.format("next"), exported=(Inner(1, "run"),), outside=("next", "seed")
    )
    store = wasmtime.Store(ENGINE)
    i32 = wasmtime.ValType.i32()
    next_ = wasmtime.Func(store, wasmtime.FuncType([i32], [i32]), lambda value: value + 1)
    seed = wasmtime.Global(store, wasmtime.GlobalType(i32, False), wasmtime.Val.i32(41))

    running = _Running(code, [next_, seed], store)

    assert running(1, "run") == 42


def test_a_constant_of_another_module_is_written_out() -> None:
    code = _fuse(
        '(module (global (export "place") i32 (i32.const 24)))',
        '(module (import "0" "place" (global i32)) (export "again" (global 0)))',
        """(module (import "1" "again" (global $place i32)) (memory 1) (data (global.get $place) "x")
          (global $copy i32 (global.get $place))
          (func (export "run") (result i32) (i32.load8_u (global.get $copy))))""",
        exported=(Inner(2, "run"),),
    )

    assert _Running(code)(2, "run") == ord("x")


def test_starts_run_in_their_order() -> None:
    code = _fuse(
        """(module (global $g (export "g") (mut i32) (i32.const 1))
          (func $start (global.set $g (i32.const 2))) (start $start))""",
        """(module (import "0" "g" (global $g (mut i32)))
          (func $start (global.set $g (i32.mul (global.get $g) (i32.const 10)))) (start $start)
          (func (export "run") (result i32) (global.get $g)))""",
        exported=(Inner(1, "run"),),
    )

    assert _Running(code)(1, "run") == 20


def test_names_of_functions_stay_for_traces() -> None:
    code = _fuse(
        '(module (func $first (export "f")))',
        '(module (import "0" "f" (func $f)) (func $it-breaks (export "run") (call $f) unreachable))',
        exported=(Inner(1, "run"),),
    )

    with pytest.raises(wasmtime.Trap, match="it-breaks"):
        _Running(code)(1, "run")


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("(module)", '(module (import "0" "f" (func)))', "not there"),
        ('(module (memory (export "f") 1))', '(module (import "0" "f" (func)))', "another sort"),
        (
            '(module (global (export "g") (mut i32) (i32.const 1)))',
            '(module (import "0" "g" (global (mut i32))) (memory 1) (data (global.get 0) ""))',
            "variable",
        ),
        (
            '(module (memory (export "m") 1) (func $start) (start $start))',
            '(module (import "0" "m" (memory 1)) (data (i32.const 0) "late"))',
            "starts before",
        ),
        (
            '(module (table (export "t") 1 funcref) (func $start) (start $start))',
            '(module (import "0" "t" (table 1 funcref)) (elem (i32.const 0) $f) (func $f))',
            "starts before",
        ),
    ],
)
def test_what_does_not_fit_is_refused(first: str, second: str, reason: str) -> None:
    with pytest.raises((Invalid, wasmtime.WasmtimeError), match=reason):
        _fuse(first, second, exported=())


# Memories


def _growing(limits: str) -> str:
    return f"""(module (memory (export "m") {limits})
      (func (export "size") (result i32) (memory.size))
      (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
      (func (export "touch") (param i32)
        (i32.store (i32.add (i32.shl (memory.size) (i32.const 16)) (local.get 0)) (i32.const 1))))"""


GROWTH = (Inner(0, "size"), Inner(0, "grow"), Inner(0, "touch"))


def _alone(text: str) -> Callable[..., Any]:
    """The module as it is, called as a fused one."""
    store = wasmtime.Store(ENGINE)
    exports = wasmtime.Instance(store, wasmtime.Module(ENGINE, bytes(wasmtime.wat2wasm(text))), []).exports(
        store
    )

    def call(module: int, name: str, *args: int) -> Any:
        function = exports[name]
        assert isinstance(function, wasmtime.Func)
        return function(store, *args)

    return call


@settings(max_examples=60)
@given(
    limits=st.sampled_from(["17", "64", "17 18", "17 20", "17 40", "4 4", "1", "0"]),
    steps=st.lists(
        st.one_of(st.integers(0, 12), st.sampled_from([HUGE, 65536, 65519, 0x80000000])), max_size=8
    ),
)
def test_a_memory_answers_and_ends_as_before(limits: str, steps: list[int]) -> None:
    text = _growing(limits)
    fused, alone = _Running(_fuse(text, exported=GROWTH)), _alone(text)

    for step in steps:
        signed = step - (1 << 32) if step > 0x7FFFFFFF else step
        assert fused(0, "grow", signed) == alone(0, "grow", signed)
        assert fused(0, "size") == alone(0, "size")
        if alone(0, "size"):
            fused(0, "touch", -4)
        with pytest.raises(wasmtime.Trap):
            fused(0, "touch", -3)


def test_a_memory_that_another_module_grows_keeps_one_size() -> None:
    code = _fuse(
        _growing("17"),
        """(module (import "0" "m" (memory 0))
          (func (export "grow") (result i32) (drop (memory.grow (i32.const 3))) (memory.size)))""",
        exported=(*GROWTH, Inner(1, "grow")),
    )

    running = _Running(code)

    assert (running(1, "grow"), running(0, "grow", 2), running(0, "size")) == (20, 20, 22)
