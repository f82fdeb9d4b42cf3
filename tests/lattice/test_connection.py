"""How a process finds its lattice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctl.settings import ClientSettings
from lattice.connection import (
    ServerFile,
    find_server,
    process_start,
    read_server_file,
    server_folder,
    server_of,
    state_folder,
)
from lattice.errors import Invalid, Unreachable


def _file(**changes: object) -> ServerFile:
    values: dict[str, object] = {
        "url": "nats://127.0.0.1:4222",
        "pid": os.getpid(),
        "started": process_start(os.getpid()),
        "user": "lattice",
        "password": "secret",
        "system_user": "system",
        "system_password": "secret",
    }
    return ServerFile(**{**values, **changes})  # type: ignore[arg-type]


def test_the_state_folder_is_where_the_environment_says() -> None:
    assert state_folder({"LATTICE_STATE": "/a", "XDG_STATE_HOME": "/b"}) == Path("/a")
    assert state_folder({"LATTICE_STATE": "", "XDG_STATE_HOME": "/b"}) == Path("/b/lattice")
    assert state_folder({}) == Path("~/.local/state/lattice").expanduser()


def test_a_lattices_name_cannot_leave_the_state_folder(tmp_path: Path) -> None:
    assert server_folder("demo", tmp_path) == tmp_path / "demo" / "server"
    with pytest.raises(Invalid, match="lattice"):
        server_folder("../other", tmp_path)


def test_a_running_server_is_found_by_its_file(tmp_path: Path) -> None:
    folder = server_folder("demo", tmp_path)
    folder.mkdir(parents=True)
    _file().write(folder)

    found = find_server("demo", tmp_path, name="me")

    assert (found.urls, found.name) == (("nats://127.0.0.1:4222",), "me")
    assert found.credentials is not None
    assert found.system_credentials is not None
    assert "secret" not in repr(found)
    assert read_server_file(folder) == _file()


def test_who_has_less_time_waits_no_longer_for_a_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATTICE_STATE", str(tmp_path))
    folder = server_folder("demo")
    folder.mkdir(parents=True)
    _file().write(folder)
    told = ClientSettings(lattice="demo")

    assert server_of(told, "me", connect_seconds=1.5).connect_seconds == 1.5


@pytest.mark.parametrize("changes", [{"pid": 0}, {"started": "earlier"}])
def test_a_stale_file_says_so(tmp_path: Path, changes: dict[str, object]) -> None:
    folder = server_folder("demo", tmp_path)
    folder.mkdir(parents=True)
    _file(**changes).write(folder)

    with pytest.raises(Unreachable, match=r"stale.*lattice-node start"):
        find_server("demo", tmp_path)


def test_a_process_is_told_from_others_by_its_start() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process_start(process.pid)
    assert started is not None
    assert started == process_start(process.pid)
    assert started != process_start(os.getpid())

    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert process_start(process.pid) is None  # a zombie has ended
    process.communicate()
    assert process_start(process.pid) is None
