"""A component that hands what it is given on to the host, handles of the host's own resource among it.

Its export `run` lends all handles of its argument to the host (`look`), then gives them away (`pass`), and
returns what it gets back. Core code sees the same numbers each time, whatever the types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from lattice import wit
from node.engine.canonical import core_signature
from node.engine.component_text import Scope, function_type
from node.engine.compose import Composition
from node.engine.naming import borrowed_types
from tests.node.engine.echo import CORE

HOST = "demo:handles/host"
API = "demo:handles/api"
OWN = wit.Handle(f"{HOST}#thing", True)

_MEMORY = CORE[: CORE.index("(core func $host ")]
_OPTIONS = '(memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))'


def handing_on(type_: wit.Type) -> bytes:
    """The component for an argument and result of this type."""
    takes, lends = (wit.Function((("a", item),), None) for item in (type_, lent(type_)))
    passes = replace(takes, result=type_)
    host = _interface(HOST, {"look": lends, "pass": passes}, resources=("thing",))
    outer = Composition()
    imported = outer.import_interface(host)[HOST].symbol
    outer.write(_MEMORY)
    outer.write(f'(core func $look (canon lower (func {imported} "look") {_OPTIONS}))')
    outer.write(f'(core func $pass (canon lower (func {imported} "pass") {_OPTIONS}))')
    outer.write(_main(passes))
    scope = Scope("u", resources=outer.scope.resources)
    outer.write(f'(func $run {function_type(passes, scope)} (canon lift (core func $main "run") {_OPTIONS}))')
    api = _interface(API, {"run": passes}, uses={"thing": OWN})
    instance = outer.named_instance(api, {"run": "$run"})
    outer.write(f'(export "{API}" (instance {instance}))')
    return outer.encode()


def lent(type_: wit.Type) -> wit.Type:
    """The type with a borrow for every owned handle."""
    match type_:
        case wit.Handle(resource):
            return wit.Handle(resource, False)
        case wit.List(element):
            return wit.List(lent(element))
        case wit.Option(inner):
            return wit.Option(lent(inner))
        case wit.Result(ok, err):
            return wit.Result(ok and lent(ok), err and lent(err))
        case wit.Tuple(items):
            return wit.Tuple(tuple(map(lent, items)))
        case wit.Record(fields):
            return wit.Record(tuple((name, lent(part)) for name, part in fields))
        case wit.Variant(cases):
            return wit.Variant(tuple((name, part and lent(part)) for name, part in cases))
    return type_


def _interface(
    name: str,
    functions: dict[str, wit.Function],
    resources: tuple[str, ...] = (),
    uses: Mapping[str, wit.Type] = MappingProxyType({}),
) -> wit.Interface:
    interface = wit.Interface(name=name, functions=functions, resources=resources)
    named = {f"t{index}": type_ for index, type_ in enumerate(borrowed_types(interface))}
    return replace(interface, types={**uses, **named})


def _main(function: wit.Function) -> str:
    signature = core_signature(function)
    params = " ".join(signature.params)
    place = "i32.const 16" if signature.area_bytes else ""
    result = "(result i32)" if place else f"(result {signature.result})"
    returned = "" if place else result
    given = " ".join(f"local.get {index}" for index in range(len(signature.params)))
    return f"""(core module $main
    (import "host" "look" (func $look (param {params})))
    (import "host" "pass" (func $pass (param {params} {"i32" if place else ""}) {returned}))
    (func (export "run") (param {params}) {result}
      {given} call $look {given} {place} call $pass {place}))
  (core instance $main (instantiate $main (with "host" (instance
    (export "look" (func $look)) (export "pass" (func $pass))))))"""
