"""Runs the programs of wasmtime's tests of its command line, by `latticectl run` and by `wasmtime run`.

    python -m tests.wasi_suite.commands FOLDER [--only NAME...] [--wasmtime PATH]

Each ends as its case in `CASES` says, or it fails. Core modules in FOLDER run as what they are. How the
programs are built is in docs/wasi-results.md; none of them is part of this repository.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from tests.e2e.processes import LATTICECTL, Lattice

SECONDS = 60.0
TRAPPED = 134
HOST_TRAPPED = 1
"""What wasmtime ends with when a function of its own traps."""
TIMED_OUT = 124
TEXT = "So rested he by the Tumtum tree"
THOUGHT = {"bar.txt": b"And stood awhile in thought"}
TOVES = {"bar.txt": b"'Twas brillig, and the slithy toves.\n"}
APPENDED = (
    b"'Twas brillig, and the slithy toves.\nDid gyre and gimble in the wabe;\n"
    b"All mimsy were the borogoves,\nAnd the mome raths outgrabe.\n"
)
LISTED = {"foo.txt": b"", "bar.txt": b"", "baz.txt": b"", "sub/wow.txt": b"", "sub/yay.txt": b""}
FUEL = "fuel allocated for hostcalls has been exhausted"
LARGE = {f"KEY{index}": "x" * 1024 for index in range(512)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a program is given, and how it must end."""

    program: str
    label: str = ""
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    given: bytes = b""
    files: Mapping[str, bytes] | None = None
    """What a folder of its own has in it; None for no folder."""
    paths: tuple[str, ...] = ("/",)
    """Where the program finds that folder."""
    is_writable: bool = True
    options: tuple[str, ...] = ()
    native_options: tuple[str, ...] = ()
    code: int = 0
    native_code: int | None = None
    """Its exit code in wasmtime where that differs: how traps and timeouts are told is the host's affair."""
    output: bytes | None = None
    says: str = ""
    """What its standard error has in it, here."""
    native_says: str = ""
    left: Mapping[str, bytes] = field(default_factory=dict)
    """What files hold afterwards."""
    is_prompt: bool = False
    """Whether its input stays open until it has written a prompt."""

    @property
    def name(self) -> str:
        return f"{self.program} {self.label}".strip()


def _much(program: str) -> list[Case]:
    total = 1 << 18
    return [
        Case(
            program=program,
            label=str(1 << shift),
            arguments=("a" * (1 << shift), str(total >> shift)),
            output=b"a" * total,
        )
        for shift in range(10, 15)
    ]


