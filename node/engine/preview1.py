"""Runs commands of WASI 0.1, each in a process of its own that ends with whoever runs it."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from subprocess import PIPE
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

from lattice.errors import Failed, Trapped
from node.engine.compile_process import shaping
from node.engine.configuration import EngineSettings
from node.engine.modules import CompiledModule

_MAX_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRun:
    """What one command gets."""

    module: CompiledModule
    arguments: tuple[str, ...]
    """The first is the program's name."""
    environment: Mapping[str, str]
    folders: tuple[tuple[str, str, bool], ...]
    """Each as the host's path, the guest's, and whether it is writable."""
    memory_bytes: int


class ModuleProcess:
    """A command that runs; its three streams belong to whoever started it."""

    def __init__(self, process: Process, channel: socket.socket) -> None:
        self._process = process
        self._channel = channel

    @property
    def stdin(self) -> ByteSendStream:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> ByteReceiveStream:
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def stderr(self) -> ByteReceiveStream:
        assert self._process.stderr is not None
        return self._process.stderr

    async def wait(self) -> int:
        """The exit status of the guest. Raises `Trapped`, or `Failed` when the process itself ended."""
        code = await self._process.wait()
        answer = self._answer()
        match answer:
            case {"status": int(status)}:
                return status
            case {"trap": str(reason)}:
                raise Trapped(reason)
            case {"failed": str(reason)}:
                raise Failed(f"the process that runs the module failed: {reason}")
        raise Failed(f"the process that runs the module ended with status {code}")

    def _answer(self) -> Any:
        try:
            line = self._channel.recv(_MAX_ANSWER_BYTES)  # the process has ended: what it said is here
            return json.loads(line) if line else None
        except (OSError, ValueError):
            return None


@asynccontextmanager
async def running(run: ModuleRun, settings: EngineSettings) -> AsyncGenerator[ModuleProcess]:
    """Start a command; leaving the context kills it if it still runs. Raises `Failed` if it can't begin."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        with theirs:
            process = await _start(theirs)
        try:
            await asyncio.get_running_loop().sock_sendall(ours, _request(run, settings))
            yield ModuleProcess(process, ours)
        except OSError as error:
            raise Failed(f"the process that runs the module can't be told what to run: {error}") from error
        finally:
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.aclose()


async def _start(channel: socket.socket) -> Process:
    command = [sys.executable, "-I", "-m", "node.engine.preview1_worker", str(channel.fileno())]
    try:
        return await anyio.open_process(
            command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd="/",
            env={"RAYON_NUM_THREADS": "1"},
            pass_fds=(channel.fileno(),),
            start_new_session=True,
        )
    except OSError as error:
        raise Failed(f"the process that runs the module can't be started: {error}") from error


def _request(run: ModuleRun, settings: EngineSettings) -> bytes:
    request = {
        "module": str(run.module.path),
        "settings": shaping(settings),
        "arguments": run.arguments,
        "environment": dict(run.environment),
        "folders": run.folders,
        "memory_bytes": run.memory_bytes,
    }
    return json.dumps(request).encode() + b"\n"
