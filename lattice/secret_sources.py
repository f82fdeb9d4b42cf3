"""Secrets that the operator of a process opened beside those of the lattice: environment variables and files.

`env:PREFIX_` opens the variables whose names begin with the prefix: the secret `env:PREFIX_KEY` is the
variable `PREFIX_KEY`. `file:DIR` opens the files of a folder, each the secret `file:NAME`, as Kubernetes and
Docker mount secrets. What was not opened can't be named, whoever names it; values stay in this process.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import structlog
from anyio import to_thread

from lattice.configuration_sources import ENVIRONMENT, FILE, REFRESH_SECONDS, OpenedSource
from lattice.errors import Denied, Failed, Invalid, LatticeError, NotFound
from lattice.names import did_you_mean
from lattice.sealing import MAX_BYTES, Secret

log = structlog.get_logger()

FLAG = "--secret-source"
MAX_FILES = 1_000
"""Of one folder."""
ATTEMPTS = 3
"""At a file that is replaced while it is read."""

_FILE_NAME = re.compile(r"(?!\.\.|\.$)[A-Za-z0-9._-]{1,253}")
"""What may be a key of a Kubernetes secret; `..data` and the like are its own."""


def is_local(name: str) -> bool:
    """Whether a secret of this name is one of a process's own sources, not of the lattice."""
    return name.startswith((ENVIRONMENT, FILE))


def check_apart(configurations: Iterable[OpenedSource], secrets: Iterable[OpenedSource]) -> None:
    """Raise `Invalid` if a folder of secrets would be read as configuration, which hides nothing."""
    shown = {source.folder.absolute() for source in configurations if source.folder}
    for source in secrets:
        folder = source.folder.absolute() if source.folder else None
        if folder is not None and shown & {folder, folder.parent}:
            raise Invalid(
                f"--config-source opens {folder}, whose files {FLAG} opens as secrets: "
                "keep configurations in another folder"
            )


def plain_environment(environment: Mapping[str, str], secrets: Iterable[OpenedSource]) -> dict[str, str]:
    """The variables that are not opened as secrets."""
    prefixes = tuple(source.prefix for source in secrets if source.prefix)
    return {name: value for name, value in environment.items() if not name.startswith(prefixes)}


