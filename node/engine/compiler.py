"""From the bytes somebody uploaded to a component that is ready to be loaded.

The bytes are judged and compiled in a limited process of their own; what comes back is kept in an
authenticated cache under everything that shaped it, so that the same bytes are compiled once per node.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import structlog

from lattice import wit
from lattice.errors import Failed, LatticeError
from node.engine import configuration
from node.engine.adapter import ADAPTER_VERSION
from node.engine.binary import require_component
from node.engine.cache import Cache, Entry
from node.engine.compile_process import CompileLimits, Progress, run_worker, shaping
from node.engine.compiled import CompiledComponent, Form
from node.engine.configuration import EngineSettings
from node.engine.fused_component import FUSION_VERSION
from node.engine.shim_compose import shim_hash

_log = structlog.get_logger()

_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompilerStatistics:
    """Counts since the compiler was made."""

    compiled: int
    from_cache: int
    refused: int
    waiting: int
    cache_bytes: int


class Compiler:
    """Compiles components for one node, a bounded number at a time; all others wait."""

    # The mutable state is the counts below; entries are the cache's.

    def __init__(
        self,
        folder: Path,
        key: bytes,
        limits: CompileLimits | None = None,
        settings: EngineSettings | None = None,
    ) -> None:
        """`folder` becomes private (0700); `key` is the node's secret.

        Raises `Failed` when the folder can't be used.
        """
        self._limits = limits or CompileLimits()
        self._settings = settings or EngineSettings()
        self._cache = Cache(folder, key, self._limits.cache_bytes)
        self._slots = anyio.CapacityLimiter(self._limits.concurrent)
        self._compiled = self._from_cache = self._refused = 0

    def __repr__(self) -> str:
        counts = f"compiled: {self._compiled} | from cache: {self._from_cache} | refused: {self._refused}"
        return f"<Compiler [{counts}]>"

    def cached(self, digest: str, form: Form = Form.SHIM) -> CompiledComponent | None:
        """The component if it was compiled here before.

        Verifies the code, which takes about 1 ms per megabyte the first time: call it in a thread where that
        matters.
        """
        entry = self._cache.load(self._entry_name(digest, form))
        return None if entry is None else _component(entry)

    async def compile(
        self, artifact: bytes, progress: Progress | None = None, *, form: Form = Form.SHIM
    ) -> CompiledComponent:
        """Compile, or find in the cache. Raises `Invalid` when the bytes are at fault, else `Failed`.

        Cancelling kills the process that compiles; nothing is left of it.
        """
        try:
            self._limits.check_size(len(artifact))
            require_component(artifact)
            digest = await anyio.to_thread.run_sync(_digest, artifact)
            return await self._find(digest, form) or await self._make(artifact, digest, progress, form)
        except LatticeError:
            self._refused += 1
            raise

    async def _find(self, digest: str, form: Form) -> CompiledComponent | None:
        found = await anyio.to_thread.run_sync(self.cached, digest, form)
        self._from_cache += found is not None
        return found

    async def _make(
        self, artifact: bytes, digest: str, progress: Progress | None, form: Form
    ) -> CompiledComponent:
        async with self._slots:
            # Another call may have compiled the same bytes while this one waited.
            found = await self._find(digest, form)
            entry = None if found else await self._compile(artifact, digest, progress, form)
        return found or _component(self._count(entry))

    def _count(self, entry: Entry | None) -> Entry:
        assert entry is not None
        self._compiled += 1
        metadata = entry.metadata
        _log.info("component.compiled", digest=metadata["digest"], seconds=metadata["compile_seconds"])
        for warning in metadata["warnings"]:
            _log.warning("component.not_adapted", digest=metadata["digest"], reason=warning)
        return entry

    async def _compile(self, artifact: bytes, digest: str, progress: Progress | None, form: Form) -> Entry:
        code = self._cache.temporary()
        try:
            done = await run_worker(
                artifact, self._limits, self._settings, output=code, progress=progress, form=form
            )
            if progress:
                progress("store")
            metadata = {**done, "digest": digest, "size": len(artifact)}
            store = partial(self._cache.store, self._entry_name(digest, form), code, metadata)
            return await anyio.to_thread.run_sync(store)  # once begun, a thread is always waited for
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_remove, code)

    def statistics(self) -> CompilerStatistics:
        return CompilerStatistics(
            compiled=self._compiled,
            from_cache=self._from_cache,
            refused=self._refused,
            waiting=self._slots.statistics().tasks_waiting,
            cache_bytes=self._cache.total_bytes,
        )

    def _entry_name(self, digest: str, form: Form) -> str:
        return entry_name(digest, self._settings, form)


def entry_name(digest: str, settings: EngineSettings, form: Form = Form.SHIM) -> str:
    """The cache key: a hash of everything that shapes the compiled code of an artifact."""
    inputs = [
        digest,
        ADAPTER_VERSION,
        FUSION_VERSION,
        _wasmtime_version(),
        shaping(settings),
        _engine_source(),
        cpu_features(),
        form.value,
        "" if form is Form.PLAIN else shim_hash(),
    ]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:40]


@cache
def _wasmtime_version() -> str:
    return version("wasmtime")


@cache
def _engine_source() -> str:
    """A hash of the module that configures engines: it holds more than `EngineSettings` shows."""
    return hashlib.sha256(Path(configuration.__file__).read_bytes()).hexdigest()


@cache
def cpu_features() -> str:
    """A hash of what the processor offers; compiled code uses it without asking again."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise Failed(f"the processor's features can't be read from {_CPU_INFO}: {error}") from error
    features = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return hashlib.sha256("\n".join(features).encode()).hexdigest()


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)


def _digest(artifact: bytes) -> str:
    return f"sha256:{hashlib.sha256(artifact).hexdigest()}"


def _component(entry: Entry) -> CompiledComponent:
    metadata: Any = entry.metadata
    return CompiledComponent(
        digest=metadata["digest"],
        size=metadata["size"],
        type=wit.component_type_from_json(metadata["type"]),
        adapted_imports=frozenset(metadata["adapted_imports"]),
        adapted_exports=frozenset(metadata["adapted_exports"]),
        shimmed_type=wit.component_type_from_json(metadata["shimmed_type"])
        if "shimmed_type" in metadata
        else None,
        path=entry.path,
    )
