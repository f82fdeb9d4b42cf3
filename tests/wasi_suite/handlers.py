"""Runs the programs that wasmtime's tests serve: in a lattice, by shim and by host functions, and natively.

    python -m tests.wasi_suite.handlers FOLDER [--only NAME...] [--wasmtime PATH]

Each answers as the check of its case in `CASES` wants, or it fails. How the programs are built is in
docs/wasi-results.md; none of them is part of this repository.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import anyio
from anyio import to_thread
from anyio.abc import ByteReceiveStream

from lattice import subjects
from providers.keyvalue.nats import escape
from tests.e2e.processes import Lattice, until

LINES = {"/a": "'Twas brillig, and the slithy toves", "/b": "Did gyre and gimble in the wabe:",
         "/c": "All mimsy were the borogoves,", "/d": "And the mome raths outgrabe."}  # fmt: skip
MEGABYTE = bytes((251 * (index + 1)) % 256 for index in range(1 << 20))
ANSWER_SECONDS = 30.0
LOG_SECONDS = 5.0
_ADDRESS = re.compile(rb"http://(127\.0\.0\.1:\d+)/")


class Peer(BaseHTTPRequestHandler):
    """What the programs send to: the lines by their paths, and an echo."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        line = LINES.get(self.path, "")
        self._answer(200 if line else 405, line.encode())

    def do_POST(self) -> None:
        """Answer before the body is there, and send it back as it comes: some programs wait for the head."""
        self.send_response(200 if self.path == "/echo" else 405)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while size := int(self.rfile.readline(), 16):
            self.wfile.write(b"%x\r\n%b" % (size, self.rfile.read(size + 2)))
        self.rfile.readline()
        self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def peer_server() -> Iterator[str]:
    """Serve on a free port, on threads; the authority to send to."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Peer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    fields: Mapping[str, str]
    body: bytes


def ask(
    authority: str,
    method: str = "GET",
    path: str = "/",
    body: bytes | list[bytes] | None = None,
    *fields: tuple[str, str],
) -> Answer:
    """One request over a connection of its own; the host that it names may be among the fields."""
    return ask_over(HTTPConnection(authority, timeout=ANSWER_SECONDS), method, path, body, *fields)


def ask_over(
    connection: HTTPConnection,
    method: str,
    path: str,
    body: bytes | list[bytes] | None,
    *fields: tuple[str, str],
) -> Answer:
    """One request; a body in pieces is sent chunked."""
    named = {name for name, _ in fields}
    connection.putrequest(method, path, skip_host="host" in named, skip_accept_encoding=True)
    if isinstance(body, list):
        fields = (*fields, ("transfer-encoding", "chunked"))
    for name, value in fields:
        connection.putheader(name, value)
    connection.endheaders(body, encode_chunked=isinstance(body, list))
    response = connection.getresponse()
    return Answer(
        response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    )


Check = Callable[[str, str], None]
"""Asks a server at an authority, with a peer at another; raises `AssertionError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A handler, what it is given, and what must come of it."""

    program: str
    label: str = ""
    check: Check
    options: tuple[str, ...] = ()
    native_options: tuple[str, ...] = ("-Scli",)
    log: str = ""
    """What its log must have in it, here."""
    is_native: bool = True
    """Whether `wasmtime serve` can give it what it needs."""

    @property
    def name(self) -> str:
        return f"{self.program} {self.label}".strip()


def expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"{found!r}, not {wanted!r}"[:300])


def _hello(authority: str, peer: str) -> None:
    def connection() -> None:
        kept = HTTPConnection(authority, timeout=ANSWER_SECONDS)
        for _ in range(5):
            found = ask_over(kept, "GET", "/", None)
            results.append((found.status, found.body))

    results: list[tuple[int, bytes]] = []
    threads = [Thread(target=connection) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(len(results), 100)
    expect(set(results), {(200, b"Hello, WASI!")})


def _environment(authority: str, peer: str) -> None:
    found = ask(authority, "GET", "/", None, ("env", "FOO"))
    expect((found.status, found.fields.get("env"), found.body), (200, "bar", b""))
    found = ask(authority, "GET", "/", None, ("env", "BAR"))
    expect((found.status, found.fields.get("env"), found.body), (200, None, b""))


def _good(authority: str, peer: str) -> None:
    for _ in range(2):
        expect(ask(authority).status, 200)


def _authority(authority: str, peer: str) -> None:
    expect(ask(authority, "GET", "/", None, ("host", "localhost")).status, 200)


def _connect(authority: str, peer: str) -> None:
    expect(ask(authority, "CONNECT", "http://localhost/", None, ("host", "localhost")).status, 200)


def _server_error(authority: str, peer: str) -> None:
    for _ in range(2):
        status = ask(authority).status
        expect(status // 100, 5)


def _world(authority: str, peer: str) -> None:
    found = ask(authority)
    expect((found.status, found.body), (200, b"world"))


def _hash_all(authority: str, peer: str) -> None:
    found = ask(authority, "GET", "/hash-all", None, *(("url", f"http://{peer}{path}") for path in LINES))
    sums = {
        path: base64.b64encode(hashlib.sha256(line.encode()).digest()).rstrip(b"=")
        for path, line in LINES.items()
    }
    expect(found.status, 200)
    expect(
        sorted(found.body.splitlines()),
        sorted(f"http://{peer}{path}: ".encode() + sum_ for path, sum_ in sums.items()),
    )


def _hash_denied(authority: str, peer: str) -> None:
    found = ask(
        authority, "GET", "/hash-all", None, ("url", "http://forbidden.com"), ("url", f"http://{peer}/a")
    )
    said = {line.split(b": ")[0]: line for line in found.body.splitlines()}
    expect(b"HttpRequestDenied" in said[b"http://forbidden.com/"], True)
    expect(b"HttpRequestDenied" in said[f"http://{peer}/a".encode()], False)


def _echo(authority: str, peer: str) -> None:
    chunks = [MEGABYTE[start : start + 16384] for start in range(0, len(MEGABYTE), 16384)]
    found = ask(authority, "POST", "/echo", chunks, ("content-type", "application/octet-stream"))
    expect((found.status, found.fields["content-type"]), (200, "application/octet-stream"))
    expect(found.body == MEGABYTE, True)


def _double_echo(authority: str, peer: str) -> None:
    chunks = [MEGABYTE[start : start + 16384] for start in range(0, len(MEGABYTE), 16384)]
    found = ask(
        authority,
        "POST",
        "/double-echo",
        chunks,
        ("content-type", "application/octet-stream"),
        ("url", f"http://{peer}/echo"),
    )
    expect((found.status, found.fields["content-type"]), (200, "application/octet-stream"))
    expect(found.body == MEGABYTE, True)


def _refused(authority: str, peer: str) -> None:
    expect(ask(authority, "POST", "/double-echo", b"", ("content-length", "0")).status, 400)
    expect(ask(authority, "GET", "/other").status, 405)


def _forwarded(authority: str, peer: str) -> None:
    found = ask(authority, "GET", "/b", None, ("host", peer))
    expect((found.status, found.body), (200, LINES["/b"].encode()))


HOSTS = ("--allow-host", "127.0.0.0/8")
CASES = (
    Case(program="p2_cli_serve_hello_world", check=_hello),
    Case(
        program="p2_cli_serve_echo_env",
        check=_environment,
        options=("--env", "FOO=bar"),
        native_options=("-Scli", "--env=FOO=bar"),
    ),
    Case(program="p2_cli_serve_with_print", check=_good, log="start a print 1234"),
    Case(program="p2_cli_serve_authority_and_scheme", label="GET", check=_authority),
    Case(program="p2_cli_serve_authority_and_scheme", label="CONNECT", check=_connect),
    Case(program="p2_cli_serve_return_before_set", check=_server_error),
    Case(program="p2_cli_serve_trap_before_set", check=_server_error),
    Case(
        program="p2_cli_serve_sleep",
        check=_server_error,
        options=("--deadline", "1s"),
        native_options=("-Scli", "-Wtimeout=1s"),
    ),
    Case(
        program="p2_cli_serve_config",
        check=_world,
        options=("--config", "hello=world"),
        native_options=("-Scli", "-Sconfig", "-Sconfig-var=hello=world"),
    ),
    Case(
        program="p2_cli_serve_keyvalue",
        check=_world,
        options=("--link", "wasi:keyvalue=keyvalue-nats"),
        native_options=("-Scli", "-Skeyvalue", "-Skeyvalue-in-memory-data=hello=world"),
    ),
    Case(program="p2_api_proxy_streaming", label="hash-all", check=_hash_all, options=HOSTS),
    Case(
        program="p2_api_proxy_streaming", label="reject", check=_hash_denied, options=HOSTS, is_native=False
    ),
    Case(program="p2_api_proxy_streaming", label="echo", check=_echo),
    Case(program="p2_api_proxy_streaming", label="double-echo", check=_double_echo, options=HOSTS),
    Case(program="p2_api_proxy_streaming", label="others", check=_refused),
    Case(program="p2_api_forward", check=_forwarded, options=HOSTS),
    Case(program="p2_api_proxy_forward_request", check=_forwarded, options=HOSTS),
)


async def judge(case: Case, authority: str, peer: str) -> str:
    """What is wrong with its answers; empty if nothing is."""
    try:
        await to_thread.run_sync(case.check, authority, peer)
    except (AssertionError, HTTPException, OSError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


@asynccontextmanager
async def native_server(binary: Path, file: Path, options: tuple[str, ...]) -> AsyncIterator[str]:
    """`wasmtime serve` on a free port."""
    command = [str(binary), "serve", "--addr=127.0.0.1:0", *options, str(file)]
    async with await anyio.open_process(command, stdout=subprocess.DEVNULL, env={}) as process:
        assert process.stderr is not None
        said = b""
        while not (found := _ADDRESS.search(said)):
            said += await process.stderr.receive()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_drain, process.stderr)
            yield found[1].decode()
            tasks.cancel_scope.cancel()
        process.terminate()


async def _drain(stream: ByteReceiveStream) -> None:
    async for _ in stream:
        pass


async def own(
    lattice: Lattice, file: Path, case: Case, authority: str, peer: str, extra: tuple[str, ...]
) -> str:
    """Deploy the program at `/`, ask it, and take it away again."""
    done = await lattice.ctl("deploy", str(file), "--name", "guest", "--http", "/", *case.options, *extra)
    if done.code:
        return f"not deployed: {done.err[-300:]}"
    found = await judge(case, authority, peer) or await _missing(lattice, case.log)
    await lattice.ctl("delete", "guest")
    return found


async def _missing(lattice: Lattice, text: str) -> str:
    """What is wrong with the component's log; empty if it comes to have the text."""

    async def has_text() -> bool:
        return text in (await lattice.ctl("logs", "guest")).out

    try:
        await until(has_text, seconds=LOG_SECONDS, what=f"{text!r} in its log")
    except AssertionError as error:
        return str(error)
    return ""


async def _store(lattice: Lattice) -> None:
    """Give the store of the component `guest` the key that a program reads."""
    async with lattice.bus() as bus:
        bucket = await bus.key_value(subjects.keyvalue_bucket(lattice.name, "guest"))
        await bucket.put(f"{escape('')}.{escape('hello')}", b"world")


async def run_all(programs: Path, only: list[str], binary: Path | None) -> bool:
    """Print a row for each case that there is a program for."""
    cases = [case for case in CASES if (programs / f"{case.program}.wasm").exists()]
    cases = [case for case in cases if not only or case.program in only]
    is_good = True
    with tempfile.TemporaryDirectory() as scratch, peer_server() as peer:
        async with Lattice(Path(scratch), "suite") as lattice:
            await lattice.add("one", options=("--http", "127.0.0.1:0", "--folder", f"empty={scratch}"))
            await _store(lattice)
            [at] = lattice["one"].lines("http.listening")[0]["at"]
            authority = at.removeprefix("http://")
            for case in cases:
                file = programs / f"{case.program}.wasm"
                found = [
                    await own(lattice, file, case, authority, peer, ()),
                    await own(lattice, file, case, authority, peer, ("--folder", "empty:/empty")),
                ]
                if binary is not None and case.is_native:
                    async with native_server(binary, file, case.native_options) as native:
                        found.append(await judge(case, native, peer))
                is_good = is_good and not any(found[:2])
                sys.stdout.write(f"| `{case.name}` | {' | '.join(item or 'pass' for item in found)} |\n")
                sys.stdout.flush()
    return is_good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--wasmtime", type=Path)
    options = parser.parse_args()
    return 0 if anyio.run(run_all, options.folder, options.only, options.wasmtime) else 1


if __name__ == "__main__":
    sys.exit(main())
