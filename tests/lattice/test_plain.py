from __future__ import annotations

import dataclasses

import pytest

from lattice.caller import CallRequest, make_call_request
from lattice.plain import copier, maker, plain


@plain
class Parent:
    size: int
    name: str = "none"


@plain
class Child(Parent):
    place: tuple[int, ...] = ()


def test_a_maker_makes_what_the_constructor_makes() -> None:
    fields = {"component": "a", "interface": "b", "function": "c", "deadline": 1.0, "call_id": "d", "hops": 3}

    made = make_call_request(**fields)  # type: ignore[arg-type]  # a map of all types

    assert type(made) is CallRequest
    assert dataclasses.asdict(made) == dataclasses.asdict(CallRequest(**fields))  # type: ignore[arg-type]


def test_what_is_left_out_has_its_default() -> None:
    made = maker(Child)(size=1)

    assert (made.size, made.name, made.place) == (1, "none", ())


@pytest.mark.parametrize("fields", [{}, {"size": 1, "colour": 2}])
def test_what_the_constructor_refuses_its_maker_refuses(fields: dict[str, int]) -> None:
    with pytest.raises(TypeError):
        Child(**fields)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        maker(Child)(**fields)  # type: ignore[arg-type]


def test_a_copy_has_all_fields_also_inherited_ones_and_is_another() -> None:
    original = Child(size=1, name="a", place=(1, 2))

    copied = copier(Child)(original)

    assert type(copied) is Child
    assert copied is not original
    assert dataclasses.asdict(copied) == dataclasses.asdict(original)
