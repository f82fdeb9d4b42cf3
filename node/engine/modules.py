"""Core modules of the command kind (WASI 0.1): judged and compiled like components, in another cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import structlog

from lattice.errors import Failed
from node.engine.cache import Cache, Entry
from node.engine.compile_process import CompileLimits, run_worker
from node.engine.compiled import Form
from node.engine.compiler import entry_name
from node.engine.configuration import EngineSettings

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledModule:
    """Compiled code on disk; loading it executes it, so its file is authenticated."""

    digest: str
    path: Path


class ModuleCompiler:
    """Compiles core modules for one node, one at a time. The mutable state is the cache's."""

    def __init__(self, folder: Path, key: bytes, limits: CompileLimits, settings: EngineSettings) -> None:
        """`folder` becomes private (0700); `key` is the node's secret."""
        self._limits = limits
        self._settings = settings
        self._cache = Cache(folder, key, limits.cache_bytes)
        self._slots = anyio.CapacityLimiter(limits.concurrent)

    async def compile(self, artifact: bytes) -> CompiledModule:
        """Compile, or find in the cache. Raises `Invalid` when it is no command, else `Failed`."""
        self._limits.check_size(len(artifact))
        digest = await anyio.to_thread.run_sync(lambda: f"sha256:{hashlib.sha256(artifact).hexdigest()}")
        async with self._slots:
            entry = await anyio.to_thread.run_sync(self._load, digest)
            entry = entry or await self._compile(artifact, digest)
        return CompiledModule(digest=digest, path=entry.path)

    async def _compile(self, artifact: bytes, digest: str) -> Entry:
        code = self._cache.temporary()
        try:
            done = await run_worker(artifact, self._limits, self._settings, output=code, is_module=True)
            metadata = {**done, "digest": digest, "size": len(artifact)}
            _log.info("module.compiled", digest=digest, seconds=done["compile_seconds"])
            return await anyio.to_thread.run_sync(self._store, digest, code, metadata)
        except OSError as error:
            raise Failed(f"the compiled module can't be stored: {error}") from error
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(partial(code.unlink, missing_ok=True))

    def _load(self, digest: str) -> Entry | None:
        return self._cache.load(self._entry_name(digest))

    def _store(self, digest: str, code: Path, metadata: Mapping[str, Any]) -> Entry:
        return self._cache.store(self._entry_name(digest), code, metadata)

    def _entry_name(self, digest: str) -> str:
        return entry_name(f"module {digest}", self._settings, Form.PLAIN)
