"""The demo as a person runs it: what it shows holds, and nothing of it is left, however it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from lattice.connection import DEFAULT_PORT, process_start

ROOT = Path(__file__).parents[2]
SECONDS = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def port_taken() -> Iterator[None]:
    """Somebody else listens where a NATS server usually does."""
    with closing(socket.socket()) as listener, suppress(OSError):
        listener.bind(("127.0.0.1", DEFAULT_PORT))
        listener.listen()
        yield
        return
    yield  # it was taken already


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the demo makes its temporary folder."""
    found = tmp_path / "temporary"
    found.mkdir()
    return found


@pytest.fixture
def demo(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo under way, amid variables that are meant for other lattices."""
    environment = {
        **os.environ,
        "TMPDIR": str(folder),
        "LATTICE_LATTICE": "other",
        "LATTICE_STATE": "/nowhere",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.demo"], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=SECONDS)


def read_until(process: subprocess.Popen[str], pattern: str) -> list[re.Match[str]]:
    """All matches in what the demo prints before its second act."""
    assert process.stdout is not None
    found: list[re.Match[str]] = []
    for line in process.stdout:
        if line.startswith("2."):
            return found
        found += re.finditer(pattern, line)
    raise AssertionError("the demo ended before its second act")


def test_the_demo_shows_what_it_promises(port_taken: None, demo: subprocess.Popen[str], folder: Path) -> None:
    output, errors = demo.communicate(timeout=SECONDS)

    assert demo.returncode == 0, output + errors
    assert errors == ""
    assert "\x1b" not in output
    assert "; 0 failed" in output
    assert re.search(r"two replicas again after [\d.]+ s", output)
    assert "All held" in output
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(
    demo: subprocess.Popen[str], folder: Path, number: signal.Signals
) -> None:
    nodes = [int(match[1]) for match in read_until(demo, r"process (\d+)")]

    demo.send_signal(number)
    _, errors = demo.communicate(timeout=SECONDS)

    assert demo.returncode == 130
    assert "interrupted" in errors
    assert len(nodes) == 3
    assert not any(process_start(node) for node in nodes)
    assert list(folder.iterdir()) == []


def test_a_demo_whose_nodes_die_says_so_and_fails(demo: subprocess.Popen[str], folder: Path) -> None:
    for match in read_until(demo, r"process (\d+)"):
        os.kill(int(match[1]), signal.SIGKILL)
    output, _ = demo.communicate(timeout=SECONDS)

    assert demo.returncode == 1
    assert "The demo failed:" in output
    assert list(folder.iterdir()) == []
