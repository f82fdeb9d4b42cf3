"""HTTP requests to components beside `wasmtime serve` with the same file.

A node with the replica (`near`), one without (`far`), one that serves its port with two processes (`pair`),
and `wasmtime serve` take turns; each handler runs in a fresh instance for every request. The load generator
takes one of the two cores' time from all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import anyio
import httptools

from benchmarks import http_load
from benchmarks.guests import EXAMPLES
from benchmarks.http_load import put_load
from benchmarks.http_peer import serving, wait_until_open
from benchmarks.measurement import Effort, Row, Target, compare, interleave
from benchmarks.processes import Processes, deploy, processes
from node.server_process import free_port

CONNECTIONS = 32
ROUNDS = 5
HELLO = {
    "C": EXAMPLES / "http-hello/c/http-hello.wasm",
    "Rust": EXAMPLES / "http-hello/rust/http-hello.wasm",
}
ECHO = EXAMPLES / "http-echo/c/http-echo.wasm"
TARGETS = {"C": 1.5, "Rust": 1.2}
ANSWERS_IN_A_ROW = 20
"""Over connections of their own: as many workers have a part in them."""
MIB = 1 << 20
LARGE = 64 * MIB
GROWTH_MIB = 32.0


def run(effort: Effort) -> Iterator[Row]:
    """One row for each figure; a language whose example is not built is left out."""
    for language, component in HELLO.items():
        if component.exists():
            yield from _hello(effort, language, component)
    yield from _bodies(effort)


# Small answers


def _hello(effort: Effort, language: str, component: Path) -> Iterator[Row]:
    rounds, seconds = min(effort.rounds, ROUNDS), max(1.0, effort.seconds / 2)
    label = f"HTTP hello in {language}, {http_load.generator()}"
    with _lattice(component) as ports, serving(component) as theirs:
        near, peer = _loads([ports["near"], theirs], CONNECTIONS, rounds, seconds)
        yield _rate(f"{label}, {CONNECTIONS} connections", near[0], peer[0], TARGETS[language])
        pair, peer = _loads([ports["pair"], theirs], CONNECTIONS, rounds, seconds)
        yield _rate(f"{label}, {CONNECTIONS} connections, 2 worker processes", pair[0], peer[0], 2.0)
        far, near = _loads([ports["far"], ports["near"]], CONNECTIONS, rounds, seconds)
        yield _rate(f"{label}, through a node without a replica, against one with", far[0], near[0], 0.3)
        near, peer = _loads([ports["near"], theirs], 1, rounds, seconds)
        p50 = Target(ratio_at_most=0.7)
        yield compare(f"{label}, 1 connection: p50", near[1], peer[1], "us", p50)


def _rate(name: str, ours: float, theirs: float, least: float) -> Row:
    return compare(name, ours, theirs, "requests/s", Target(ratio_at_least=least))


def _loads(ports: list[int], connections: int, rounds: int, seconds: float) -> list[tuple[float, float]]:
    """Rate and median latency of each, in turns."""
    latencies: list[list[float]] = [[] for _ in ports]

    def measure(index: int) -> float:
        load = put_load(ports[index], connections, seconds)
        latencies[index].append(load.p50_us)
        return load.requests_per_second

    rates = interleave(rounds, *(partial(measure, index) for index in range(len(ports))))
    medians = [sorted(found)[len(found) // 2] for found in latencies]
    return list(zip(rates, medians, strict=True))


@contextmanager
def _lattice(component: Path) -> Iterator[dict[str, int]]:
    """Three nodes with listeners; the component runs on all but `far`. Gives their ports."""
    ports = {name: free_port() for name in ("near", "pair", "far")}
    with processes() as running:
        for name, port in ports.items():
            options = ["--http", f"127.0.0.1:{port}", "--label", f"role={'far' if name == 'far' else 'near'}"]
            running.start(name, options=[*options, *(["--http-workers", "2"] if name == "pair" else [])])
        anyio.run(_deploy, running, component.read_bytes())
        for port in ports.values():
            wait_until_open(port)
            _until_answered(port)
        yield ports


async def _deploy(running: Processes, data: bytes) -> None:
    async with running.client() as client:
        await deploy(
            client,
            "web",
            data,
            replicas=2,
            labels={"role": "near"},
            max_concurrency=2 * CONNECTIONS,
            triggers=({"kind": "http", "configuration": {}},),
        )


def _until_answered(port: int) -> None:
    """A worker learns of its node's replicas a moment after the node has them: wait for all of them."""
    deadline = time.monotonic() + 20
    answers = 0
    while answers < ANSWERS_IN_A_ROW:
        answers = answers + 1 if _exchange(port, b"")[0] == 200 else 0
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing answers at port {port}")
        if not answers:
            time.sleep(0.1)


