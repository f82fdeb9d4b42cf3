"""Settings come from defaults, file, environment and flags, in this order."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import pytest

from lattice.errors import Invalid
from lattice.settings import boolean, declarations, key_value, load, one_of, setting, text, whole_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    colour: str = setting("red", "A colour.", one_of("red", "green", "blue"), metavar="COLOUR")
    count: int = setting(1, "A number.", whole_number(0, 9), metavar="N")
    is_loud: bool = setting(False, "Whether to shout.", boolean, metavar="BOOL")
    label: tuple[tuple[str, str], ...] = setting(
        (), "Labels.", key_value, metavar="K=V", repeated=True, named_by=itemgetter(0)
    )
    word: tuple[str, ...] = setting((), "Words.", text, metavar="WORD", repeated=True)
    name: str | None = setting(None, "A name.", text, metavar="NAME")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text('colour = "green"\ncount = 2\nis-loud = true\nlabel = { zone = "a" }\n')
    return path


def test_defaults_hold_where_nothing_is_said() -> None:
    assert load(Example) == Example()


def test_flags_beat_the_environment_which_beats_the_file(file: Path) -> None:
    settings = load(
        Example,
        file=file,
        environ={"LATTICE_COUNT": "3", "LATTICE_COLOUR": "blue", "PATH": "/bin"},
        flags={"count": "4", "label": (), "name": None},
    )

    assert settings == Example(colour="blue", count=4, is_loud=True, label=(("zone", "a"),))


def test_repeated_settings_take_commas_in_the_environment() -> None:
    settings = load(Example, environ={"LATTICE_LABEL": "zone=a,disk=ssd"})

    assert settings.label == (("zone", "a"), ("disk", "ssd"))


def test_lists_add_up_and_a_value_takes_the_place_of_another_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('label = { zone = "a", disk = "ssd", rack = "7" }\nword = ["one", "two"]\n')

    settings = load(
        Example,
        file=path,
        environ={"LATTICE_LABEL": "zone=b,disk=hdd", "LATTICE_WORD": "three"},
        flags={"label": ("zone=c",), "word": ("two",)},
    )

    assert settings.label == (("rack", "7"), ("disk", "hdd"), ("zone", "c"))
    assert settings.word == ("one", "three", "two")


@pytest.mark.parametrize("content", ["word = 3", "word = [[]]", "word = true"])
def test_what_is_no_list_is_refused_where_one_is_wanted(tmp_path: Path, content: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(content)

    with pytest.raises(Invalid, match=r"word in .*settings\.toml"):
        load(Example, file=path)


def test_an_unknown_key_in_the_file_names_the_nearest_one(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('color = "green"')

    with pytest.raises(Invalid, match=r"unknown setting `color` in .*did you mean `colour`\?"):
        load(Example, file=path)


def test_an_unknown_variable_names_the_nearest_one() -> None:
    with pytest.raises(Invalid, match=r"variable `LATTICE_COUNTS`; did you mean `LATTICE_COUNT`"):
        load(Example, environ={"LATTICE_COUNTS": "3"})


def test_variables_of_other_programs_are_passed_over() -> None:
    assert load(Example, environ={"LATTICE_OTHER": "3"}, other_variables=["LATTICE_OTHER"]) == Example()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"count": "12"}, r"--count: 12 is out of range \(0 to 9\)"),
        ({"count": "many"}, "--count: 'many' is not a whole number"),
        ({"colour": "gren"}, r"--colour: 'gren' is not one of .*did you mean `green`"),
        ({"is_loud": "perhaps"}, "--is-loud: 'perhaps' is not a boolean"),
        ({"label": ("zone",)}, "--label: 'zone' is not of the form KEY=VALUE"),
    ],
)
def test_a_bad_value_names_where_it_was_said(flags: dict[str, object], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        load(Example, flags=flags)


@pytest.mark.parametrize("content", ["= 3", "count = [", "count = { a = 1 }"])
def test_a_malformed_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(content)

    with pytest.raises(Invalid, match=r"settings\.toml"):
        load(Example, file=path)


def test_every_setting_has_a_flag_a_variable_and_help() -> None:
    shown = [(item.flag, item.variable, bool(item.help)) for item in declarations(Example)]

    assert shown[0] == ("--colour", "LATTICE_COLOUR", True)
    assert ("--is-loud", "LATTICE_IS_LOUD", True) in shown
