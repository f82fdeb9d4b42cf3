"""Runs a folder of built WASI programs, each in a sandbox and a folder of its own, and prints a table.

    python -m tests.wasi_suite.run FOLDER [--only NAME...] [--wasmtime PATH]

Components (`wasi:cli/run`) run over the host functions of `node.capabilities.wasi` and `.http`, core
modules (WASI 0.1) in the process of their own that jobs run them in. A program passes when it ends without a
trap and with success; those named in `MUST_TRAP` pass when they trap with that text. With a wasmtime of the
same version each runs over its WASI too, to compare. How the programs are built is in docs/wasi-results.md;
none of them is part of this repository.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import anyio
import structlog
from anyio.abc import ByteReceiveStream

from lattice.errors import LatticeError
from node.capabilities.http import HttpClient, HttpSettings, OutgoingPolicy, http_interfaces
from node.capabilities.wasi import Exited, Folder, WasiSettings, parse_grants, wasi_interfaces
from node.capabilities.wasi.streams import LineOutput
from node.engine.compile_process import CompileLimits
from node.engine.compiler import Compiler
from node.engine.configuration import EngineSettings
from node.engine.engine import Engine
from node.engine.host import CallContext
from node.engine.limits import InstanceLimits
from node.engine.modules import ModuleCompiler
from node.engine.pool import ComponentPool
from node.engine.preview1 import ModuleProcess, ModuleRun, running
from tests.wasi_suite.echo import echo_server

RUN = "wasi:cli/run@0.2."
SECONDS = 60.0
GUEST_FOLDER = "/scratch"
FIXTURES_FOLDER = "/fs-tests.dir"
WITHOUT_FIXTURES = "no-access"
"""Programs with this in their name expect to find nothing there."""

MUST_TRAP = {
    "p2_pollable_traps": ("empty list", "empty poll list"),
    "p2_stream_pollable_traps": ("before the pollable", "resource has children"),
    "p2_udp_send_too_much": ("were permitted", "exceeds permitted size"),
}
"""What the programs that test a trap must end with, here and in wasmtime."""

GRANTS = (
    "tcp:127.0.0.0/8:*", "tcp:[::1]:*", "udp:127.0.0.0/8:*", "udp:[::1]:*", "listen:tcp:*", "listen:udp:*",
    "tcp:localhost:*", "tcp:*:*",
)  # fmt: skip

ENVIRONMENT = {"ERRNO_MODE_UNIX": "1"}
ENVIRONMENTS = {
    "as_environ_get-multiple-variables": {"a": "text", "b": 'escap " ing', "c": "new\nline"},
    "as_environ_sizes_get-multiple-variables": {"a": "text", "b": 'escap " ing', "c": "new\nline"},
    "as_environ_sizes_get-no-variables": {},
}
_THREE = ("first", 'the "second" arg', "3")
ARGUMENTS = {
    "as_args_get-multiple-arguments": _THREE,
    "as_args_sizes_get-multiple-arguments": _THREE,
    "as_args_sizes_get-no-arguments": (),
}
EXIT_STATUS = {"as_proc_exit-failure": 33}
ALLOWED_HOSTS = ("127.0.0.0/8", "203.0.113.0/24", "*")
MODULE_MAGIC = b"\0asm\1\0\0\0"
MODULE_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one program ended."""

    program: str
    passed: bool
    reason: str
    native: str = ""
    """How it ended in wasmtime, if that was asked for."""


