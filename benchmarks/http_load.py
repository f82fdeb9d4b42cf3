"""Load on an HTTP server: by `wrk` where it is installed, else by a small generator of our own.

As a program (`python -m benchmarks.http_load PORT CONNECTIONS SECONDS`) it is that generator: a process of
its own, as wrk is, so that it takes no time from the servers' loops.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
WRK = shutil.which("wrk")
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a server did under load."""

    requests_per_second: float
    p50_us: float


def generator() -> str:
    """The name of what makes the load."""
    return "wrk" if WRK else "our own generator"


def put_load(port: int, connections: int, seconds: float) -> Load:
    """Ask for `/` over so many connections, each with one request at a time."""
    if WRK is None:
        command = [sys.executable, "-m", "benchmarks.http_load", str(port), str(connections), str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return Load(**json.loads(done.stdout))
    whole = max(1, round(seconds))
    command = [WRK, "-t1", f"-c{connections}", f"-d{whole}s", "--latency", f"http://127.0.0.1:{port}/"]
    return read_wrk(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def read_wrk(output: str) -> Load:
    """The figures that wrk printed; raises `ValueError` if a request failed."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    p50 = re.search(r"50%\s+([\d.]+)(us|ms|s)", output)
    if rate is None or p50 is None or "Non-2xx" in output or "Socket errors" in output:
        raise ValueError(f"wrk did not get what it asked for: {output}")
    return Load(requests_per_second=float(rate[1]), p50_us=float(p50[1]) * _UNITS[p50[2]])


async def _generate(port: int, connections: int, seconds: float) -> Load:
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < end:
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            if length := re.search(rb"content-length: (\d+)", head, re.IGNORECASE):
                await reader.readexactly(int(length[1]))
            else:
                await reader.readuntil(b"0\r\n\r\n")
            latencies.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return Load(requests_per_second=len(latencies) / seconds, p50_us=statistics.median(latencies) * 1e6)


def main() -> None:
    """Generate, and print the figures as JSON."""
    port, connections, seconds = sys.argv[1:]
    import uvloop

    load = uvloop.run(_generate(int(port), int(connections), float(seconds)))
    print(json.dumps({"requests_per_second": load.requests_per_second, "p50_us": load.p50_us}))


if __name__ == "__main__":
    main()
