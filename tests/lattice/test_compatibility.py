"""Compatibility: versions as the wasm linker takes them, links by structure, and suggestions."""

from __future__ import annotations

import pytest
from hypothesis import given

from lattice import wit
from lattice.compatibility import check_link, find_function, is_compatible, match_interface, type_difference
from lattice.errors import Invalid, NotFound
from tests.lattice.wit_values import types

U32 = wit.Primitive("u32")
U64 = wit.Primitive("u64")


def _interface(name: str = "demo:shop/cart@1.0.0", **functions: wit.Function) -> wit.Interface:
    return wit.Interface(name=name, functions=functions)


def _cart(function: str, type_: wit.Function) -> wit.Interface:
    """With one function, whose name is none in Python."""
    return wit.Interface(name="demo:shop/cart@1.0.0", functions={function: type_})


def _function(*types: wit.Type, result: wit.Type | None = None) -> wit.Function:
    return wit.Function(tuple((f"p{number}", type_) for number, type_ in enumerate(types)), result)


@pytest.mark.parametrize(
    ("wanted", "offered", "serves"),
    [
        ("a:b/c@0.2.0", "a:b/c@0.2.3", True),
        ("a:b/c@0.2.3", "a:b/c@0.2.0", True),
        ("a:b/c@0.2.0", "a:b/c@0.3.0", False),
        ("a:b/c@1.0.0", "a:b/c@1.9.2", True),
        ("a:b/c@1.0.0", "a:b/c@2.0.0", False),
        ("a:b/c@0.0.1", "a:b/c@0.0.1", True),
        ("a:b/c@0.0.1", "a:b/c@0.0.2", False),
        ("a:b/c@0.2.0-draft", "a:b/c@0.2.0-draft", True),
        ("a:b/c@0.2.0-draft", "a:b/c@0.2.0", False),
        ("a:b/c@0.2.0", "a:b/c@0.2.1-rc.1", False),
        ("a:b/c@1.0.0+build.1", "a:b/c@1.0.0+build.2", True),
        ("a:b/c@0.2", "a:b/c@0.2.6", True),
        ("a:b/c", "a:b/c", True),
        ("a:b/c", "a:b/c@1.0.0", False),
        ("a:b/c@1.0.0", "a:b/d@1.0.0", False),
        ("a:b/c@nonsense", "a:b/c@other", False),
        ("-", "-", True),
    ],
)
def test_versions_serve_within_their_track(wanted: str, offered: str, serves: bool) -> None:
    assert is_compatible(wanted, offered) == serves


def test_the_same_version_is_preferred_then_the_newest() -> None:
    offered = ["a:b/c@0.2.9", "a:b/c@0.2.10", "a:b/c@0.2.3", "a:b/c@0.3.0"]

    assert match_interface("a:b/c@0.2.3", offered) == "a:b/c@0.2.3"
    assert match_interface("a:b/c@0.2.4", offered) == "a:b/c@0.2.10"
    assert match_interface("a:b/c@1.0.0", offered) is None


@given(types)
def test_a_type_differs_from_itself_in_nothing(type_: wit.Type) -> None:
    assert type_difference(type_, wit.type_from_json(wit.type_to_json(type_))) is None


@given(types, types)
def test_types_that_differ_differ_somewhere(wanted: wit.Type, found: wit.Type) -> None:
    assert (type_difference(wanted, found) is None) == (wanted == found)


def test_an_export_that_has_more_serves() -> None:
    wanted = _interface(add=_function(U32))
    offered = _interface("demo:shop/cart@1.2.0", add=_function(U32), clear=_function())

    assert check_link(wanted, offered) is None


