"""A node's identity: an nkey that it makes once and keeps in its data folder."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

import nkeys

from lattice.errors import Invalid

SEED_FILE = "node.nk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """`id` is public; `secret` authenticates what this node wrote to its own disk and leaves it never."""

    id: str
    secret: bytes


def load_identity(folder: Path) -> Identity:
    """The identity kept in `folder`, made there if there is none; raises `Invalid` when it can't be."""
    file = folder / SEED_FILE
    try:
        seed = file.read_bytes().strip() if file.exists() else _make(file)
    except OSError as error:
        raise Invalid(
            f"cannot keep the node's key in {file}: {error.strerror}; choose another --data"
        ) from error
    try:
        pair = nkeys.from_seed(bytearray(seed))
        public = pair.public_key.decode()
    except Exception as error:
        raise Invalid(f"{file} is not a node's key; remove it to let the node make a new one") from error
    if not public.startswith("N"):
        raise Invalid(f"{file} is a key of another kind; remove it to let the node make a new one")
    return Identity(id=public, secret=hashlib.blake2b(seed, digest_size=32, person=b"lattice-node").digest())


def _make(file: Path) -> bytes:
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_SERVER)
    seed = bytes(seed)
    temporary = file.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(seed)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, file)
    return seed


def default_name(node_id: str) -> str:
    """A name for people: the host's, and enough of the key to tell two nodes of one host apart."""
    host = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")[:40]
    return f"{host or 'node'}-{node_id[-6:].lower()}"