class Suite:
    """One engine and its caches of compiled code for all programs."""

    def __init__(
        self, engine: Engine, cache: Path, client: HttpClient, server: str, wasmtime: Path | None
    ) -> None:
        """`server` is the authority of an echo server, which some programs ask for by `HTTP_SERVER`."""
        self._engine = engine
        self._compiler = Compiler(cache / "components", b"k" * 32)
        self._settings = EngineSettings()
        self._modules = ModuleCompiler(cache / "modules", b"k" * 32, CompileLimits(), self._settings)
        self._http = HttpSettings(client=client, policy_of=lambda call: OutgoingPolicy.parse(ALLOWED_HOSTS))
        self._server = server
        self._wasmtime = wasmtime

    async def run(self, path: Path) -> Outcome:
        """Run a program in an empty folder."""
        printed: list[bytes] = []
        artifact = await anyio.Path(path).read_bytes()
        run = self._run_module if artifact.startswith(MODULE_MAGIC) else self._run_component
        with tempfile.TemporaryDirectory() as scratch:
            try:
                with anyio.fail_after(SECONDS):
                    await run(path.stem, artifact, _folders(path, Path(scratch)), printed)
                status, reason = 0, ""
            except Exited as error:
                status, reason = error.status, f"exit status {error.status}"
            except (LatticeError, TimeoutError) as error:
                status, reason = -1, str(error) or "hangs"
        expected = MUST_TRAP.get(path.stem)
        passed = expected[0] in reason if expected else status == EXIT_STATUS.get(path.stem, 0)
        reason = "" if passed else (reason or "it did not trap") + _last_words(printed)
        return Outcome(program=path.stem, passed=passed, reason=reason, native=await self._compare(path))

    def _environment(self, program: str) -> dict[str, str]:
        if program in ENVIRONMENTS:
            return ENVIRONMENTS[program]
        return {**ENVIRONMENT, "HTTP_SERVER": self._server} if "http" in program else ENVIRONMENT

    async def _compare(self, path: Path) -> str:
        if self._wasmtime is None:
            return ""
        with tempfile.TemporaryDirectory() as scratch:
            options = ["-Sinherit-network,allow-ip-name-lookup"]
            options += ["-Shttp"] if "http" in path.stem else []
            options += [f"--dir={host}::{guest}" for guest, host in _folders(path, Path(scratch)).items()]
            options += [f"--env={name}={value}" for name, value in self._environment(path.stem).items()]
            command = [str(self._wasmtime), "run", *options, str(path), *_arguments(path.stem)]
            with anyio.move_on_after(SECONDS) as limit:
                done = await anyio.run_process(command, check=False, input=b"", stderr=subprocess.STDOUT)
            if limit.cancelled_caught:
                return "hangs"
        expected = MUST_TRAP.get(path.stem)
        if expected:
            return "pass" if expected[1].encode() in done.stdout else "fail"
        return "pass" if done.returncode == EXIT_STATUS.get(path.stem, 0) else "fail"

    async def _run_component(
        self, program: str, artifact: bytes, folders: dict[str, Path], printed: list[bytes]
    ) -> None:
        compiled = await self._compiler.compile(artifact)
        output = LineOutput(printed.append)
        settings = WasiSettings(
            arguments=(program, *_arguments(program)),
            environment=self._environment(program),
            folders=tuple(
                Folder(host_path=host, guest_path=guest, writable=True) for guest, host in folders.items()
            ),
            network=parse_grants(GRANTS),
            standard_output=output,
            standard_error=output,
            exact_exit=True,
        )
        pool = ComponentPool(
            self._engine,
            compiled,
            name=program,
            limits=InstanceLimits(),
            slots=1,
            imports=(*wasi_interfaces(settings), *http_interfaces(self._http)),
            sink=lambda call, stream, data: printed.append(data),
        )
        try:
            interface = next(name for name in compiled.type.exports if name.startswith(RUN))
            result = await pool.call(
                interface, "run", (), CallContext(deadline=anyio.current_time() + SECONDS)
            )
            if "err" in result:
                raise Exited(1)
        finally:
            await pool.aclose()

    async def _run_module(
        self, program: str, artifact: bytes, folders: dict[str, Path], printed: list[bytes]
    ) -> None:
        run = ModuleRun(
            module=await self._modules.compile(artifact),
            arguments=(program, *_arguments(program)),
            environment=self._environment(program),
            folders=tuple((str(host), guest, True) for guest, host in folders.items()),
            memory_bytes=MODULE_MEMORY_BYTES,
        )
        async with running(run, self._settings) as process:
            if status := await _converse(process, printed):
                raise Exited(status)


async def _converse(process: ModuleProcess, printed: list[bytes]) -> int:
    """The exit status, after all that it prints; its standard input is empty."""
    await process.stdin.aclose()
    async with anyio.create_task_group() as tasks:
        for stream in (process.stdout, process.stderr):
            tasks.start_soon(_collect, stream, printed)
    return await process.wait()


async def _collect(stream: ByteReceiveStream, printed: list[bytes]) -> None:
    printed.extend([chunk async for chunk in stream])


def _arguments(program: str) -> tuple[str, ...]:
    return ARGUMENTS.get(program, (GUEST_FOLDER,))


def _folders(program: Path, scratch: Path) -> dict[str, Path]:
    """The folders of a program: an empty one, and one with what the programs in C look for."""
    empty, fixtures = scratch / "scratch", scratch / "fixtures"
    for folder in (empty, fixtures, fixtures / "fopendir.dir", fixtures / "writeable"):
        folder.mkdir()
    for name in ("file", "fopendir.dir/file-0", "fopendir.dir/file-1"):
        (fixtures / name).write_bytes(b"text")
    (fixtures / "lseek.txt").write_bytes(b"01234567")
    (fixtures / "pread.txt").write_bytes(b"pread-testing")
    folders = {GUEST_FOLDER: empty, FIXTURES_FOLDER: fixtures}
    if program.stem.endswith("lseek"):
        folders["/"] = fixtures  # it opens its file where it is
    return {GUEST_FOLDER: empty} if WITHOUT_FIXTURES in program.stem else folders


def _last_words(printed: list[bytes]) -> str:
    words = b" ".join(printed).decode(errors="replace").replace("\n", " ").strip()
    return f" ({words[-300:]})" if words else ""


async def run_all(paths: list[Path], wasmtime: Path | None) -> list[Outcome]:
    """All programs, one after the other."""
    with tempfile.TemporaryDirectory() as cache:
        async with Engine() as engine, HttpClient() as client, echo_server() as server:
            suite = Suite(engine, Path(cache), client, server, wasmtime)
            return [await suite.run(path) for path in paths]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--wasmtime", type=Path)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    paths = sorted(options.folder.glob("*.wasm"))
    chosen = [path for path in paths if not options.only or path.stem in options.only]
    outcomes = anyio.run(run_all, chosen, options.wasmtime)
    passed = sum(outcome.passed for outcome in outcomes)
    words = {True: "pass", False: "fail"}
    rows = [
        f"| `{outcome.program}` | {words[outcome.passed]} | {outcome.native} | {outcome.reason} |\n"
        for outcome in outcomes
    ]
    sys.stdout.writelines(["| program | here | wasmtime | why |\n| --- | --- | --- | --- |\n", *rows])
    sys.stderr.write(f"\n{passed} of {len(outcomes)} pass\n")
    return 0 if passed == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
