"""Secrets of a process's own: what is opened, how mounts are read, and that nothing beside can be."""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from structlog.testing import capture_logs

from lattice.configuration_sources import OpenedSource, Sources
from lattice.errors import Denied, Failed, Invalid, NotFound
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.sealing import MAX_BYTES, SealKey, Secret
from lattice.secret_sources import MAX_FILES, SecretSources, check_apart, plain_environment
from lattice.secrets import Secrets

VALUE = "hunter2-correct-horse"


def opened(*texts: str, **environment: str) -> SecretSources:
    found = SecretSources(tuple(map(OpenedSource.parse, texts)), environment)
    found.read()
    return found


def of_folder(folder: Path) -> SecretSources:
    return opened(f"file:{folder}")


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    folder = tmp_path / "mount"
    folder.mkdir()
    return folder


def test_a_variable_is_a_secret_under_its_whole_name_if_its_prefix_is_opened() -> None:
    closed = opened(SHOP_KEY=VALUE)
    found = opened("env:SHOP_", SHOP_KEY=VALUE + "\n", SHOP_="", HOME="/root", SHOPPING="x")

    assert found.get("env:SHOP_KEY").reveal() == VALUE + "\n"
    assert list(found.kinds()) == ["env:SHOP_KEY"]
    for source, name in ((closed, "env:SHOP_KEY"), (found, "env:HOME"), (found, "env:SHOPPING")):
        with pytest.raises(Denied, match="its operator opens it with `--secret-source env:PREFIX_`"):
            source.get(name)
    with pytest.raises(NotFound, match=r"did you mean `env:SHOP_KEY`\?; put a variable `SHOP_KEI` into"):
        found.get("env:SHOP_KEI")


def test_variables_that_are_secrets_are_in_no_configuration() -> None:
    environment = {"SHOP_COLOUR": "red", "SHOP_SECRET_KEY": VALUE}
    plain = plain_environment(environment, [OpenedSource.parse("env:SHOP_SECRET_")])
    configurations = Sources((OpenedSource.parse("env:SHOP_"),), plain)
    configurations.read()

    assert configurations.get("env:SHOP_") == {"COLOUR": "red"}
    assert plain_environment(environment, [OpenedSource.parse("file:/x")]) == environment


def test_a_folder_is_not_opened_for_secrets_and_configurations_at_once(tmp_path: Path) -> None:
    secrets = [OpenedSource.parse(f"file:{tmp_path / 'secrets'}")]

    check_apart([OpenedSource.parse(f"file:{tmp_path / 'plain'}"), OpenedSource.parse("env:A_")], secrets)
    for folder in (tmp_path, tmp_path / "secrets"):
        with pytest.raises(Invalid, match="keep configurations in another folder"):
            check_apart([OpenedSource.parse(f"file:{folder}")], secrets)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"word", "word"),
        (b"word\n", "word"),
        (b"word\r\n", "word"),
        (b"word\n\n", "word\n"),
        (b" a=b ", " a=b "),
        (b"", ""),
        (b"\xff\x00\n", b"\xff\x00\n"),
    ],
)
def test_a_file_is_one_secret_without_the_last_line_end_of_a_text(
    mount: Path, data: bytes, value: str | bytes
) -> None:
    (mount / "db-password").write_bytes(data)

    assert of_folder(mount).get("file:db-password").reveal() == value


def test_a_mount_as_kubernetes_makes_it_is_read_and_its_own_entries_are_not(mount: Path) -> None:
    version = mount / "..2026_11_20_10_00_00.123"
    version.mkdir()
    (version / "password").write_text(VALUE)
    (version / ".dockerconfigjson").write_text("{}")
    (mount / "..data").symlink_to(version.name)
    for name in ("password", ".dockerconfigjson"):
        (mount / name).symlink_to(f"..data/{name}")

    found = of_folder(mount)

    assert found.get("file:password").reveal() == VALUE
    assert list(found.kinds()) == ["file:.dockerconfigjson", "file:password"]


def test_a_new_version_of_a_mount_is_taken_as_a_whole(mount: Path) -> None:
    for version in ("..1", "..2"):
        (mount / version).mkdir()
        (mount / version / "password").write_text(version)
    (mount / "..data").symlink_to("..1")
    (mount / "password").symlink_to("..data/password")
    found = of_folder(mount)

    (mount / "..data_tmp").symlink_to("..2")
    (mount / "..data_tmp").replace(mount / "..data")

    assert found.read() == {"file:password"}
    assert found.get("file:password").reveal() == "..2"
    assert found.read() == set()


@pytest.mark.parametrize(
    "target", ["../outside", "/etc/hostname", "inner", "../mount-beside/password", "/proc/self/environ"]
)
def test_a_link_that_leads_out_of_the_folder_is_refused(mount: Path, target: str) -> None:
    (mount.parent / "outside").write_text(VALUE)
    (mount.parent / "mount-beside").mkdir()
    (mount.parent / "mount-beside" / "password").write_text(VALUE)
    (mount / "inner").symlink_to("../outside")
    (mount / "link").symlink_to(target)

    with pytest.raises(Failed, match="`file:link` can't be read on this node: it is a symbolic link"):
        of_folder(mount).get("file:link")


