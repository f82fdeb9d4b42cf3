"""Component bytes: in the lattice's object store by digest, with verified copies on this node's disk.

The store is not the only copy: a node keeps what it runs or is ready to run, and puts it back when the store
has lost it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

import structlog
from anyio import to_thread

from lattice.bus import ObjectStore
from lattice.errors import Failed, NotFound

log = structlog.get_logger()

DIGEST_PREFIX = "sha256:"


def digest_of(data: bytes) -> str:
    """`sha256:<hex>`: the name of an artifact everywhere."""
    return DIGEST_PREFIX + hashlib.sha256(data).hexdigest()


class Artifacts:
    """The mutable state is the folder of copies, which exists; nobody else writes to it."""

    def __init__(self, folder: Path, store: ObjectStore) -> None:
        self._folder = folder
        self._store = store

    async def get(self, digest: str) -> bytes:
        """The bytes, verified. Raises `NotFound` when neither this node nor the store has them."""
        data = await to_thread.run_sync(self._read, digest)
        if data is None:
            data = await self._store.get(digest)
            if await to_thread.run_sync(digest_of, data) != digest:
                raise Failed(f"artifact {digest} is damaged in the object store; deploy the component again")
            await self._keep(digest, data)
        return data

    def holds(self, digest: str) -> bool:
        """Whether this node has a copy; looks into the folder."""
        return self._file(digest).exists()

    def copies(self) -> set[str]:
        """The digests of all copies on this node; reads the folder."""
        return {DIGEST_PREFIX + file.stem for file in self._folder.glob("*.wasm")}

    async def restore(self, digests: Collection[str]) -> list[str]:
        """Put copies that the store lacks back into it; returns their digests."""
        wanted = await to_thread.run_sync(self.copies) & set(digests)
        if not wanted:
            return []
        restored = []
        for digest in sorted(wanted - set(await self._store.names())):
            data = await to_thread.run_sync(self._read, digest)
            if data is not None:
                await self._store.put(digest, data)
                restored.append(digest)
        return restored

    async def prune(self, keep: Collection[str]) -> None:
        """Remove copies of what the lattice no longer wants."""
        await to_thread.run_sync(self._prune, frozenset(keep))

    def _prune(self, keep: frozenset[str]) -> None:
        for digest in self.copies() - keep:
            self._file(digest).unlink(missing_ok=True)

    async def _keep(self, digest: str, data: bytes) -> None:
        try:
            await to_thread.run_sync(self._write, digest, data)
        except OSError as error:
            # The node can work without its copy; only the lattice has one place fewer to restore it from.
            log.warning("artifact.not-kept", digest=digest, reason=str(error))

    def _read(self, digest: str) -> bytes | None:
        file = self._file(digest)
        try:
            data = file.read_bytes()
            if digest_of(data) == digest:
                return data
            log.warning("artifact.damaged", digest=digest, file=str(file))
            file.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("artifact.unreadable", digest=digest, reason=str(error))
        return None

    def _write(self, digest: str, data: bytes) -> None:
        file = self._file(digest)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(file)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _file(self, digest: str) -> Path:
        name = digest.removeprefix(DIGEST_PREFIX)
        if len(name) != 64 or not name.isalnum():
            raise NotFound(f"{digest!r} is not the digest of an artifact")
        return self._folder / f"{name}.wasm"
