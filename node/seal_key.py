"""The key to which secrets are sealed: made once, kept in the node's folder as an nkeys curve seed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lattice.errors import Invalid
from lattice.sealing import SealKey

SEAL_FILE = "seal.nk"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSealKey:
    """`announcement` is for `NodeInfo.seal_key`."""

    key: SealKey
    announcement: str


def load_seal_key(folder: Path, identity_file: Path) -> NodeSealKey:
    """The key kept in `folder`, made there if there is none, announced for the identity of the other file.

    Reads and writes files. Raises `Invalid` when it can't be kept or read.
    """
    file = folder / SEAL_FILE
    try:
        key = SealKey.from_seed(file.read_bytes().strip()) if file.exists() else _make(file)
        return NodeSealKey(key=key, announcement=key.announcement(identity_file.read_bytes().strip()))
    except OSError as error:
        raise Invalid(
            f"cannot keep the seal key in {file}: {error.strerror}; choose another --data"
        ) from error
    except Invalid as error:
        raise Invalid(f"{file}: {error.message}; remove it to let the node make a new one") from error


def _make(file: Path) -> SealKey:
    key = SealKey.generate()
    temporary = file.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(key.seed)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)
    return key
