"""Which function is meant."""

from __future__ import annotations

import pytest

from ctl.functions import find_function, split_words
from ctl.interfaces import component_text
from lattice import wit
from lattice.errors import Invalid, NotFound

NOTHING = wit.Function((), None)


def component(**exports: tuple[str, ...]) -> wit.ComponentType:
    """A component with these functions; `a__b` stands for interface `demo:a/b@1.0.0`, `world` for none."""
    names = {key: "-" if key == "world" else f"demo:{key.replace('__', '/')}@1.0.0" for key in exports}
    return wit.ComponentType(
        imports={},
        exports={
            names[key]: wit.Interface(names[key], dict.fromkeys(functions, NOTHING))
            for key, functions in exports.items()
        },
    )


SHOP = component(shop__orders=("place", "cancel"), shop__stock=("count", "cancel"), world=("run",))


@pytest.mark.parametrize(
    ("function", "interface", "found"),
    [
        ("place", None, "demo:shop/orders@1.0.0"),
        ("cancel", "orders", "demo:shop/orders@1.0.0"),
        ("cancel", "demo:shop/stock", "demo:shop/stock@1.0.0"),
        ("cancel", "demo:shop/stock@1.0.0", "demo:shop/stock@1.0.0"),
        ("run", None, "-"),
        ("run", "-", "-"),
    ],
)
def test_a_function_is_found_by_as_much_of_its_interface_as_is_needed(
    function: str, interface: str | None, found: str
) -> None:
    assert find_function("shop", SHOP, function, interface).interface == found


def test_a_function_of_several_interfaces_needs_one_of_them() -> None:
    with pytest.raises(Invalid, match=r"say which one: demo:shop/orders@1\.0\.0, demo:shop/stock@1\.0\.0"):
        find_function("shop", SHOP, "cancel")


def test_interfaces_that_end_alike_need_more() -> None:
    alike = component(one__api=("run",), two__api=("run",))

    with pytest.raises(Invalid, match="`api` means several interfaces"):
        find_function("both", alike, "run", "api")


@pytest.mark.parametrize(
    ("function", "interface", "says"),
    [
        ("plaice", None, "did you mean `place`?"),
        ("xyz", None, "it exports `place`, `cancel`, `count`, `cancel`, `run`"),
        ("place", "demo:shop/order", "did you mean `demo:shop/orders@1.0.0`?"),
        ("count", "orders", "exports no function `count`"),
    ],
)
def test_what_is_not_there_is_suggested(function: str, interface: str | None, says: str) -> None:
    with pytest.raises(NotFound) as missing:
        find_function("shop", SHOP, function, interface)

    assert says in missing.value.message


def test_functions_of_resources_are_not_callable() -> None:
    resource = component(shop__bag=("[method]bag.add", "[constructor]bag"))

    with pytest.raises(NotFound, match="exports nothing that can be called"):
        find_function("shop", resource, "add")


@pytest.mark.parametrize(
    ("words", "split"),
    [
        (["run"], (None, "run", [])),
        (["place", "tea", "2"], (None, "place", ["tea", "2"])),
        (["orders", "place", "tea"], ("orders", "place", ["tea"])),
        (["demo:shop/orders", "place"], ("demo:shop/orders", "place", [])),
        (["-", "run"], ("-", "run", [])),
        (["plaice", "tea"], (None, "plaice", ["tea"])),
    ],
)
def test_the_first_word_is_an_interface_only_if_it_names_one(
    words: list[str], split: tuple[str | None, str, list[str]]
) -> None:
    assert split_words(SHOP, words) == split


def test_interfaces_are_shown_as_in_wit() -> None:
    order = wit.Record((("item", wit.STRING), ("count", wit.Primitive("u32"))))
    orders = wit.Interface(
        "demo:shop/orders",
        {"place": wit.Function((("order", order),), wit.Result(None, wit.STRING))},
        {"order": order, "id": wit.STRING},
    )
    world = wit.Interface("-", {"run": NOTHING})
    type_ = wit.ComponentType(
        imports={"wasi:cli/run@0.2.0": wit.Interface("wasi:cli/run@0.2.0", {})},
        exports={"demo:shop/orders": orders, "-": world},
    )

    assert component_text(type_).splitlines() == [
        "import wasi:cli/run@0.2.0 {",
        "}",
        "export run: func()",
        "export demo:shop/orders {",
        "  record order { item: string, count: u32 }",
        "  type id = string;",
        "  place: func(order: order) -> result<_, string>;",
        "}",
    ]
