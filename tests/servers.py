"""Real NATS servers for tests, to be started, stopped, killed and started again."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from lattice.connection import ConnectionSettings, Credentials
from node.server_process import find_binary
from tests.ports import own_port
from tests.signals import resume, suspend

START_SECONDS = 10.0
BINARY = find_binary()


class NatsServer:
    """One server process with JetStream, an application account and a system account.

    `extra` are further settings of the server; the folder and the port stay the same over restarts.
    """

    def __init__(self, folder: Path, *, has_jetstream: bool = True, **extra: object) -> None:
        self.folder = folder
        self.port = own_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._config: dict[str, object] = {
            "listen": f"127.0.0.1:{self.port}",
            "server_name": f"test-{self.port}",
            "accounts": {
                "SYS": {"users": [{"user": "system", "password": "system"}]},
                "APP": {
                    **({"jetstream": "enabled"} if has_jetstream else {}),
                    "users": [{"user": "app", "password": "app"}],
                },
            },
            "system_account": "SYS",
            **({"jetstream": {"store_dir": str(folder / "data")}} if has_jetstream else {}),
            **extra,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def change(self, **settings: object) -> None:
        """Change settings of the server; they hold from its next start."""
        self._config.update(settings)

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None
        return self._process.pid

    def settings(self, *, system: bool = True, connect_seconds: float = 5.0) -> ConnectionSettings:
        """Settings with which a bus connects to it."""
        return ConnectionSettings(
            urls=(self.url,),
            credentials=Credentials(user="app", password="app"),
            system_credentials=Credentials(user="system", password="system") if system else None,
            connect_seconds=connect_seconds,
        )

    def start(self) -> None:
        """Start, and return when it accepts connections."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "server.conf"
        config.write_text(json.dumps(self._config))
        with open(self.folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                [BINARY, "-c", str(config)], stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "server.log").read_text())
            time.sleep(0.01)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End the process; does nothing when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal_number)
            process.wait(10)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.stop(signal.SIGKILL)

    def wipe(self) -> None:
        """Delete its data; it must not run."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def suspend(self) -> None:
        """Stop the process without ending it, and return when it stands still."""
        assert self._process is not None
        suspend(self._process.pid)

    def resume(self) -> None:
        """Continue it after `suspend`."""
        assert self._process is not None
        resume(self._process.pid)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False
