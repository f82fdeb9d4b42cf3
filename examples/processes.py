"""A lattice of processes in a temporary folder: nodes to start, kill and start again, and no trace after.

The nodes find each other by the embedded NATS server in that folder, so nothing that runs on the machine
already is touched, whatever ports it uses.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ctl.inspection import node_program
from lattice.connection import read_server_file, server_folder
from lattice.errors import LatticeError

STOP_SECONDS = 10.0
POLL_SECONDS = 0.02
LOG_LINES = 15
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Processes:
    """The nodes of one lattice, by name. Make one with `processes`."""

    # The mutable state is the process of each node, the last one started under its name.

    def __init__(self, state: Path, lattice: str) -> None:
        self.state = state
        self.lattice = lattice
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start a node, or start it again: its old data folder is the first free one if the others run."""
        command = [str(node_program()), "start", "--name", name, "--log-format", "json"]
        with self._log(name).open("ab") as log:
            # A session of its own: Ctrl-C is for the demo alone, which then ends the nodes in good order.
            self._running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def pid(self, name: str) -> int:
        """The id of the node's process."""
        return self._running[name].pid

    def kill(self, name: str) -> None:
        """End a node as `kill -9` does: it can't say a word."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def ended(self) -> list[str]:
        """The nodes that ended by themselves."""
        return [name for name, process in self._running.items() if process.poll() is not None]

    def last_words(self, name: str) -> list[str]:
        """The end of what the node logged."""
        with suppress(OSError):
            return self._log(name).read_text(errors="replace").splitlines()[-LOG_LINES:]
        return []

    def stop(self) -> None:
        """End all nodes, patiently at first, and the server that the last of them leaves."""
        for process in self._running.values():
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        self._stop_server()

    def _stop_server(self) -> None:
        """The last node stops the server when it leaves; one that was killed could not."""
        with suppress(LatticeError, ProcessLookupError):
            server = read_server_file(server_folder(self.lattice, self.state))
            if server is not None and server.is_running:
                os.kill(server.pid, signal.SIGTERM)
                deadline = time.monotonic() + STOP_SECONDS
                while server.is_running and time.monotonic() < deadline:
                    time.sleep(POLL_SECONDS)

    def _log(self, name: str) -> Path:
        return self.state / f"{name}.log"


@contextmanager
def processes(lattice: str = "default") -> Iterator[Processes]:
    """An empty lattice in a folder of its own, which `LATTICE_STATE` names for this process and its children.

    When the context ends, however it does, all processes have ended and the folder and the variable are gone.
    """
    before = {key: value for key, value in os.environ.items() if key.startswith("LATTICE_")}
    folder = Path(tempfile.mkdtemp(prefix="lattice-"))
    for key in before:
        del os.environ[key]
    os.environ["LATTICE_STATE"] = str(folder)
    found = Processes(folder, lattice)
    try:
        yield found
    finally:
        with _deaf():
            found.stop()
            shutil.rmtree(folder, ignore_errors=True)
        del os.environ["LATTICE_STATE"]
        os.environ.update(before)


@contextmanager
def _deaf() -> Iterator[None]:
    """Let an impatient second Ctrl-C not leave processes behind; what runs here is brief."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in END_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt_on_signals() -> None:
    """Let SIGTERM and a closed terminal end this program as Ctrl-C does, so that it cleans up."""
    for number in END_SIGNALS[1:]:
        signal.signal(number, lambda number, frame: signal.raise_signal(signal.SIGINT))
