"""Runs a folder of built WASI programs, each in a sandbox and a folder of its own, and prints a table.

    python -m tests.wasi_suite.run FOLDER [--only NAME...] [--wasmtime PATH]

Components (`wasi:cli/run`) run over the host functions of `node.capabilities.wasi`. A program passes when it
ends without a trap and with success; those named in `MUST_TRAP` pass when they trap with that text. With a
wasmtime of the same version each runs over its WASI too, to compare. How the programs are built is in
docs/wasi-results.md; none of them is part of this repository.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import anyio

from lattice.errors import LatticeError
from node.capabilities.wasi import Exited, Folder, WasiSettings, parse_grants, wasi_interfaces
from node.capabilities.wasi.streams import LineOutput
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.host import CallContext
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool

RUN = "wasi:cli/run@0.2."
SECONDS = 60.0
GUEST_FOLDER = "/scratch"
FIXTURES_FOLDER = "/fs-tests.dir"
WITHOUT_FIXTURES = "no-access"
"""Programs with this in their name expect to find nothing there."""

MUST_TRAP = {
    "p2_pollable_traps": ("empty list", "empty poll list"),
    "p2_stream_pollable_traps": ("resource has children", "resource has children"),
    "p2_udp_send_too_much": ("were permitted", "exceeds permitted size"),
}
"""What the programs that test a trap must end with, here and in wasmtime."""

GRANTS = (
    "tcp:127.0.0.0/8:*", "tcp:[::1]:*", "udp:127.0.0.0/8:*", "udp:[::1]:*", "listen:tcp:*", "listen:udp:*",
    "tcp:localhost:*", "tcp:*:*",
)  # fmt: skip

ENVIRONMENT = {"ERRNO_MODE_UNIX": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one program ended."""

    program: str
    passed: bool
    reason: str
    native: str = ""
    """How it ended in wasmtime, if that was asked for."""


class Suite:
    """One engine and one cache of compiled code for all programs."""

    def __init__(self, engine: Engine, compiler: Compiler, wasmtime: Path | None) -> None:
        self._engine = engine
        self._compiler = compiler
        self._wasmtime = wasmtime

    async def run(self, path: Path) -> Outcome:
        """Run a program in an empty folder."""
        printed: list[bytes] = []
        with tempfile.TemporaryDirectory() as scratch:
            try:
                await self._run(path, Path(scratch), printed)
                reason = ""
            except Exited as error:
                reason = "" if error.status == 0 else f"exit status {error.status}"
            except LatticeError as error:
                reason = str(error)
        expected = MUST_TRAP.get(path.stem)
        passed = expected[0] in reason if expected else not reason
        if not passed:
            reason = (reason or "it did not trap") + _last_words(printed)
        return Outcome(program=path.stem, passed=passed, reason=reason, native=await self._compare(path))

    async def _compare(self, path: Path) -> str:
        if self._wasmtime is None:
            return ""
        with tempfile.TemporaryDirectory() as scratch:
            folders = _folders(path, Path(scratch))
            options = ["-Sinherit-network,allow-ip-name-lookup"]
            options += [f"--dir={host}::{guest}" for guest, host in folders.items()]
            settings = [f"--env={name}={value}" for name, value in ENVIRONMENT.items()]
            command = [str(self._wasmtime), "run", *options, *settings, str(path), GUEST_FOLDER]
            with anyio.move_on_after(SECONDS) as limit:
                done = await anyio.run_process(command, check=False, stderr=subprocess.STDOUT)
            if limit.cancelled_caught:
                return "hangs"
        expected = MUST_TRAP.get(path.stem)
        passed = expected[1].encode() in done.stdout if expected else not done.returncode
        return "pass" if passed else "fail"

    async def _run(self, path: Path, scratch: Path, printed: list[bytes]) -> None:
        compiled = await self._compiler.compile(await anyio.Path(path).read_bytes())
        output = LineOutput(printed.append)
        settings = WasiSettings(
            arguments=(path.stem, GUEST_FOLDER),
            environment=ENVIRONMENT,
            folders=tuple(
                Folder(host_path=host, guest_path=guest, writable=True)
                for guest, host in _folders(path, scratch).items()
            ),
            network=parse_grants(GRANTS),
            standard_output=output,
            standard_error=output,
            exact_exit=True,
        )
        pool = ComponentPool(
            self._engine,
            compiled,
            name=path.stem,
            limits=InstanceLimits(),
            slots=1,
            imports=wasi_interfaces(settings),
            sink=lambda call, stream, data: printed.append(data),
        )
        try:
            interface = next(name for name in compiled.type.exports if name.startswith(RUN))
            context = CallContext(deadline=anyio.current_time() + SECONDS)
            result = await pool.call(interface, "run", (), context)
            if "err" in result:
                raise Exited(1)
        finally:
            await pool.aclose()


def _folders(program: Path, scratch: Path) -> dict[str, Path]:
    """The folders of a program: an empty one, and one with what the programs in C look for."""
    empty, fixtures = scratch / "scratch", scratch / "fixtures"
    for folder in (empty, fixtures, fixtures / "fopendir.dir", fixtures / "writeable"):
        folder.mkdir()
    for name in ("file", "lseek.txt", "fopendir.dir/file-0", "fopendir.dir/file-1"):
        (fixtures / name).write_bytes(b"text")
    (fixtures / "pread.txt").write_bytes(b"pread-testing")
    folders = {GUEST_FOLDER: empty, FIXTURES_FOLDER: fixtures}
    return {GUEST_FOLDER: empty} if WITHOUT_FIXTURES in program.stem else folders


def _last_words(printed: list[bytes]) -> str:
    words = b" ".join(printed).decode(errors="replace").replace("\n", " ").strip()
    return f" ({words[-300:]})" if words else ""


async def run_all(paths: list[Path], wasmtime: Path | None) -> list[Outcome]:
    """All programs, one after the other."""
    with tempfile.TemporaryDirectory() as cache:
        async with Engine() as engine:
            suite = Suite(engine, Compiler(Path(cache), b"k" * 32), wasmtime)
            return [await suite.run(path) for path in paths]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--wasmtime", type=Path)
    options = parser.parse_args()
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
