"""Descriptions of WebAssembly interface types (WIT): what a component imports and exports.

A description is a plain immutable value. It is made once, when a component is prepared, stored beside the
artifact's digest as JSON, and read by everything that converts, checks or prints values. The type names are
those of the component model: https://component-model.bytecodealliance.org/design/wit.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from lattice.errors import Invalid

PRIMITIVES = (
    "bool", "u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64", "f32", "f64", "char", "string",
)  # fmt: skip

INTEGER_RANGES: Mapping[str, tuple[int, int]] = {
    **{f"u{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    **{f"s{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
}

WORLD = "-"
"""Stands for the interface name of functions exported by the world itself."""


@dataclass(frozen=True, slots=True)
class Primitive:
    """One of `PRIMITIVES`."""

    name: str


@dataclass(frozen=True, slots=True)
class List:
    element: Type


@dataclass(frozen=True, slots=True)
class Option:
    inner: Type


@dataclass(frozen=True, slots=True)
class Result:
    ok: Type | None
    err: Type | None


@dataclass(frozen=True, slots=True)
class Tuple:
    items: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class Record:
    fields: tuple[tuple[str, Type], ...]


@dataclass(frozen=True, slots=True)
class Variant:
    cases: tuple[tuple[str, Type | None], ...]


@dataclass(frozen=True, slots=True)
class Enum:
    cases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flags:
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Handle:
    """A resource handle; `resource` is `interface#name` of the interface that defines it, as far as known."""

    resource: str
    is_owned: bool


Type: TypeAlias = Primitive | List | Option | Result | Tuple | Record | Variant | Enum | Flags | Handle


@dataclass(frozen=True, slots=True)
class Function:
    params: tuple[tuple[str, Type], ...]
    result: Type | None


@dataclass(frozen=True, slots=True)
class Interface:
    """A named set of functions, e.g. `wasi:keyvalue/store@0.2.0-draft`; name `-` is the world itself."""

    name: str
    functions: Mapping[str, Function]
    types: Mapping[str, Type] = field(default_factory=dict)
    """Types that the interface names: they make signatures readable, equality of types ignores names."""
    resources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ComponentType:
    """Everything that a component imports and exports."""

    imports: Mapping[str, Interface]
    exports: Mapping[str, Interface]


U8 = Primitive("u8")
BYTES = List(U8)
STRING = Primitive("string")


def can_be_nil(type_: Type) -> bool:
    """Whether a value of this type may be written as nil, so that an option around it needs a wrapper."""
    return isinstance(type_, Option)


def contains_handle(type_: Type | None) -> bool:
    """Whether a resource handle occurs anywhere in the type."""
    return any(isinstance(part, Handle) for part in walk(type_))


def contains_bytes(type_: Type | None) -> bool:
    """Whether a `list<u8>` occurs anywhere in the type."""
    return any(part == BYTES for part in walk(type_))


def carries_bytes(function: Function) -> bool:
    """Whether a `list<u8>` occurs in the parameters or the result."""
    return any(map(contains_bytes, function_types(function)))


def function_types(function: Function) -> tuple[Type, ...]:
    """All parameter types, then the result if there is one."""
    result = () if function.result is None else (function.result,)
    return tuple(type_ for _, type_ in function.params) + result


def walk(type_: Type | None) -> list[Type]:
    """The type and all types inside it, outermost first."""
    if type_ is None:
        return []
    found = [type_]
    for child in children(type_):
        found += walk(child)
    return found


def children(type_: Type) -> tuple[Type, ...]:
    """The types directly inside this one."""
    match type_:
        case List(element):
            return (element,)
        case Option(inner):
            return (inner,)
        case Result(ok, err):
            return tuple(part for part in (ok, err) if part is not None)
        case Tuple(items):
            return items
        case Record(fields):
            return tuple(part for _, part in fields)
        case Variant(cases):
            return tuple(part for _, part in cases if part is not None)
    return ()


# Text: the WIT syntax, for people


def type_text(type_: Type, names: Mapping[Type, str] | None = None) -> str:
    """The type in WIT syntax; `names` gives names to records, variants, enums and flags that have one."""
    if names and type_ in names:
        return names[type_]
    match type_:
        case Primitive(name):
            return name
        case List(element):
            return f"list<{type_text(element, names)}>"
        case Option(inner):
            return f"option<{type_text(inner, names)}>"
        case Result(None, None):
            return "result"
        case Result(ok, None) if ok is not None:
            return f"result<{type_text(ok, names)}>"
        case Result(ok, err):
            assert err is not None
            return f"result<{type_text(ok, names) if ok else '_'}, {type_text(err, names)}>"
        case Tuple(items):
            return f"tuple<{', '.join(type_text(item, names) for item in items)}>"
        case Record(fields):
            return f"record {{ {', '.join(f'{name}: {type_text(part, names)}' for name, part in fields)} }}"
        case Variant(cases):
            shown = (name if part is None else f"{name}({type_text(part, names)})" for name, part in cases)
            return f"variant {{ {', '.join(shown)} }}"
        case Enum(cases):
            return f"enum {{ {', '.join(cases)} }}"
        case Flags(flags):
            return f"flags {{ {', '.join(flags)} }}"
        case Handle(resource, is_owned):
            name = resource.rsplit("#", 1)[-1]
            return name if is_owned else f"borrow<{name}>"


def function_text(name: str, function: Function, names: Mapping[Type, str] | None = None) -> str:
    """The function in WIT syntax, e.g. `get: func(key: string) -> option<string>`."""
    params = ", ".join(f"{param}: {type_text(type_, names)}" for param, type_ in function.params)
    result = "" if function.result is None else f" -> {type_text(function.result, names)}"
    return f"{name}: func({params}){result}"


# JSON: how a description is stored beside a digest and sent between processes


def type_to_json(type_: Type) -> Any:
    """A primitive is its name, anything else a map with one key."""
    match type_:
        case Primitive(name):
            return name
        case List(element):
            return {"list": type_to_json(element)}
        case Option(inner):
            return {"option": type_to_json(inner)}
        case Result(ok, err):
            return {"result": [_optional_to_json(ok), _optional_to_json(err)]}
        case Tuple(items):
            return {"tuple": [type_to_json(item) for item in items]}
        case Record(fields):
            return {"record": [[name, type_to_json(part)] for name, part in fields]}
        case Variant(cases):
            return {"variant": [[name, _optional_to_json(part)] for name, part in cases]}
        case Enum(cases):
            return {"enum": list(cases)}
        case Flags(names):
            return {"flags": list(names)}
        case Handle(resource, is_owned):
            return {"own" if is_owned else "borrow": resource}


def _optional_to_json(type_: Type | None) -> Any:
    return None if type_ is None else type_to_json(type_)


def type_from_json(data: Any) -> Type:
    """The inverse of `type_to_json`; raises `Invalid` on anything else."""
    try:
        return _type_from_json(data)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise Invalid(f"not a description of a WIT type: {data!r}") from error


def _type_from_json(data: Any) -> Type:
    if isinstance(data, str):
        if data not in PRIMITIVES:
            raise ValueError(data)
        return Primitive(data)
    ((kind, body),) = data.items()
    match kind:
        case "list":
            return List(_type_from_json(body))
        case "option":
            return Option(_type_from_json(body))
        case "result":
            ok, err = body
            return Result(_optional_from_json(ok), _optional_from_json(err))
        case "tuple":
            return Tuple(tuple(_type_from_json(item) for item in body))
        case "record":
            return Record(tuple((str(name), _type_from_json(part)) for name, part in body))
        case "variant":
            return Variant(tuple((str(name), _optional_from_json(part)) for name, part in body))
        case "enum":
            return Enum(tuple(str(name) for name in body))
        case "flags":
            return Flags(tuple(str(name) for name in body))
        case "own" | "borrow":
            return Handle(str(body), kind == "own")
    raise ValueError(kind)


def _optional_from_json(data: Any) -> Type | None:
    return None if data is None else _type_from_json(data)


def function_to_json(function: Function) -> dict[str, Any]:
    return {
        "params": [[name, type_to_json(type_)] for name, type_ in function.params],
        "result": _optional_to_json(function.result),
    }


def function_from_json(data: Any) -> Function:
    """The inverse of `function_to_json`; raises `Invalid` on anything else."""
    try:
        params = tuple((str(name), type_from_json(type_)) for name, type_ in data["params"])
        result = data.get("result")
        return Function(params, None if result is None else type_from_json(result))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise Invalid(f"not a description of a WIT function: {data!r}") from error


def interface_to_json(interface: Interface) -> dict[str, Any]:
    return {
        "name": interface.name,
        "functions": {name: function_to_json(function) for name, function in interface.functions.items()},
        "types": {name: type_to_json(type_) for name, type_ in interface.types.items()},
        "resources": list(interface.resources),
    }


def interface_from_json(data: Any) -> Interface:
    """The inverse of `interface_to_json`; raises `Invalid` on anything else."""
    try:
        return Interface(
            name=str(data["name"]),
            functions={str(name): function_from_json(body) for name, body in data["functions"].items()},
            types={str(name): type_from_json(body) for name, body in data.get("types", {}).items()},
            resources=tuple(str(name) for name in data.get("resources", ())),
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise Invalid("not a description of a WIT interface") from error


def component_type_to_json(component: ComponentType) -> dict[str, Any]:
    return {
        "imports": [interface_to_json(interface) for interface in component.imports.values()],
        "exports": [interface_to_json(interface) for interface in component.exports.values()],
    }


def component_type_from_json(data: Any) -> ComponentType:
    """The inverse of `component_type_to_json`; raises `Invalid` on anything else."""
    try:
        imports = [interface_from_json(item) for item in data["imports"]]
        exports = [interface_from_json(item) for item in data["exports"]]
    except (TypeError, KeyError, AttributeError) as error:
        raise Invalid("not a description of a component") from error
    return ComponentType(
        imports={interface.name: interface for interface in imports},
        exports={interface.name: interface for interface in exports},
    )
