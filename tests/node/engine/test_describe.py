from __future__ import annotations

import pytest

from lattice import wit
from lattice.errors import Invalid
from node.engine.configuration import EngineSettings, make_engine
from node.engine.describe import describe
from tests.node.engine.guests import BYTES, RESOURCES, USED_TYPES, binary


def describe_text(text: str) -> wit.ComponentType:
    engine = make_engine(EngineSettings(is_pooling=False))
    return describe(binary(text), engine)


def test_functions_have_their_parameters_and_named_types() -> None:
    type_ = describe_text(BYTES)

    chunk = wit.Record((("data", wit.BYTES), ("note", wit.STRING)))
    host = type_.imports["demo:bytes/host"]
    assert host.types == {"chunk": chunk}
    assert host.functions["take"] == wit.Function((("c", chunk), ("n", wit.Primitive("u32"))), chunk)
    assert type_.exports[wit.WORLD].functions["size"].result == wit.Primitive("u32")


def test_a_used_resource_names_the_interface_that_defines_it() -> None:
    imports = describe_text(RESOURCES).imports

    pollable = wit.Handle("wasi:io/poll@0.2.0#pollable", True)
    streams = imports["wasi:io/streams@0.2.0"]
    assert imports["wasi:io/poll@0.2.0"].resources == ("pollable",)
    assert streams.resources == ("input-stream",)
    assert streams.types == {"pollable": pollable}
    assert streams.functions["[method]input-stream.subscribe"] == wit.Function(
        (("self", wit.Handle("wasi:io/streams@0.2.0#input-stream", False)),), pollable
    )


def test_types_that_the_world_imports_are_among_its_own() -> None:
    world = describe_text(USED_TYPES).imports[wit.WORLD]

    mail = wit.Record((("subject", wit.STRING), ("body", wit.BYTES)))
    assert world.types == {"mail": mail, "urgency": wit.Enum(("low", "high"))}
    assert world.functions["send"].result == mail


def test_an_export_may_have_any_name_beside_imported_types() -> None:
    text = USED_TYPES.replace('(export "forward" (func $f', '(export "type-import-0" (func $f')

    type_ = describe_text(text)

    assert set(type_.imports[wit.WORLD].types) == {"mail", "urgency"}
    assert set(type_.exports[wit.WORLD].functions) == {"type-import-0"}
    assert not type_.exports[wit.WORLD].types


def test_the_build_step_that_python_components_export_is_ignored() -> None:
    text = '(component (instance $i) (export "exports" (instance $i)))'

    assert describe_text(text).exports == {}


def _nested(levels: int, constructor: str) -> str:
    types = "".join(f"(type $t{n + 1} {constructor.format(n=n)})" for n in range(levels))
    return f'(component (type $t0 u8) {types} (import "f" (func (param "x" $t{levels}))))'


def test_types_of_very_many_parts_are_refused() -> None:
    with pytest.raises(Invalid, match="more than 100000 parts"):
        describe_text(_nested(17, "(tuple $t{n} $t{n})"))


def test_very_deep_types_are_refused() -> None:
    with pytest.raises(Invalid, match="nested more than 64 deep"):
        describe_text(_nested(90, "(list $t{n})"))