@dataclass(slots=True)
class SecretSources:
    """The secrets of what is opened; read once, then again by `wait_for_change`.

    The mutable state is what was last read, and why some could not be.
    """

    opened: tuple[OpenedSource, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    _values: dict[str, Secret] = field(default_factory=dict, repr=False)
    _faults: dict[str, str] = field(default_factory=dict, repr=False)

    def get(self, name: str) -> Secret:
        """The value as it was last read; raises `NotFound`, `Failed` or, for what is not open, `Denied`."""
        found = self._values.get(name)
        if found is None:
            raise self._missing(name)
        return found

    def kinds(self) -> dict[str, bool]:
        """The names of all that is there, and whether each is text."""
        return {name: isinstance(value.reveal(), str) for name, value in sorted(self._values.items())}

    def read(self) -> set[str]:
        """Read all anew; the names of what changed. Reads files: not for the event loop."""
        found: dict[str, Secret] = {}
        faults: dict[str, str] = {}
        for source in self.opened:
            if source.folder is None:
                self._read_environment(source.prefix, found, faults)
            else:
                _read_folder(source.folder, found, faults)
        for name in sorted(faults):
            if self._faults.get(name) != faults[name]:
                log.warning("secret.unreadable", name=name, reason=faults[name])
        before, self._values, self._faults = self._values, found, faults
        return {name for name in found.keys() | before.keys() if found.get(name) != before.get(name)}

    async def wait_for_change(self) -> set[str]:
        """Read again from time to time, until something changed."""
        while True:
            await anyio.sleep(REFRESH_SECONDS)
            if any(source.folder for source in self.opened) and (
                changed := await to_thread.run_sync(self.read, abandon_on_cancel=True)
            ):
                return changed

    def _read_environment(self, prefix: str, found: dict[str, Secret], faults: dict[str, str]) -> None:
        for variable, value in self.environment.items():
            if variable.startswith(prefix) and variable != prefix:
                name, data = f"{ENVIRONMENT}{variable}", os.fsencode(value)
                if len(data) > MAX_BYTES:
                    faults[name] = f"it is larger than {MAX_BYTES} bytes"
                else:
                    found[name] = _secret(data)

    def _missing(self, name: str) -> LatticeError:
        if name in self._faults:
            return Failed(f"secret `{name}` can't be read on this node: {self._faults[name]}")
        if not self._is_open(name):
            form = "file:DIR` of the folder that has it" if name.startswith(FILE) else "env:PREFIX_`"
            return Denied(f"this node has no secret `{name}`: its operator opens it with `{FLAG} {form}")
        near = did_you_mean(name, self._values)
        what, place = (
            ("file", "the folder") if name.startswith(FILE) else ("variable", "the node's environment")
        )
        bare = name.partition(":")[2]
        return NotFound(
            f"there is no secret `{name}` on this node{near}; put a {what} `{bare}` into {place} "
            f"that its `{FLAG}` opens"
        )

    def _is_open(self, name: str) -> bool:
        bare = name.partition(":")[2]
        if name.startswith(FILE):
            return bool(_FILE_NAME.fullmatch(bare)) and any(source.folder for source in self.opened)
        return any(source.prefix and bare.startswith(source.prefix) for source in self.opened)


def _read_folder(folder: Path, found: dict[str, Secret], faults: dict[str, str]) -> None:
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if _FILE_NAME.fullmatch(entry.name))
    except OSError as error:
        faults[f"{FILE}{folder}"] = error.strerror or type(error).__name__
        return
    for file in names[MAX_FILES:]:
        faults[f"{FILE}{file}"] = f"its folder has more than {MAX_FILES} files"
    for file in names[:MAX_FILES]:
        name = f"{FILE}{file}"
        try:
            data = _content(folder, file)
        except LatticeError as error:
            faults[name] = error.message
            found.pop(name, None)  # of two folders the later one counts, also when it can't be read
        else:
            if data is not None:
                found[name] = _secret(data, line_end=False)
                faults.pop(name, None)


def _content(folder: Path, name: str) -> bytes | None:
    """What a file has, None for a folder; raises `Failed` that says what is wrong, without any of it."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _read_beneath(folder, name)
        except OSError as error:
            # A mount that is renewed puts a new folder in the place of the old one.
            if attempt == ATTEMPTS:
                raise Failed(error.strerror or type(error).__name__) from None
    raise AssertionError("unreachable")


def _read_beneath(folder: Path, name: str) -> bytes | None:
    root = os.path.realpath(folder)
    resolved = os.path.realpath(os.path.join(root, name), strict=True)
    if os.path.commonpath((root, resolved)) != root:
        raise Failed("it is a symbolic link that leads out of its folder: mount or copy the file itself")
    descriptor = _open_beneath(root, os.path.relpath(resolved, root).split(os.sep))
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            return None
        if not stat.S_ISREG(mode):
            raise Failed("it is not a regular file")
        with open(descriptor, "rb", closefd=False) as opened:
            data = opened.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise Failed(f"it is larger than {MAX_BYTES} bytes")
    return data


def _open_beneath(root: str, parts: list[str]) -> int:
    """A descriptor of what was resolved; a link that took its place meanwhile is not followed."""
    opened = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            inner = os.open(part, flags, dir_fd=opened)
        finally:
            os.close(opened)
        opened = inner
    return opened


def _secret(data: bytes, *, line_end: bool = True) -> Secret:
    """What is no text is kept as it is; of text, the last line end may be dropped, as `secret put` does."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return Secret(data)
    return Secret(text if line_end else text.removesuffix("\n").removesuffix("\r"))
