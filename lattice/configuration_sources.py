"""Configurations that a node's operator opened beside those of the lattice: environment variables and files.

`env:PREFIX` opens the variables whose names begin with the prefix, under the name `env:PREFIX`. `file:DIR`
opens the files of a folder, each under the name `file:NAME`: lines of `KEY=VALUE`, or a folder with one file
for each key, as Kubernetes mounts a ConfigMap. What was not opened can't be named, whoever names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import structlog
from anyio import to_thread

from lattice.errors import Invalid

log = structlog.get_logger()

REFRESH_SECONDS = 2.0
"""How soon a change of a file is seen."""
FILE_BYTES = 256 * 1024
ENVIRONMENT, FILE = "env:", "file:"

_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSource:
    """What one `--config-source` opens."""

    prefix: str = ""
    folder: Path | None = None

    @classmethod
    def parse(cls, text: str, field_name: str = "config-source") -> OpenedSource:
        """Raises `Invalid` that names the setting and the two forms."""
        if text.startswith(ENVIRONMENT) and _PREFIX.fullmatch(prefix := text.removeprefix(ENVIRONMENT)):
            return cls(prefix=prefix)
        if text.startswith(FILE) and (folder := text.removeprefix(FILE)):
            return cls(folder=Path(folder))
        raise Invalid(f"{field_name} {text!r} is not a source: use `env:PREFIX_` or `file:DIR`")


@dataclass(slots=True)
class Sources:
    """The configurations of what is opened; read once, then again by `run`."""

    opened: tuple[OpenedSource, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    _values: dict[str, Mapping[str, str]] = field(default_factory=dict, repr=False)

    def get(self, name: str) -> Mapping[str, str] | None:
        """The configuration of that name, such as `env:SHOP_`, as it was last read."""
        return self._values.get(name)

    def read(self) -> set[str]:
        """Read all anew; the names of what changed. Reads files: not for the event loop."""
        found: dict[str, Mapping[str, str]] = {}
        for source in self.opened:
            found.update(self._from_environment(source) if source.prefix else _from_folder(source.folder))
        changed = {
            name for name in found.keys() | self._values.keys() if found.get(name) != self._values.get(name)
        }
        self._values = found
        return changed

    async def wait_for_change(self) -> set[str]:
        """Read again from time to time, until something changed."""
        while True:
            await anyio.sleep(REFRESH_SECONDS)
            if changed := await to_thread.run_sync(self.read):
                return changed

    def _from_environment(self, source: OpenedSource) -> dict[str, Mapping[str, str]]:
        values = {
            name.removeprefix(source.prefix): value
            for name, value in self.environment.items()
            if name.startswith(source.prefix) and name != source.prefix
        }
        return {f"{ENVIRONMENT}{source.prefix}": values}


def parse_lines(text: str, source: str) -> dict[str, str]:
    """The values of lines `KEY=VALUE`; empty ones and those that begin with `#` say nothing.

    A value in double or single quotes is taken without them. Raises `Invalid` that names the line.
    """
    values = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        key, separator, value = line.partition("=")
        if not separator or not key.strip():
            raise Invalid(f"{source}, line {number}: write `KEY=VALUE`")
        values[key.strip()] = _unquoted(value.strip())
    return values


def _unquoted(value: str) -> str:
    is_quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if is_quoted else value


def _from_folder(folder: Path | None) -> dict[str, Mapping[str, str]]:
    assert folder is not None
    found: dict[str, Mapping[str, str]] = {}
    for path in _entries(folder):
        try:
            found[f"{FILE}{path.name}"] = (
                {file.name: _text(file).rstrip("\n") for file in _entries(path)}
                if path.is_dir()
                else parse_lines(_text(path), path.name)
            )
        except (OSError, UnicodeDecodeError, Invalid) as error:
            log.warning("configuration.unreadable", file=str(path), reason=str(error))
    return found


def _entries(folder: Path) -> Iterable[Path]:
    try:
        return sorted(path for path in folder.iterdir() if _FILE_NAME.fullmatch(path.name))
    except OSError as error:
        log.warning("configuration.unreadable", folder=str(folder), reason=str(error))
        return ()


def _text(file: Path) -> str:
    with file.open("rb") as opened:
        data = opened.read(FILE_BYTES + 1)
    if len(data) > FILE_BYTES:
        raise Invalid(f"{file.name} is larger than {FILE_BYTES} bytes")
    return data.decode()