@pytest.mark.parametrize(
    ("wanted", "found", "message"),
    [
        (_function(U32), _function(U64), "parameter `p0`: the import has `u32`, the export `u64`"),
        (_function(U32), _function(U32, U32), "takes (p0, p1), the import passes (p0)"),
        (_function(result=U32), _function(), "result: the import has `u32`, the export `nothing`"),
        (
            _function(wit.List(wit.Record((("x", U32), ("y", U32))))),
            _function(wit.List(wit.Record((("x", U32), ("y", U64))))),
            "parameter `p0`[].y: the import has `u32`, the export `u64`",
        ),
        (
            _function(wit.Record((("x", U32),))),
            _function(wit.Record((("z", U32),))),
            "the import has `record { x: u32 }`, the export `record { z: u32 }`",
        ),
        (
            _function(result=wit.Result(U32, wit.Variant((("a", None), ("b", U32))))),
            _function(result=wit.Result(U32, wit.Variant((("a", None), ("b", None))))),
            "result.err.b: the import has `u32`, the export `nothing`",
        ),
    ],
)
def test_a_link_says_where_the_types_differ(wanted: wit.Function, found: wit.Function, message: str) -> None:
    problem = check_link(_interface(add=wanted), _interface(add=found))

    assert isinstance(problem, Invalid)
    assert problem.message.startswith("function `add` of `demo:shop/cart@1.0.0`: ")
    assert message in problem.message


def test_a_missing_function_suggests_the_nearest() -> None:
    problem = check_link(_cart("add-item", _function()), _cart("add-items", _function()))

    assert problem is not None and "no function `add-item`; did you mean `add-items`?" in problem.message


def test_another_track_does_not_serve() -> None:
    problem = check_link(_interface(), _interface("demo:shop/cart@2.0.0"))

    assert problem is not None and "does not serve" in problem.message


@pytest.mark.parametrize(
    "interface",
    [
        _interface(open=_function(result=wit.Handle("demo:shop/cart@1.0.0#cart", True))),
        _interface(take=_function(wit.List(wit.Option(wit.Handle("x#y", False))))),
        _cart("[static]cart.count", _function(result=U32)),
        wit.Interface(name="demo:shop/cart@1.0.0", functions={}, resources=("cart",)),
    ],
)
def test_custom_resources_are_refused_with_a_way_out(interface: wit.Interface) -> None:
    problem = check_link(interface, interface)

    assert problem is not None
    assert "has resources" in problem.message and "ids" in problem.message


SHOP = wit.ComponentType(
    imports={},
    exports={
        "demo:shop/cart@1.2.0": _interface(
            "demo:shop/cart@1.2.0", add=_function(U32), total=_function(result=U64)
        ),
        "demo:shop/admin@1.0.0": _interface("demo:shop/admin@1.0.0", total=_function(result=U32)),
        "-": _interface("-", run=_function()),
    },
)


def test_a_function_is_found_within_the_track_or_by_its_name_alone() -> None:
    assert find_function("shop", SHOP, "demo:shop/cart@1.0.0", "add") == (
        "demo:shop/cart@1.2.0",
        _function(U32),
    )
    assert find_function("shop", SHOP, None, "add")[0] == "demo:shop/cart@1.2.0"
    assert find_function("shop", SHOP, None, "run")[0] == "-"


@pytest.mark.parametrize(
    ("interface", "function", "message"),
    [
        ("demo:shop/cart@1.2.0", "ad", "has no function `ad`; did you mean `add`?"),
        ("demo:shop/cart@1.2.0", "xyz", "has no function `xyz`; there is `add`, `total`"),
        (
            "demo:shop/card@1.2.0",
            "add",
            "no interface `demo:shop/card@1.2.0`; did you mean `demo:shop/cart@1.2.0`?",
        ),
        ("-", "rum", "component `shop` has no function `rum`; did you mean `run`?"),
        (None, "totall", "exports no function `totall`; did you mean `total`?"),
    ],
)
def test_what_is_not_found_suggests_the_nearest(interface: str | None, function: str, message: str) -> None:
    with pytest.raises(NotFound) as caught:
        find_function("shop", SHOP, interface, function)

    assert message in caught.value.message


def test_a_function_of_several_interfaces_needs_one_named() -> None:
    with pytest.raises(Invalid, match=r"say which of `demo:shop/cart@1.2.0`, `demo:shop/admin@1.0.0`"):
        find_function("shop", SHOP, None, "total")


def test_a_component_without_exports_says_so() -> None:
    with pytest.raises(NotFound, match="it exports nothing"):
        find_function("empty", wit.ComponentType(imports={}, exports={}), None, "run")