# Large bodies


def _bodies(effort: Effort) -> Iterator[Row]:
    rounds = min(effort.rounds, ROUNDS)
    size = LARGE if effort.rounds > 1 else MIB
    with ExitStack() as stack:
        running = stack.enter_context(processes())
        port = free_port()
        running.start("near", options=["--http", f"127.0.0.1:{port}", "--label", "role=near"])
        anyio.run(_deploy, running, ECHO.read_bytes())
        theirs = stack.enter_context(serving(ECHO))
        _until_answered(port)
        ours, peer = interleave(rounds, partial(_echoes, port), partial(_echoes, theirs))
        yield _rate("HTTP echo of 1 MiB, our own client", ours, peer, 0.5)
        before = _resident_mib(running.pid("near"))
        ours, peer = interleave(rounds, partial(_speed, port, size), partial(_speed, theirs, size))
        growth = _resident_mib(running.pid("near"), "VmHWM") - before
        name = f"HTTP echo of {size // MIB} MiB, our own client"
        yield compare(name, ours, peer, "MiB/s", Target(ratio_at_least=0.5))
        yield compare(
            f"{name}: growth of the node", max(growth, 0.0), None, "MiB", Target(at_most=GROWTH_MIB)
        )


def _echoes(port: int) -> float:
    """1 MiB echoes a second."""
    return _speed(port, MIB, times=10)


def _speed(port: int, size: int, times: int = 1) -> float:
    """MiB echoed a second."""
    body = bytes(range(256)) * (size // 256)
    began = time.perf_counter()
    for _ in range(times):
        status, received = _exchange(port, body)
        assert (status, received) == (200, size), (status, received)
    return size * times / MIB / (time.perf_counter() - began)


def _exchange(port: int, body: bytes) -> tuple[int, int]:
    """POST and read at the same time; gives the status and the bytes that came back."""
    return anyio.run(_post, port, body, backend_options={"use_uvloop": True})


async def _post(port: int, body: bytes) -> tuple[int, int]:
    status, received = 0, 0
    async with await anyio.connect_tcp("127.0.0.1", port) as stream, anyio.create_task_group() as tasks:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)

        async def send() -> None:
            for start in range(0, len(body), 65536):
                await stream.send(body[start : start + 65536])

        await stream.send(head)
        tasks.start_soon(send)
        parser = _BodyCounter()
        with anyio.fail_after(120):
            while not parser.is_complete:
                try:
                    parser.feed(await stream.receive(262_144))
                except anyio.EndOfStream:
                    break
        status, received = parser.status, parser.received
    return status, received


class _BodyCounter:
    """Reads a response and counts its body."""

    def __init__(self) -> None:
        self.status, self.received, self.is_complete = 0, 0, False
        self._parser = httptools.HttpResponseParser(self)
        self.feed: Callable[[bytes], None] = self._parser.feed_data

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.received += len(data)

    def on_message_complete(self) -> None:
        self.is_complete = True


def _resident_mib(pid: int, field: str = "VmRSS") -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
