"""A core module of the command kind, in a process of its own."""

from __future__ import annotations

from contextlib import suppress

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream

from lattice.errors import LatticeError, Trapped
from lattice.jobs import FAILED, STDERR, STDOUT, TIMED_OUT, TRAPPED, Outcome
from lattice.streams import ByteReceiver
from lattice.tasks import open_tasks
from node.engine.configuration import EngineSettings
from node.engine.preview1 import ModuleProcess, ModuleRun, running
from node.jobs.program import Write


class ModuleProgram:
    """Holds nothing until it runs."""

    def __init__(self, run: ModuleRun, settings: EngineSettings, timeout_seconds: float) -> None:
        self._run = run
        self._settings = settings
        self._timeout_seconds = timeout_seconds

    async def run(self, source: ByteReceiver | None, write: Write) -> Outcome:
        with anyio.move_on_after(self._timeout_seconds):
            try:
                async with running(self._run, self._settings) as process:
                    return await _converse(process, source, write)
            except Trapped as error:
                return Outcome(exit_code=TRAPPED, reason=error.message)
            except _NotWritten as error:
                raise error.cause from None
            except LatticeError as error:
                return Outcome(exit_code=FAILED, reason=f"{error.code}: {error.message}")
        return Outcome(exit_code=TIMED_OUT, reason=f"it ran for {self._timeout_seconds:g} s")

    async def aclose(self) -> None:
        """Nothing is left: its process ended with `run`."""


class _NotWritten(Exception):
    """Keeps an error of whoever takes the output apart from those of the process."""

    def __init__(self, cause: LatticeError) -> None:
        super().__init__(cause)
        self.cause = cause


async def _converse(process: ModuleProcess, source: ByteReceiver | None, write: Write) -> Outcome:
    async with open_tasks() as feeding:
        feeding.start_soon(_feed, source, process.stdin)
        async with open_tasks() as writing:
            writing.start_soon(_pump, process.stdout, STDOUT, write)
            writing.start_soon(_pump, process.stderr, STDERR, write)
        status = await process.wait()
        feeding.cancel_scope.cancel()
    return Outcome(exit_code=status & 0xFF)


async def _feed(source: ByteReceiver | None, stdin: ByteSendStream) -> None:
    """A broken source ends the guest's input as if it were whole: WASI 0.1 has no word for it."""
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, LatticeError):
        if source is not None:
            async for chunk in source:
                await stdin.send(chunk)
    with suppress(anyio.BrokenResourceError):
        await stdin.aclose()


async def _pump(pipe: ByteReceiveStream, stream: int, write: Write) -> None:
    async for chunk in pipe:
        try:
            await write(stream, chunk)
        except LatticeError as error:
            raise _NotWritten(error) from None
