"""Names that become subject tokens."""

from __future__ import annotations

import pytest

from lattice.errors import Invalid
from lattice.names import check_label, check_name, did_you_mean


@pytest.mark.parametrize("name", ["a", "greeter", "a-b-1", "x" * 63])
def test_valid_names_pass(name: str) -> None:
    assert check_name(name, "component") == name


@pytest.mark.parametrize("name", ["", "A", "a b", "a.b", "a>", "*", "-a", "a-", "x" * 64, "ä", "a\n"])
def test_invalid_names_are_refused_with_the_field_and_the_rule(name: str) -> None:
    with pytest.raises(Invalid, match=r"component .* is not a valid name: use 1 to 63"):
        check_name(name, "component")


def test_labels_are_checked() -> None:
    assert check_label("topology.example/zone", "eu west") == ("topology.example/zone", "eu west")
    with pytest.raises(Invalid, match="label key"):
        check_label("a=b", "c")
    with pytest.raises(Invalid, match="too long or not printable"):
        check_label("a", "x\n")


def test_the_nearest_name_is_suggested_and_nothing_else() -> None:
    assert did_you_mean("gret", ["greet", "store"]) == "; did you mean `greet`?"
    assert did_you_mean("zzz", ["greet", "store"]) == ""
