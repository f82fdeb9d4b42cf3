"""Settings of a program: one frozen dataclass, filled once from defaults, file, environment and flags.

A program declares its settings as dataclass fields made by `setting`; the file's keys, the environment's
`LATTICE_*` names, the command line's flags and the reference in `docs/` all come from these declarations.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lattice.errors import Invalid
from lattice.names import did_you_mean

ENVIRONMENT_PREFIX = "LATTICE_"

Settings = TypeVar("Settings")
Parse = Callable[[str, str], Any]
"""Turns text into a value; the second argument is the name to put into an error."""


ParseTable = Callable[[str, Any, str], Any]
"""Turns a name and its table in a file into a value; the third argument is for errors, as for `Parse`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """How a repeated setting is written in a file: `[key.NAME]` tables, one for each value."""

    key: str
    parse: ParseTable


def setting(
    default: Any,
    help: str,
    parse: Parse,
    *,
    metavar: str,
    repeated: bool = False,
    separator: str = ",",
    tables: Tables | None = None,
    named_by: Callable[[Any], Hashable] = lambda value: value,
    is_secret: bool = False,
) -> Any:
    """A field of a settings class. `repeated` fields are tuples: many flags, a TOML list, or separated.

    What flags say is added to what the environment says, and that to the file's, except that one value takes
    the place of another that is `named_by` the same. What `is_secret` is left out where the settings are
    printed.
    """
    metadata = {
        "help": help,
        "parse": parse,
        "metavar": metavar,
        "repeated": repeated,
        "separator": separator,
        "tables": tables,
        "named_by": named_by,
    }
    return dataclasses.field(default=default, metadata=metadata, repr=not is_secret)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One setting as the reference and the command line show it."""

    name: str
    help: str
    default: Any
    parse: Parse
    metavar: str
    repeated: bool
    separator: str = ","
    tables: Tables | None = None
    named_by: Callable[[Any], Hashable] = lambda value: value

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    def value(self, raw: Any, source: str) -> Any:
        """The typed value of what a file, a variable or a flag said; raises `Invalid` that names it."""
        if self.repeated:
            items = raw.split(self.separator) if isinstance(raw, str) else raw
            if isinstance(items, Mapping):
                items = [f"{key}={value}" for key, value in items.items()]
            if not isinstance(items, Iterable):
                raise Invalid(f"{source}: {items!r} is not a list")
            return tuple(self.parse(_text(item, source), source) for item in items if item != "")
        if isinstance(raw, list):
            raise Invalid(f"{source} is given {len(raw)} times: once is enough")
        return self.parse(_text(raw, source), source)

    def combined(self, lower: Any, higher: Any) -> Any:
        """What counts of what two places say, the second of which counts more."""
        if not self.repeated or lower is None:
            return higher
        names = {self.named_by(value) for value in higher}
        return (*(value for value in lower if self.named_by(value) not in names), *higher)


def _text(raw: Any, source: str) -> str:
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, str | int | float | Path):
        return str(raw)
    raise Invalid(f"{source}: {raw!r} is not a string, number or boolean")


def declarations(settings: type[Any]) -> list[Declaration]:
    """All settings of a class, in the order of their declaration."""
    return [
        Declaration(
            name=field.name,
            help=field.metadata["help"],
            default=field.default,
            parse=field.metadata["parse"],
            metavar=field.metadata["metavar"],
            repeated=field.metadata["repeated"],
            separator=field.metadata["separator"],
            tables=field.metadata["tables"],
            named_by=field.metadata["named_by"],
        )
        for field in dataclasses.fields(settings)
        if "help" in field.metadata
    ]


def load(
    settings: type[Settings],
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    other_variables: Iterable[str] = (),
) -> Settings:
    """The settings from defaults < file < environment < flags; raises `Invalid` for anything unknown.

    Repeated ones add up (`setting`).

    `other_variables` are `LATTICE_*` names that belong to somebody else and are passed over.
    """
    known = {declaration.name: declaration for declaration in declarations(settings)}
    values: dict[str, Any] = {}
    tables = {item.tables.key: item for item in known.values() if item.tables is not None}
    for key, raw in _read_file(file, [*known, *tables]).items():
        source = f"{key} in {file}"
        if (item := tables.get(key)) is not None:
            values[item.name] = (*values.get(item.name, ()), *_from_tables(item, raw, source))
        elif known[key].repeated:
            values[key] = (*values.get(key, ()), *known[key].value(raw, source))
        else:
            values[key] = known[key].value(raw, source)
    for key, raw in _read_environment(environ or {}, known, set(other_variables)).items():
        values[key] = known[key].combined(values.get(key), known[key].value(raw, known[key].variable))
    for key, raw in (flags or {}).items():
        if raw is not None and raw != ():
            values[key] = known[key].combined(values.get(key), known[key].value(raw, known[key].flag))
    return settings(**values)


def _from_tables(declaration: Declaration, raw: Any, source: str) -> tuple[Any, ...]:
    assert declaration.tables is not None
    if not isinstance(raw, Mapping):
        raise Invalid(f"{source}: write one table `[{declaration.tables.key}.NAME]` for each")
    return tuple(declaration.tables.parse(name, table, source) for name, table in raw.items())


def _read_file(file: Path | None, known: Collection[str]) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        data = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read the settings file {file}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"the settings file {file} is not valid TOML: {error}") from error
    found = {key.replace("-", "_"): value for key, value in data.items()}
    for key in found:
        if key not in known:
            raise Invalid(f"unknown setting `{key}` in {file}{did_you_mean(key, known)}")
    return found


def _read_environment(
    environ: Mapping[str, str], known: Mapping[str, Declaration], others: set[str]
) -> dict[str, str]:
    found = {}
    for variable, value in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in others or value == "":
            continue
        key = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if key not in known:
            variables = [declaration.variable for declaration in known.values()]
            raise Invalid(f"unknown environment variable `{variable}`{did_you_mean(variable, variables)}")
        found[key] = value
    return found


# Parsers


def text(raw: str, source: str) -> str:
    return raw


def path(raw: str, source: str) -> Path:
    return Path(os.path.expanduser(raw))


def boolean(raw: str, source: str) -> bool:
    if raw.lower() in ("true", "1", "yes", "on"):
        return True
    if raw.lower() in ("false", "0", "no", "off"):
        return False
    raise Invalid(f"{source}: {raw!r} is not a boolean; use true or false")


def whole_number(least: int, most: int) -> Parse:
    """A parser of integers from `least` to `most`."""

    def parse(raw: str, source: str) -> int:
        try:
            number = int(raw)
        except ValueError:
            raise Invalid(f"{source}: {raw!r} is not a whole number") from None
        if not least <= number <= most:
            raise Invalid(f"{source}: {number} is out of range ({least} to {most})")
        return number

    return parse


def one_of(*choices: str) -> Parse:
    """A parser of one of the given words."""

    def parse(raw: str, source: str) -> str:
        if raw in choices:
            return raw
        raise Invalid(f"{source}: {raw!r} is not one of {', '.join(choices)}{did_you_mean(raw, choices)}")

    return parse


def key_value(raw: str, source: str) -> tuple[str, str]:
    """`key=value`, as for labels."""
    key, separator, value = raw.partition("=")
    if not separator or not key:
        raise Invalid(f"{source}: {raw!r} is not of the form KEY=VALUE")
    return key, value
