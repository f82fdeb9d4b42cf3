"""`wasmtime serve`, the native host that others are compared with."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import anyio
from anyio.abc import Process

_ADDRESS = re.compile(rb"http://(127\.0\.0\.1:\d+)/")


def native_binary(folder: Path) -> Path | None:
    """The program, made executable in `folder`, as its package leaves that to others; None without it."""
    spec = find_spec("wasmtime_cli")
    if spec is None or spec.origin is None:
        return None
    binary = folder / "wasmtime"
    shutil.copyfile(Path(spec.origin).parent / "wasmtime", binary)
    binary.chmod(0o755)
    return binary


@dataclass(frozen=True, slots=True)
class NativeHost:
    """A running `wasmtime serve`."""

    authority: str


@asynccontextmanager
async def native_host(binary: Path, component: Path) -> AsyncIterator[NativeHost]:
    """Serve a component on a free port."""
    command = [str(binary), "serve", "--addr", "127.0.0.1:0", str(component)]
    async with await anyio.open_process(command, stdout=None, stdin=None) as process:
        try:
            with anyio.fail_after(30):
                authority = await _address(process)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_drain, process)
                yield NativeHost(authority)
                tasks.cancel_scope.cancel()
        finally:
            process.terminate()


async def _address(process: Process) -> str:
    assert process.stderr is not None
    said = b""
    while not (found := _ADDRESS.search(said)):
        said += await process.stderr.receive()
    return found[1].decode()


async def _drain(process: Process) -> None:
    """Take what it says of each fault, so that it never waits for that."""
    assert process.stderr is not None
    async for _ in process.stderr:
        pass
