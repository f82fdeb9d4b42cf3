"""Real Redis servers for tests, to be killed and started again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.ports import own_port
from tests.signals import resume, suspend

REQUIRED = "LATTICE_REQUIRE_REDIS"
"""Set in CI: a missing server then fails the tests that need it, instead of skipping them."""


def require_redis() -> None:
    """Skip the test where there is no Redis server, unless one is required."""
    if shutil.which("redis-server") is None and not os.environ.get(REQUIRED):
        pytest.skip("there is no redis-server: install it (Debian: apt-get install redis-server)")


class RedisServer:
    """A server of its own on a free port, without any data but those of the test."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = own_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it takes commands, with all that it had kept."""
        command = [
            "redis-server",
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self._folder),
        ]
        options = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        with open(self._folder / "redis.log", "ab") as log:
            self._process = subprocess.Popen([*command, *options, *self._options], stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self._answers():
                return
            time.sleep(0.02)
        raise AssertionError(f"redis-server did not start: see {self._folder}/redis.log")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(7) == b"+PONG\r\n"  # else it is still loading
        except OSError:
            return False

    def suspend(self) -> None:
        """Stop the process without ending it, and return when it stands still."""
        suspend(self.pid)

    def resume(self) -> None:
        """Let a suspended process go on."""
        resume(self.pid)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
