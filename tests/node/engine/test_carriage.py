"""Which imports of a handler are the shim's and which the host's."""

from __future__ import annotations

import pytest

from lattice import wit
from lattice.errors import Invalid
from node.engine.carriage import carriage
from node.engine.compiled import Form

ERROR = wit.Handle("wasi:io/error@0.2.0#error", is_owned=False)
STREAM = wit.Handle("wasi:io/streams@0.2.0#input-stream", is_owned=True)
FIELDS = wit.Handle("wasi:http/types@0.2.0#fields", is_owned=True)

IO = wit.Interface("wasi:io/streams@0.2.0", {}, resources=("input-stream",))
HTTP = wit.Interface(
    "wasi:http/types@0.2.0",
    {"http-error-code": wit.Function((("err", ERROR),), wit.Option(wit.U8))},
    resources=("fields",),
)
FILES = wit.Interface(
    "wasi:filesystem/types@0.2.0",
    {
        "open": wit.Function((), STREAM),
        "filesystem-error-code": wit.Function((("err", ERROR),), wit.Option(wit.U8)),
    },
)
STORE = wit.Interface("demo:kv/store", {"get": wit.Function((("key", wit.STRING),), wit.STRING)})


def _type(*interfaces: wit.Interface) -> wit.ComponentType:
    return wit.ComponentType(imports={item.name: item for item in (IO, HTTP, *interfaces)}, exports={})


def _importing(name: str, function: wit.Function) -> wit.ComponentType:
    return _type(wit.Interface(name, {"use": function}))


def test_files_are_the_shims_until_they_are_granted() -> None:
    ungranted, granted = (carriage(_type(FILES), form) for form in (Form.SHIM, Form.GRANTED))

    assert (list(ungranted.hosted), ungranted.is_mixed) == ([], False)
    assert (list(granted.hosted), granted.is_mixed) == ([FILES.name], True)


def test_a_grant_that_is_not_used_changes_nothing() -> None:
    assert carriage(_type(STORE), Form.GRANTED) == carriage(_type(STORE), Form.SHIM)


def test_what_the_host_provides_without_streams_is_not_mixed() -> None:
    found = carriage(_type(STORE), Form.SHIM)

    assert (list(found.hosted), found.is_mixed) == ([STORE.name], False)


def test_functions_that_take_a_stream_or_an_error_are_shared() -> None:
    found = carriage(_type(FILES), Form.GRANTED)
    functions = {**HTTP.functions, **FILES.functions}

    shared = {name for name, item in functions.items() if found.is_shared(FILES.name, name, item)}

    assert shared == {"http-error-code", "filesystem-error-code"}
    assert not found.is_shared(STORE.name, "get", STORE.functions["get"])


@pytest.mark.parametrize(
    "function",
    [
        wit.Function((("stream", STREAM),), None),
        wit.Function((("streams", wit.List(STREAM)),), None),
        wit.Function((), FIELDS),
    ],
    ids=["a stream", "a list of streams", "fields of HTTP"],
)
def test_the_host_can_not_be_given_what_the_shim_made(function: wit.Function) -> None:
    with pytest.raises(Invalid, match=r"either side|which the shim has"):
        carriage(_importing("demo:sink/sink", function), Form.SHIM)


def test_several_versions_of_wasi_io_are_not_mixed() -> None:
    other = wit.Interface("wasi:io/streams@0.2.3", {}, resources=("input-stream",))

    with pytest.raises(Invalid, match="several versions"):
        carriage(_type(other, FILES), Form.GRANTED)
