"""From wasmtime's view of a component's type to a plain `lattice.wit.ComponentType`.

Runs in the compile worker only. An interface's `resources` are those that it defines; one that it merely uses
appears in its `types` as an owned handle that names the defining interface.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wasmtime import Engine
from wasmtime import component as wasm

from lattice import wit
from lattice.errors import Invalid
from node.engine.type_imports import export_imported_types

MAX_TYPE_NODES = 100_000
"""Types are written out as trees; a few hundred bytes of wasm can describe one of millions of nodes."""
MAX_TYPE_DEPTH = 64

IGNORED_EXPORTS = frozenset({"exports"})
"""componentize-py exports an instance of this name for its own build step."""

_PRIMITIVES: Mapping[type, str] = {
    wasm.Bool: "bool",
    wasm.U8: "u8",
    wasm.S8: "s8",
    wasm.U16: "u16",
    wasm.S16: "s16",
    wasm.U32: "u32",
    wasm.S32: "s32",
    wasm.U64: "u64",
    wasm.S64: "s64",
    wasm.F32: "f32",
    wasm.F64: "f64",
    wasm.Char: "char",
    wasm.String: "string",
}


def describe(data: bytes, engine: Engine) -> wit.ComponentType:
    """All imports and exports of a component with full signatures.

    It is compiled for that: pass a `skeleton`. Raises `Invalid` on types that can't cross a lattice, and what
    the compiler raises.
    """
    data, imported_types = export_imported_types(data)
    type_ = wasm.Component(engine, data).type
    exports = _items(type_.exports, engine)
    types = {name: exports.pop(exported) for exported, name in imported_types.items()}
    values = {name: item for name, item in types.items() if isinstance(item, wasm.ValType)}
    describer = _Describer(engine)
    imports = describer.interfaces({**_items(type_.imports, engine), **values})
    kept = {name: item for name, item in exports.items() if name not in IGNORED_EXPORTS}
    return wit.ComponentType(imports=imports, exports=describer.interfaces(kept))


def _items(list_them: Callable[[Engine], Mapping[str, Any]], engine: Engine) -> dict[str, Any]:
    try:
        return {name: extern.ty for name, extern in list_them(engine).items()}
    except TypeError as error:
        raise Invalid(f"the component has a type that this version does not know: {error}") from error


class _Describer:
    """Turns items into interfaces, one after the other, in the order of the component."""

    # The mutable state is the resources seen so far, in order of definition, and the count of type nodes.

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._resources: list[tuple[wasm.ResourceType, str]] = []
        self._nodes = 0

    def interfaces(self, items: Mapping[str, Any]) -> dict[str, wit.Interface]:
        """The interfaces in order; what the world itself has is gathered under `wit.WORLD`."""
        found: dict[str, wit.Interface] = {}
        of_world: dict[str, Any] = {}
        for name, item in items.items():
            if isinstance(item, wasm.ComponentInstanceType):
                found[name] = self._interface(name, _items(item.exports, self._engine))
            else:
                of_world[name] = item
                if isinstance(item, wasm.ResourceType):
                    self._define(wit.WORLD, name, item)
        if of_world:
            found[wit.WORLD] = self._interface(wit.WORLD, of_world)
        return found

    def _interface(self, interface: str, items: Mapping[str, Any]) -> wit.Interface:
        resources: list[str] = []
        types: dict[str, wit.Type] = {}
        functions: dict[str, wit.Function] = {}
        for name, item in items.items():
            if isinstance(item, wasm.ResourceType):
                resource = self._define(interface, name, item)
                if resource == f"{interface}#{name}":
                    resources.append(name)
                else:
                    types[name] = wit.Handle(resource, True)
            elif isinstance(item, wasm.FuncType):
                functions[name] = self._function(f"{interface}#{name}", item)
            elif isinstance(item, wasm.ValType):
                types[name] = self._type(f"{interface}#{name}", item, MAX_TYPE_DEPTH)
            else:
                raise Invalid(
                    f"`{interface}` has `{name}`, which is neither a function nor a type; use WIT's own"
                )
        return wit.Interface(name=interface, functions=functions, types=types, resources=tuple(resources))

    def _define(self, interface: str, name: str, item: wasm.ResourceType) -> str:
        known = self._resource(item)
        if known is None:
            known = f"{interface}#{name}"
            self._resources.append((item, known))
        return known

    def _resource(self, item: wasm.ResourceType) -> str | None:
        return next((name for known, name in self._resources if known == item), None)

    def _function(self, where: str, item: wasm.FuncType) -> wit.Function:
        params = tuple((name, self._type(where, type_, MAX_TYPE_DEPTH)) for name, type_ in item.params)
        return wit.Function(params, self._optional(where, item.result, MAX_TYPE_DEPTH))

    def _optional(self, where: str, type_: wasm.ValType | None, depth: int) -> wit.Type | None:
        return None if type_ is None else self._type(where, type_, depth)

    def _type(self, where: str, type_: wasm.ValType, depth: int) -> wit.Type:
        self._count(where, depth)
        primitive = _PRIMITIVES.get(type(type_))
        if primitive is not None:
            return wit.Primitive(primitive)
        match type_:
            case wasm.ListType():
                return wit.List(self._type(where, type_.element, depth - 1))
            case wasm.OptionType():
                return wit.Option(self._type(where, type_.payload, depth - 1))
            case wasm.ResultType():
                ok = self._optional(where, type_.ok, depth - 1)
                return wit.Result(ok, self._optional(where, type_.err, depth - 1))
            case wasm.TupleType():
                return wit.Tuple(tuple(self._type(where, item, depth - 1) for item in type_.elements))
            case wasm.RecordType():
                fields = type_.fields
                return wit.Record(tuple((name, self._type(where, part, depth - 1)) for name, part in fields))
            case wasm.VariantType():
                cases = type_.cases
                return wit.Variant(
                    tuple((name, self._optional(where, part, depth - 1)) for name, part in cases)
                )
            case wasm.EnumType():
                return wit.Enum(tuple(type_.names))
            case wasm.FlagsType():
                return wit.Flags(tuple(type_.names))
            case wasm.OwnType() | wasm.BorrowType():
                resource = self._resource(type_.ty) or f"{where.rsplit('#', 1)[0]}#?"
                return wit.Handle(resource, isinstance(type_, wasm.OwnType))
        raise Invalid(f"`{where}` uses {_unsupported(type_)}, which is not supported: build for WASI 0.2")

    def _count(self, where: str, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_TYPE_NODES:
            raise Invalid(f"the component's types have more than {MAX_TYPE_NODES} parts (at `{where}`)")
        if depth == 0:
            raise Invalid(f"a type of `{where}` is nested more than {MAX_TYPE_DEPTH} deep")


def _unsupported(type_: wasm.ValType) -> str:
    """`a stream`, `a future`, ... from the class of a type that has no counterpart."""
    return f"a {type(type_).__name__.removesuffix('Type').lower()}"
