"""Runs one compile worker and turns its end, however it ends, into a value or a clear error."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream, Process

from lattice.errors import Failed, Invalid, LatticeError
from node.engine.compiled import Form
from node.engine.configuration import EngineSettings

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30

_MAX_ANSWER_BYTES = 32 * MEBIBYTE
_MAX_COMPLAINT_BYTES = 4096
_MAX_THREADS = 4
_SHAPING = ("wasm_stack_bytes", "fiber_stack_bytes")

Progress = Callable[[str], None]
"""Told each phase as it begins: `describe`, `compile`, `store`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileLimits:
    """What compiling one component may use; the defaults let a 60 MB component of an interpreter through."""

    artifact_bytes: int = 128 * MEBIBYTE
    code_bytes: int = 512 * MEBIBYTE
    """The compiled form, about twice the size of the component."""
    memory_bytes: int = 2 * GIBIBYTE
    """Writable memory of the worker process; about 25 times the size of the component's code."""
    cpu_seconds: int = 60
    """Over all threads of the worker; 10 MB of component take about 5 s."""
    wall_seconds: float = 90.0
    concurrent: int = 1
    """Compilations at once on a node; more wait."""
    cache_bytes: int = 4 * GIBIBYTE
    """Compiled code kept on disk; the least recently used goes first."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if getattr(self, item.name) <= 0:
                raise Invalid(f"compile limit {item.name} must be above 0, not {getattr(self, item.name)}")

    def check_size(self, size: int) -> None:
        """Raise `Invalid` when an artifact of `size` bytes is too large to be looked at."""
        if size > self.artifact_bytes:
            raise Invalid(
                f"the file has {size} bytes, more than the {self.artifact_bytes} allowed: strip its debug "
                "information, or raise the limit artifact_bytes"
            )


async def run_worker(
    artifact: bytes,
    limits: CompileLimits,
    settings: EngineSettings,
    *,
    output: Path | None,
    progress: Progress | None = None,
    is_module: bool = False,
    form: Form = Form.PLAIN,
) -> dict[str, Any]:
    """Describe, and with `output` also compile, a component or a core module in a process of its own.

    Raises `Invalid` when the component is at fault (also when it exceeds a limit), `Failed` otherwise. The
    process is killed when the caller is cancelled.
    """
    with anyio.move_on_after(limits.wall_seconds):
        async with await _start() as process:
            request = _request(artifact, limits, settings, output, is_module, form)
            return await _converse(process, request, artifact, limits, progress)
    raise Invalid(
        f"compiling takes longer than {limits.wall_seconds:g} s: make the component smaller, "
        "or raise the limit wall_seconds"
    )


async def _start() -> Process:
    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    command = [sys.executable, "-I", "-m", "node.engine.compile_worker"]
    try:
        return await anyio.open_process(
            command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, cwd="/", env={"RAYON_NUM_THREADS": str(threads)}
        )
    except OSError as error:
        raise Failed(f"the compile process can't be started: {error}") from error


def _request(
    artifact: bytes,
    limits: CompileLimits,
    settings: EngineSettings,
    output: Path | None,
    is_module: bool,
    form: Form,
) -> bytes:
    request = {
        "size": len(artifact),
        "limits": asdict(limits),
        "settings": shaping(settings),
        "output": str(output) if output else None,
        "is_module": is_module,
        "form": form.value,
    }
    return json.dumps(request).encode() + b"\n"


def shaping(settings: EngineSettings) -> dict[str, int]:
    """Those of the engine's settings that compiled code depends on; the others size pools."""
    return {name: getattr(settings, name) for name in _SHAPING}


async def _converse(
    process: Process, request: bytes, artifact: bytes, limits: CompileLimits, progress: Progress | None
) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        await process.stdin.send(request)
        await process.stdin.send(artifact)
    except (anyio.BrokenResourceError, OSError):
        pass  # it died early: its exit status tells why
    answer, complaint = await _read_answer(process.stdout, progress)
    status = await process.wait()
    if answer is None:
        raise _died(status, complaint, limits)
    return _result(answer, limits)


async def _read_answer(
    stream: ByteReceiveStream, progress: Progress | None
) -> tuple[dict[str, Any] | None, str]:
    """The answer, if any, and the last other line: what the runtime wrote when it aborted."""
    buffer = bytearray()
    read = 0
    answer: dict[str, Any] | None = None
    complaint = ""
    async for chunk in stream:
        read += len(chunk)
        if read > _MAX_ANSWER_BYTES:
            raise Invalid("the component's description is too large: simplify its interfaces")
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            if not line.startswith(b"{"):
                complaint = _complaint(bytes(line)) or complaint
                continue
            message = json.loads(line)
            if "phase" not in message:
                answer = message
            elif progress is not None:
                progress(message["phase"])
    return answer, complaint


def _complaint(line: bytes) -> str:
    """A line of what the runtime writes when it aborts; hints for its own developers are left out."""
    text = line[:_MAX_COMPLAINT_BYTES].decode(errors="replace").strip()
    return "" if text.startswith("note:") else text


def _result(answer: Mapping[str, Any], limits: CompileLimits) -> dict[str, Any]:
    if "done" in answer:
        return dict(answer["done"])
    if "invalid" in answer:
        raise Invalid(answer["invalid"])
    match answer["failed"]:
        case "memory":
            raise _too_much_memory(limits)
        case "EFBIG":
            raise Invalid(
                f"the compiled code would exceed {limits.code_bytes} bytes: make the component smaller, "
                "or raise the limit code_bytes"
            )
        case "ENOSPC" | "EDQUOT":
            raise Failed("the disk is full: the compiled code can't be stored; free space in the data folder")
        case "EROFS" | "EACCES" | "EPERM":
            raise Failed(f"the data folder can't be written: {answer['message']}; make it writable")
    raise Failed(f"compiling failed: {answer['message']}")


def _died(status: int, complaint: str, limits: CompileLimits) -> LatticeError:
    if status == -signal.SIGXCPU:
        return Invalid(
            f"compiling takes more than {limits.cpu_seconds} s of processor time: make the component "
            "smaller, or raise the limit cpu_seconds"
        )
    if "memory" in complaint.lower():
        return _too_much_memory(limits)
    if status in (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS):
        reason = f" ({complaint})" if complaint else ""
        return Invalid(f"the compiler breaks off at this component{reason}: simplify its largest functions")
    if status == -signal.SIGKILL:
        return Failed("the compile process was killed, perhaps because this machine has no memory left")
    return Failed(f"the compile process ended with status {status}: {complaint or 'no message'}")


def _too_much_memory(limits: CompileLimits) -> Invalid:
    return Invalid(
        f"compiling takes more than {limits.memory_bytes >> 20} MiB of memory: make the component smaller, "
        "or raise the limit memory_bytes"
    )