def test_a_folder_that_is_a_link_itself_is_what_the_operator_opened(mount: Path) -> None:
    (mount / "password").write_text(VALUE)
    (mount.parent / "named").symlink_to(mount)

    assert of_folder(mount.parent / "named").get("file:password").reveal() == VALUE


def _large(path: Path) -> None:
    path.write_bytes(b"x" * (MAX_BYTES + 1))


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "not a regular file"),
        (_large, f"larger than {MAX_BYTES} bytes"),
        (_loop, "symbolic links"),
    ],
)
def test_what_is_no_small_file_is_refused_without_waiting(
    mount: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(mount / "odd")
    (mount / "good").write_text(VALUE)

    found = of_folder(mount)

    assert found.get("file:good").reveal() == VALUE
    with pytest.raises(Failed, match=reason):
        found.get("file:odd")


def test_a_secret_of_the_largest_size_is_read_and_a_folder_is_none(mount: Path) -> None:
    (mount / "large").write_bytes(b"x" * MAX_BYTES)
    (mount / "inner").mkdir()

    found = of_folder(mount)

    assert len(found.get("file:large").reveal()) == MAX_BYTES
    with pytest.raises(NotFound, match="put a file `inner` into the folder"):
        found.get("file:inner")


def test_names_lead_nowhere_but_to_entries_of_the_folder(mount: Path) -> None:
    (mount / "password").write_text(VALUE)
    (mount.parent / "outside").write_text(VALUE)
    found = of_folder(mount)

    for name in ("../outside", f"{mount}/password", "./password", "..", ".", "", "..data", "a/b"):
        with pytest.raises(Denied, match=r"--secret-source file:DIR` of the folder"):
            found.get(f"file:{name}")


def test_too_many_files_are_refused_by_name(mount: Path) -> None:
    for number in range(MAX_FILES + 1):
        (mount / f"n{number:05}").touch()

    found = of_folder(mount)

    assert len(found.kinds()) == MAX_FILES
    with pytest.raises(Failed, match=f"more than {MAX_FILES} files"):
        found.get(f"file:n{MAX_FILES:05}")


def test_of_two_folders_the_later_one_counts(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(name)

    assert opened(f"file:{tmp_path}/one", f"file:{tmp_path}/two").get("file:key").reveal() == "two"


def test_a_fault_is_logged_once_and_nothing_that_is_logged_or_shown_has_a_value(mount: Path) -> None:
    (mount / "good").write_text(VALUE)
    (mount / "large").write_text(VALUE * MAX_BYTES)
    missing = mount / "missing"

    with capture_logs() as logs:
        found = opened(f"file:{mount}", f"file:{missing}", "env:SHOP_", SHOP_KEY=VALUE)
        found.read()

    assert [(entry["event"], entry["name"]) for entry in logs] == [
        ("secret.unreadable", f"file:{missing}"),
        ("secret.unreadable", "file:large"),
    ]
    assert VALUE not in f"{logs} {found!r} {found.get('env:SHOP_KEY')!r}"


def test_a_file_that_may_not_be_read_says_so() -> None:
    found = SecretSources()

    def read_as_nobody() -> None:
        # Of this thread alone, which ends with it; where tests run as somebody else, it changes nothing.
        ctypes.CDLL(None).setfsuid(65534)
        found.read()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "key").touch(mode=0)
        (folder / "other").write_text(VALUE)
        found.opened = (OpenedSource.parse(f"file:{folder}"),)
        thread = threading.Thread(target=read_as_nobody)
        thread.start()
        thread.join()

    assert found.get("file:other").reveal() == VALUE
    with pytest.raises(Failed, match="`file:key` can't be read on this node: Permission denied"):
        found.get("file:key")


def replace_file(file: Path, data: bytes) -> None:
    """At once, so that nobody sees it empty."""
    new = file.parent.with_name("new")
    new.write_bytes(data)
    new.replace(file)


async def test_a_change_of_a_file_is_told_and_a_file_that_is_gone_is_not_found(mount: Path) -> None:
    file = mount / "db-password"
    told: list[str] = []
    changed = anyio.Event()

    def tell(name: str) -> None:
        told.append(name)
        changed.set()

    await to_thread.run_sync(file.write_text, "old\n")
    async with MemoryBus(MemoryBroker()) as bus, anyio.create_task_group() as tasks:
        sources = SecretSources((OpenedSource.parse(f"file:{mount}"),), {})
        secrets = Secrets(bus, "test", node="NA", key=SealKey.generate(), sources=sources)
        secrets.on_change(tell)
        await tasks.start(secrets.run)
        assert secrets.resolve({"password": "file:db-password"}) == {"password": Secret("old")}
        assert secrets.local_kinds() == {"file:db-password": "string"}

        await to_thread.run_sync(replace_file, file, b"\xff")
        with anyio.fail_after(10):
            await changed.wait()
        assert secrets.reveal("file:db-password").reveal() == b"\xff"

        changed = anyio.Event()
        await to_thread.run_sync(file.unlink)
        with anyio.fail_after(10):
            await changed.wait()
        with pytest.raises(NotFound, match="no secret `file:db-password` on this node"):
            secrets.reveal("file:db-password")
        tasks.cancel_scope.cancel()
    assert told == ["file:db-password"] * 2