CASES = (
    Case(program="p2_cli_hello_stdout", output=b"hello, world\n", says="hello, world"),
    Case(program="p2_cli_args", arguments=("hello", "this", "", "is an argument", "with 🚩 emoji")),
    Case(
        program="p2_cli_argv0",
        label="a",
        arguments=("a",),
        options=("--name", "a"),
        native_options=("--argv0=a",),
    ),
    Case(
        program="p2_cli_argv0",
        label="foo-wasm",
        arguments=("foo-wasm",),
        options=("--name", "foo-wasm"),
        native_options=("--argv0=foo-wasm",),
    ),
    Case(program="p2_cli_stdin_empty", given=b"not to be read"),
    Case(program="p2_cli_stdin", given=TEXT.encode()),
    Case(
        program="p2_cli_splice_stdin",
        given=TEXT.encode(),
        output=f"before splice\n{TEXT}\ncompleted splicing {len(TEXT)} bytes\n".encode(),
    ),
    Case(program="p2_cli_env", environment={"frabjous": "day", "callooh": "callay"}),
    Case(program="p2_cli_large_env", environment=LARGE),
    Case(program="p2_cli_file_read", files=THOUGHT),
    Case(program="p2_cli_file_append", files=TOVES, left={"bar.txt": APPENDED}),
    Case(program="p2_cli_file_dir_sync", files=TOVES),
    Case(program="p2_cli_directory_list", files=LISTED),
    Case(program="p2_cli_multiple_preopens", files={}, paths=("/a", "/b", "/c")),
    Case(program="p2_cli_exit_success"),
    Case(program="p2_cli_exit_default"),
    Case(program="p2_cli_exit_failure", code=1),
    Case(program="p2_cli_exit_with_code", code=42, native_options=("-Scli-exit-with-code",)),
    Case(
        program="p2_cli_exit_panic",
        code=TRAPPED,
        says="Curiouser and curiouser!",
        native_says="Curiouser and curiouser!",
    ),
    Case(program="p2_cli_default_clocks"),
    Case(program="p2_cli_export_cabi_realloc", output=b"hello, world\n"),
    Case(program="p2_cli_stdio_write_flushes", output=b"> ", is_prompt=True),
    Case(
        program="p2_cli_no_tcp",
        options=("--network", "udp:127.0.0.1:*"),
        native_options=("-Sinherit-network,tcp=no",),
    ),
    Case(
        program="p2_cli_no_udp",
        options=("--network", "tcp:127.0.0.1:*"),
        native_options=("-Sinherit-network,udp=no",),
    ),
    Case(
        program="p2_cli_no_ip_name_lookup",
        options=("--network", "tcp:127.0.0.1:*"),
        native_options=("-Sinherit-network,allow-ip-name-lookup=no",),
    ),
    Case(program="p2_cli_sleep"),
    Case(
        program="p2_cli_sleep_forever",
        options=("--timeout", "1s"),
        code=TIMED_OUT,
        native_options=("-Wtimeout=250ms",),
        native_code=TRAPPED,
        native_says="interrupt",
    ),
    Case(
        program="p2_cli_stream_pollable_lifetimes",
        label="correct",
        arguments=("correct",),
    ),
    Case(
        program="p2_cli_stream_pollable_lifetimes",
        label="trap",
        arguments=("trap",),
        code=TRAPPED,
        native_code=HOST_TRAPPED,
        says="before the pollable",
        native_says="resource has children",
    ),
    Case(
        program="p2_cli_many_resources",
        code=TRAPPED,
        native_code=HOST_TRAPPED,
        says="wants more",
        native_says="limit exceeded",
    ),
    Case(program="p2_cli_max_resources", label="200", native_options=("-Smax-resources=200",)),
    *(
        Case(
            program="p2_cli_http_headers",
            label=word,
            arguments=(word,),
            code=TRAPPED,
            native_code=HOST_TRAPPED,
            native_options=("-Shttp", "-Smax-http-fields-size=1048576"),
            says="header fields have more than",
            native_says="fields exceeds limit",
        )
        for word in ("append", "append-empty", "append-same", "append-same-empty")
    ),
    *_much("p1_cli_much_stdout"),
    *_much("p2_cli_much_stdout"),
    *(
        Case(
            program="p2_cli_hostcall_fuel",
            label=word,
            arguments=(word,),
            files={"1mb": bytes(1 << 20)},
            options=(
                "--network",
                "tcp:127.0.0.1:*",
                "--network",
                "listen:tcp:*",
                "--network",
                "listen:udp:*",
                "--network",
                "udp:127.0.0.1:*",
            ),
            native_options=("-Shostcall-fuel=5000", "-Sinherit-network"),
            code=TRAPPED if native_says else 0,
            native_code=HOST_TRAPPED if native_says else 0,
            says=says,
            native_says=native_says,
        )
        for word, says, native_says in (
            ("read", "", ""),
            ("read-file-big", "", ""),
            ("read-tcp-big", "", ""),
            *(
                (word, says, FUEL)
                for word, says in (
                    ("poll", "at most 1024"),
                    ("write", FUEL),
                    ("mkdir", FUEL),
                    ("write-stream", "check-write"),
                    ("write-stream-blocking", "allows 4096"),
                    ("resolve", FUEL),
                    ("udp-send-many", "check-send"),
                    ("udp-send-big", "check-send"),
                )
            ),
            ("write-zeroes", "check-write", "cannot write more zeroes than"),
            ("write-stream-buffer-too-large", "allows 4096", "Buffer too large"),
            ("write-zeroes-buffer-too-large", "allows 4096", "Buffer too large"),
        )
    ),
    Case(program="p1_cli_hostcall_fuel", files={}, native_options=("-Shostcall-fuel=1000",)),
    Case(program="p2_pollable_correct"),
    Case(program="p2_clocks_zero_wait"),
    Case(
        program="p2_tcp_busy_poll",
        options=("--network", "tcp:127.0.0.1:*", "--network", "tcp:[::1]:*", "--network", "listen:tcp:*"),
        native_options=("-Sinherit-network",),
    ),
    Case(
        program="p2_file_truncation_readonly",
        files={"test.txt": b"truncation test file\n"},
        paths=("/readonly",),
        is_writable=False,
        left={"test.txt": b"truncation test file\n"},
    ),
    Case(
        program="p1_file_truncation_readonly",
        files={"test.txt": b"truncation test file\n"},
        paths=("/readonly",),
        is_writable=False,
        left={"test.txt": b"truncation test file\n"},
    ),
    Case(program="p2_api_read_only", files={**THOUGHT, "sub/.keep": b""}, is_writable=False),
    Case(program="p2_api_time"),
)


