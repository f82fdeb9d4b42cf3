"""What options and arguments accept, beyond what click knows: durations, sizes, names, pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import click

from lattice.errors import Invalid
from lattice.names import check_label, check_name
from lattice.quantities import parse_duration, parse_size
from lattice.routes import parse_route

T = TypeVar("T")


class Checked(click.ParamType[T], Generic[T]):
    """Text checked by a function that raises `Invalid`; the message becomes click's usage error."""

    def __init__(self, name: str, check: Callable[[str, str], T]) -> None:
        self.name = name
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # click converts defaults again
        try:
            return self._check(value, _field(param))
        except Invalid as error:
            raise click.UsageError(error.message, ctx) from None


def _field(param: click.Parameter | None) -> str:
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return param.human_readable_name if param else "value"


def _duration(text: str, field: str) -> float:
    seconds = parse_duration(text, field)
    if seconds <= 0:
        raise Invalid(f"{field}: {text!r} is no time at all; use for example 250ms, 30s, 5m or 1h")
    return seconds


def _size(text: str, field: str) -> int:
    size = parse_size(text, field)
    if size <= 0:
        raise Invalid(f"{field}: {text!r} is no memory at all; use for example 64KiB, 64MiB or 1GiB")
    return size


def _pair(text: str, field: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise Invalid(f"{field}: {text!r} is not of the form KEY=VALUE")
    return key, value


def _label(text: str, field: str) -> tuple[str, str]:
    return check_label(*_pair(text, field))


def _link(text: str, field: str) -> dict[str, Any]:
    """The fields of a link, as a request has them; those that were not given are left out."""
    head, *items = text.split(",")
    interface, separator, target = head.partition("=")
    if not separator or not interface:
        raise Invalid(
            f"{field}: {text!r} is not of the form INTERFACE=TARGET[,KEY=VALUE...], "
            "e.g. demo:greeter/greet=greeter or wasi:keyvalue=keyvalue-nats,bucket=orders"
        )
    link: dict[str, Any] = {"interface": interface, "target": check_name(target, f"{field} target")}
    for item in items:
        _add_to_link(link, item, field)
    return link


def _add_to_link(link: dict[str, Any], item: str, field: str) -> None:
    kind, _, rest = item.partition(":")
    if item == "idempotent":
        link["idempotent"] = True
    elif kind == "name":
        link["name"] = check_name(rest, f"{field} name")
    elif kind == "config-from":
        link["configuration_from"] = [*link.get("configuration_from", ()), rest]
    else:
        is_secret = kind == "secret"
        key, value = _pair(rest if is_secret else item, f"{field} {kind if is_secret else 'configuration'}")
        link.setdefault("secrets" if is_secret else "configuration", {})[key] = value


def _route(text: str, field: str) -> tuple[str, str]:
    try:
        return parse_route(text)
    except Invalid as error:
        raise Invalid(f"{field}: {error.message}") from None


def _folder(text: str, field: str) -> dict[str, Any]:
    name, _, rest = text.partition(":")
    path, _, mode = rest.partition(":")
    if not path.startswith("/") or mode not in ("", "ro", "rw"):
        raise Invalid(
            f"{field}: {text!r} is not of the form FOLDER:/PATH or FOLDER:/PATH:rw, e.g. photos:/data:rw"
        )
    return {"folder": check_name(name, f"{field} folder"), "path": path, "writable": mode == "rw"}


DURATION = Checked("duration", _duration)
SIZE = Checked("size", _size)
NAME = Checked("name", check_name)
LABEL = Checked("key=value", _label)
PAIR = Checked("key=value", _pair)
LINK = Checked("interface=target[,key=value...]", _link)
FOLDER = Checked("folder:path", _folder)
ROUTE = Checked("host/prefix", _route)
