"""A component file on the user's disk: read, recognised by its first bytes, and named by its digest.

Only what can be said from eight bytes is said here; the node checks the rest when it compiles.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from lattice.errors import Invalid
from lattice.names import MAX_NAME_LENGTH, check_name
from lattice.quantities import size_text

MAX_ARTIFACT_BYTES = 512 * 2**20
"""No useful component comes near; it keeps a wrong file from filling the memory."""

_MAGIC = b"\0asm"
_CORE_MODULE = b"\x01\x00\x00\x00"
_COMPONENT = b"\x0d\x00\x01\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """The bytes of a component file and their digest."""

    data: bytes
    digest: str


def read_artifact(path: Path) -> Artifact:
    """Read and recognise the file; raises `Invalid` that says what it is instead, with a hint what to do."""
    data = _read(path)
    fault = _fault(data)
    if fault:
        reason, hint = fault
        raise _refusal(f"`{path}` is not a WebAssembly component: {reason}", hint)
    return Artifact(data=data, digest=f"sha256:{hashlib.sha256(data).hexdigest()}")


def read_program(path: Path) -> Artifact:
    """The same for what can be run as a job, which core modules of WASI 0.1 can be too."""
    data = _read(path)
    if data[:8] == _MAGIC + _CORE_MODULE:
        return Artifact(data=data, digest=f"sha256:{hashlib.sha256(data).hexdigest()}")
    return read_artifact(path)


def name_for(path: Path) -> str:
    """A component name made of the file's: `My_Greeter.wasm` is `my-greeter`; raises `Invalid` if none."""
    name = re.sub(r"[^a-z0-9]+", "-", path.name.removesuffix(".wasm").lower())
    name = name[:MAX_NAME_LENGTH].strip("-")
    if not name:
        raise Invalid(f"no component name can be made of the file name `{path.name}`: give one with --name")
    return check_name(name, "component name")


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise _refusal(f"`{path}` is a folder", "name the .wasm file in it")
        if (size := path.stat().st_size) > MAX_ARTIFACT_BYTES:
            limit = size_text(MAX_ARTIFACT_BYTES)
            raise _refusal(f"`{path}` has {size_text(size)}, more than {limit}", "is it the right file?")
        return path.read_bytes()
    except FileNotFoundError:
        raise _refusal(f"there is no file `{path}`", "check the path, or build the component first") from None
    except OSError as error:
        raise _refusal(f"cannot read `{path}`: {error.strerror or error}", "is it yours to read?") from None


def _fault(data: bytes) -> tuple[str, str] | None:
    """What the bytes are instead of a component, and what to do; None for a component."""
    head = data[:8]
    if head == _MAGIC + _COMPONENT:
        return None
    if not data:
        return "it is empty", "was the build interrupted? Build it again"
    if head == _MAGIC + _CORE_MODULE:
        return "it is a core module", (
            "`latticectl run` runs it as it is if it is a command; else build it for a component target such "
            "as wasm32-wasip2, or use `wasm-tools component new`"
        )
    if head.startswith(_MAGIC):
        return _header_fault(head)
    if not data[:65536].strip(b"\0"):
        return "it begins with zeros", "was it copied completely? Copy or build it again"
    if _is_text(data[:4096]):
        return "it is a text file", "name the built .wasm file, or translate WAT with `wasm-tools parse`"
    return "it does not begin as WebAssembly does", "name the built .wasm file"


def _header_fault(head: bytes) -> tuple[str, str]:
    if len(head) < 8:
        return "it is cut off after its first bytes", "was it copied completely? Copy or build it again"
    version = int.from_bytes(head[4:6], "little")
    return f"its encoding has version {version} instead of 13", "build it anew with current tools"


def _is_text(data: bytes) -> bool:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if error.start < len(data) - 4:
            return False
        text = data[: error.start].decode()
    return all(character.isprintable() or character in "\t\r\n\f" for character in text)


def _refusal(message: str, hint: str) -> Invalid:
    return Invalid(message, details={"hint": hint})