_FRAME = re.compile(r"\s+(\d+|at)\b|Stack backtrace|Caused by")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    code: int
    output: bytes
    error: str


def judge(case: Case, ended: Ended, folder: Path, *, is_native: bool) -> str:
    """What is wrong with how it ended; empty if nothing is."""
    code = case.native_code if is_native and case.native_code is not None else case.code
    says = case.native_says if is_native else case.says
    last = " ".join(line for line in ended.error.splitlines() if not _FRAME.match(line))[-400:]
    if ended.code != code:
        return f"exit code {ended.code}, not {code} ({last})"
    if case.output is not None and ended.output != case.output:
        return f"it wrote {ended.output[:200]!r}"
    if says not in ended.error:
        return f"it does not say {says!r} ({last})"
    for name, content in case.left.items():
        if (folder / name).read_bytes() != content:
            return f"{name} has changed to {(folder / name).read_bytes()!r}"
    return ""


def fill(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder hold these files and no others."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


async def execute(command: list[str], case: Case, environment: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end with the case's input."""
    try:
        with anyio.fail_after(SECONDS):
            if case.is_prompt:
                return await _prompted(command, environment)
            done = await anyio.run_process(command, input=case.given, check=False, env=environment)
    except TimeoutError:
        return Ended(-1, b"", "it hangs")
    return Ended(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


async def _prompted(command: list[str], environment: Mapping[str, str] | None) -> Ended:
    async with await anyio.open_process(command, stderr=subprocess.STDOUT, env=environment) as process:
        assert process.stdin is not None and process.stdout is not None
        prompt = await process.stdout.receive()
        await process.stdin.aclose()
        rest = b"".join([chunk async for chunk in process.stdout])
        return Ended(await process.wait(), prompt + rest, "")


def native_command(binary: Path, file: Path, case: Case, folder: Path) -> list[str]:
    """How wasmtime is asked to run the case: its library if a folder is only to be read."""
    if case.files is not None and not case.is_writable:
        return [sys.executable, "-m", "tests.wasi_suite.embedded", str(file), str(folder), *case.paths]
    options = [*case.native_options]
    options += [f"--env={name}={value}" for name, value in case.environment.items()]
    if case.files is not None:
        options += [f"--dir={folder}::{path}" for path in case.paths]
    return [str(binary), "run", *options, str(file), *case.arguments]


def own_command(file: Path, case: Case, folder: str) -> list[str]:
    """How the lattice is asked to run the case; the folder by the name that the node opened it under."""
    options = ["--memory", "256MiB", *case.options]
    for name, value in case.environment.items():
        options += ["--env", f"{name}={value}"]
    if case.files is not None:
        for path in case.paths:
            options += ["--folder", f"{folder}:{path}{':rw' if case.is_writable else ''}"]
    return [*LATTICECTL, "run", *options, str(file), *case.arguments]


async def run_all(programs: Path, only: list[str], binary: Path | None) -> list[tuple[Case, str, str]]:
    """Each case that there is a program for, with what is wrong with it here and in wasmtime."""
    cases = [case for case in CASES if (programs / f"{case.program}.wasm").exists()]
    cases = [case for case in cases if not only or case.program in only]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        opened: list[str] = []
        for index, case in enumerate(cases):
            for side in ("own", "native"):
                (root / f"{side}{index}").mkdir()
                fill(root / f"{side}{index}", case.files or {})
            opened += ["--folder", f"f{index}={root / f'own{index}'}" + (":rw" if case.is_writable else "")]
        (root / "state").mkdir()
        async with Lattice(root / "state", "suite") as lattice:
            await lattice.add("one", options=tuple(opened))
            found = []
            for index, case in enumerate(cases):
                file = programs / f"{case.program}.wasm"
                ended = await execute(own_command(file, case, f"f{index}"), case, lattice.environment)
                here = judge(case, ended, root / f"own{index}", is_native=False)
                there = ""
                if binary is not None:
                    command = native_command(binary, file, case, root / f"native{index}")
                    there = judge(case, await execute(command, case), root / f"native{index}", is_native=True)
                found.append((case, here, there))
                sys.stdout.write(f"| `{case.name}` | {here or 'pass'} | {there or 'pass'} |\n")
                sys.stdout.flush()
            return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--wasmtime", type=Path)
    options = parser.parse_args()
    found = anyio.run(run_all, options.folder, options.only, options.wasmtime)
    failed = [case for case, here, _ in found if here]
    sys.stderr.write(f"\n{len(found) - len(failed)} of {len(found)} pass\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
