"""The canonical ABI's arithmetic: how values of WIT types look to core code, in parameters and in memory.

https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

from lattice import wit

MAX_FLAT_PARAMS = 16
MAX_FLAT_RESULTS = 1

_FLAT = {"u64": ["i64"], "s64": ["i64"], "f32": ["f32"], "f64": ["f64"], "string": ["i32", "i32"]}
_SIZES = {"bool": 1, "u8": 1, "s8": 1, "u16": 2, "s16": 2, "u64": 8, "s64": 8, "f64": 8}
_POINTER_PAIR = (8, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSignature:
    """A function as core code has it."""

    params: tuple[str, ...]
    result: str | None
    """The one core result; None when there is none, or when it is written to memory."""
    area_bytes: int
    """Size of the memory to which the result is written; 0 when it isn't."""


def core_signature(function: wit.Function) -> CoreSignature:
    """How core code takes the parameters and gives the result."""
    params = flatten(wit.Tuple(tuple(type_ for _, type_ in function.params)))
    if len(params) > MAX_FLAT_PARAMS:
        params = ["i32"]
    results = [] if function.result is None else flatten(function.result)
    area = 0
    if len(results) > MAX_FLAT_RESULTS and function.result is not None:
        results, area = [], size_and_alignment(function.result)[0]
    return CoreSignature(params=tuple(params), result=results[0] if results else None, area_bytes=area)


def flatten(type_: wit.Type) -> list[str]:
    """The core types that a value becomes when it is passed in parameters."""
    match type_:
        case wit.Primitive(name):
            return list(_FLAT.get(name, ["i32"]))
        case wit.List():
            return ["i32", "i32"]
        case wit.Tuple(items):
            return [core for item in items for core in flatten(item)]
        case wit.Record(fields):
            return [core for _, part in fields for core in flatten(part)]
        case wit.Flags(names):
            return ["i32"] * _words(names)
        case wit.Enum() | wit.Handle():
            return ["i32"]
    return ["i32", *_joined(payloads(type_))]


def size_and_alignment(type_: wit.Type) -> tuple[int, int]:
    """What a value takes in memory, in bytes."""
    match type_:
        case wit.Primitive("string") | wit.List():
            return _POINTER_PAIR
        case wit.Primitive(name):
            size = _SIZES.get(name, 4)
            return size, size
        case wit.Tuple(items):
            return _row(items)
        case wit.Record(fields):
            return _row(part for _, part in fields)
        case wit.Flags(names):
            return _flags(names)
        case wit.Enum(cases):
            size = _discriminant(len(cases))
            return size, size
        case wit.Handle():
            return 4, 4
    return _choice(payloads(type_))


def align(position: int, alignment: int) -> int:
    """The first multiple of `alignment` from `position` on."""
    return -(-position // alignment) * alignment


def payloads(type_: wit.Type) -> list[wit.Type | None]:
    """What each case of an option, a result or a variant carries."""
    match type_:
        case wit.Option(inner):
            return [None, inner]
        case wit.Result(ok, err):
            return [ok, err]
        case wit.Variant(cases):
            return [part for _, part in cases]
    raise TypeError(f"not a variant: {type_!r}")


def discriminant_bytes(type_: wit.Type) -> int:
    """How much of a variant's memory tells which case it is."""
    return _discriminant(len(payloads(type_)))


def payload_offset(type_: wit.Type) -> int:
    """Where in a variant's memory the payload of any case begins."""
    return _payload_offset(payloads(type_))


def _joined(cases: list[wit.Type | None]) -> list[str]:
    columns = zip_longest(*(flatten(payload) for payload in cases if payload is not None))
    return [_join({core for core in column if core is not None}) for column in columns]


def _join(cores: set[str]) -> str:
    if len(cores) == 1:
        return cores.pop()
    return "i32" if cores == {"i32", "f32"} else "i64"


def _row(parts: Iterable[wit.Type]) -> tuple[int, int]:
    position, widest = 0, 1
    for part in parts:
        size, alignment = size_and_alignment(part)
        position = align(position, alignment) + size
        widest = max(widest, alignment)
    return align(position, widest), widest


def _choice(cases: list[wit.Type | None]) -> tuple[int, int]:
    head = _discriminant(len(cases))
    shapes = [size_and_alignment(payload) for payload in cases if payload is not None]
    widest = max([head, *(alignment for _, alignment in shapes)])
    start = _payload_offset(cases)
    return align(start + max((size for size, _ in shapes), default=0), widest), widest


def _payload_offset(cases: list[wit.Type | None]) -> int:
    alignments = [size_and_alignment(payload)[1] for payload in cases if payload is not None]
    return align(_discriminant(len(cases)), max(alignments, default=1))


def _discriminant(cases: int) -> int:
    return 1 if cases <= 1 << 8 else 2 if cases <= 1 << 16 else 4


def _flags(names: tuple[str, ...]) -> tuple[int, int]:
    if len(names) <= 16:
        size = 1 if len(names) <= 8 else 2
        return size, size
    return 4 * _words(names), 4


def _words(names: tuple[str, ...]) -> int:
    return -(-len(names) // 32)
