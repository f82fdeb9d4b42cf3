"""Configurations, secrets, schedules through whole nodes: granted, changed without a restart, withdrawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest
import wasmtime
from structlog.testing import capture_logs

from ctl.client import ControlClient
from ctl.deployment import Deployment
from lattice.configuration_sources import OpenedSource
from lattice.errors import Invalid, NotFound
from lattice.sealing import Secret
from node.capabilities.config.interfaces import NAMES
from node.settings import NodeSettings
from tests.node.capabilities.test_config import with_result
from tests.node.capabilities.test_secrets_interfaces import GUEST
from tests.node.whole_nodes import EXAMPLES, GREETER, Lattice, deploy, until

REPORT = EXAMPLES / "report/c/report.wasm"
OLD, NEW, VARIABLE = "correct-horse", "battery-staple", "hunter2-hunter2"
CALL = "demo:greeter/greet.hello"


async def wasm(folder: Path, name: str, text: str) -> Path:
    file = folder / f"{name}.wasm"
    await anyio.Path(file).write_bytes(bytes(wasmtime.wat2wasm(text)))
    return file


async def redeploy(client: ControlClient, name: str, digest: str, **fields: Any) -> None:
    await client.deploy(Deployment(name=name, digest=digest, **fields))


async def test_a_change_of_a_configuration_is_seen_without_a_restart(
    lattice: Lattice, tmp_path: Path
) -> None:
    await lattice.start("a")
    await lattice.start("b")
    client = await lattice.client()
    file = await wasm(tmp_path, "reader", with_result(NAMES[2]))
    await client.put_config("shop", {"colour": "red"})
    digest = await deploy(client, file, replicas=2, configuration_from=("shop",), configuration={"own": "1"})
    before = await client.replicas("reader")

    async def read() -> Any:
        return await client.call("reader", "get", ["colour"])

    await until(read, {"ok": "red"})
    await client.put_config("shop", {"colour": "blue"})
    await until(read, {"ok": "blue"})
    await redeploy(client, "reader", digest, replicas=2, configuration={"colour": "own"})
    await until(read, {"ok": "own"})
    await client.delete_config("shop")
    await redeploy(client, "reader", digest, replicas=2, configuration_from=("shop",))

    async def cure() -> bool:
        found = await read()
        return "latticectl config put shop" in str(found.get("err"))

    await until(cure, True)
    after = await client.replicas("reader")
    assert {(item.node, item.revision) for item in before} == {(item.node, item.revision) for item in after}


async def test_a_folder_that_the_operator_opened_is_read_by_name_and_nothing_beside(
    lattice: Lattice, tmp_path: Path
) -> None:
    folder = anyio.Path(tmp_path / "open")
    await folder.mkdir()
    await (folder / "shop.env").write_text("colour=red\n")
    await (folder.parent / "other.env").write_text("colour=hidden\n")
    await lattice.start("a", {"config_source": (OpenedSource.parse(f"file:{folder}"),)})
    client = await lattice.client()
    file = await wasm(tmp_path, "reader", with_result(NAMES[0]))
    digest = await deploy(client, file, configuration_from=("file:shop.env",))

    async def read() -> Any:
        return await client.call("reader", "get", ["colour"])

    assert await read() == {"ok": "red"}
    await (folder / "shop.env").write_text("colour=blue\n")
    await until(read, {"ok": "blue"})
    await redeploy(client, "reader", digest, configuration_from=("file:../other.env",))

    async def is_denied() -> bool:
        return "--config-source" in str((await read()).get("err"))

    await until(is_denied, True)


async def test_a_secret_is_read_where_granted_on_every_node_and_rotated_without_a_restart(
    lattice: Lattice, tmp_path: Path
) -> None:
    await lattice.start("a")
    await lattice.start("b")
    client = await lattice.client()
    file = await wasm(tmp_path, "reader", GUEST)
    await client.put_secret("db-password", Secret("old"))
    digest = await deploy(client, file, replicas=2, secrets={"password": "db-password"})

    async def read(key: str = "password") -> Any:
        return await client.call("reader", "read", [key])

    await until(read, {"ok": {"string": "old"}})
    assert await read("db-password") == {"err": {"not-found": None}}
    await client.put_secret("db-password", Secret("new"))
    await until(read, {"ok": {"string": "new"}})
    await redeploy(client, "reader", digest, replicas=2)
    await until(read, {"err": {"not-found": None}})
    shown = await client.secret("db-password")
    assert (shown.generation, len(shown.nodes)) == (2, 2)


async def test_files_and_variables_that_the_operator_opened_are_granted_as_sealed_secrets_are(
    lattice: Lattice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = anyio.Path(tmp_path / "mount")
    await folder.mkdir()
    await (folder / "db-password").write_text(f"{OLD}\n")
    monkeypatch.setenv("WHOLE_NODE_KEY", VARIABLE)
    sources = (OpenedSource.parse(f"file:{folder}"), OpenedSource.parse("env:WHOLE_NODE_"))
    grants = {"password": "file:db-password", "key": "env:WHOLE_NODE_KEY", "absent": "file:db-passwort"}
    with capture_logs() as logs:
        await lattice.start("a", {"name": "a", "secret_source": sources})
        client = await lattice.client()
        await client.put_secret("sealed", Secret("x"))
        digest = await deploy(client, await wasm(tmp_path, "reader", GUEST), secrets=grants)
        before = await client.replicas("reader")

        async def read(key: str = "password") -> Any:
            return await client.call("reader", "read", [key])

        assert await read() == {"ok": {"string": OLD}}
        assert await read("key") == {"ok": {"string": VARIABLE}}
        for key in ("absent", "file:db-password", "env:WHOLE_NODE_KEY", "db-password"):
            assert await read(key) == {"err": {"not-found": None}}

        await (folder / "db-password").write_text(NEW)
        await until(read, {"ok": {"string": NEW}})
        assert [(item.node, item.revision) for item in await client.replicas("reader")] == [
            (item.node, item.revision) for item in before
        ]
        shown = [(item.name, item.generation, item.nodes) for item in await client.secrets()]
        assert shown == [
            ("sealed", 1, ("a",)),
            ("env:WHOLE_NODE_KEY", 0, ("a",)),
            ("file:db-password", 0, ("a",)),
        ]

        await redeploy(client, "reader", digest)
        await until(read, {"err": {"not-found": None}})
    reasons = [entry["reason"] for entry in logs if entry["event"] == "secret.missing"]
    assert len(reasons) == 1
    assert "did you mean `file:db-password`" in reasons[0]
    assert not any(value in repr(logs) for value in (OLD, NEW, VARIABLE))


async def test_a_grant_alone_opens_no_file_and_no_variable(
    lattice: Lattice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHOLE_NODE_KEY", VARIABLE)
    await lattice.start("a")
    client = await lattice.client()
    names = ("file:/etc/hostname", "file:../a/seal.nk", "env:WHOLE_NODE_KEY", "env:HOME")
    grants = {f"k{number}": name for number, name in enumerate(names)}
    await deploy(client, await wasm(tmp_path, "reader", GUEST), secrets=grants)

    for key, name in grants.items():
        found = await client.call("reader", "read", [key])
        assert f"has no secret `{name}`: its operator opens it with `--secret-source" in str(found["err"])
    assert await client.secrets() == []


def test_a_node_that_would_show_secrets_as_configuration_does_not_start() -> None:
    source = (OpenedSource.parse("file:/run/secrets"),)

    with pytest.raises(Invalid, match="--config-source opens /run/secrets"):
        NodeSettings(config_source=source, secret_source=source)


async def test_a_lattice_that_lost_its_store_still_has_configurations_and_secrets(
    lattice: Lattice, tmp_path: Path
) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await client.put_config("shop", {"colour": "red"})
    await client.put_secret("db-password", Secret("old"))

    lattice.broker.lose_data()
    await lattice.start("b")

    async def names() -> tuple[list[str], list[tuple[str, int]]]:
        secrets = [(item.name, len(item.nodes)) for item in await client.secrets()]
        return [item.name for item in await client.configs()], secrets

    await until(names, (["shop"], [("db-password", 2)]))


async def test_what_does_not_exist_is_refused_by_name(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()

    for question in (client.config("shop"), client.delete_config("shop"), client.secret("key")):
        with pytest.raises(NotFound, match=r"shop|key"):
            await question
    with pytest.raises(Invalid, match="no node 'b'"):
        await client.put_secret("key", Secret("x"), nodes=["b"])


async def test_a_schedule_is_run_by_one_node_and_goes_on_when_that_is_gone(lattice: Lattice) -> None:
    nodes = [await lattice.start("a"), await lattice.start("b")]
    client = await lattice.client()
    await deploy(client, GREETER, replicas=2)
    runs: Counter[str] = Counter()
    by: set[str | None] = set()
    async with client.events() as events:
        await client.put_trigger("greeter", "cron", {"schedule": "every 100ms", "call": CALL})

        async def more(count: int) -> None:
            wanted = len(runs) + count
            while len(runs) < wanted:
                event = await anext(events)
                if event.event == "trigger.fired":
                    runs[event.details["tick"]] += 1
                    by.add(event.node_name)

        with anyio.fail_after(20):
            await more(3)
            leader = next(node for node in nodes if node.controller.is_leading)
            await leader.controller.resign()
            while len(by) < 2:
                await more(1)
    assert max(runs.values()) == 1


async def test_a_component_that_somebody_built_is_called_by_the_clock_with_all_it_was_granted(
    lattice: Lattice,
) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await client.put_config("report", {"title": "Weekly"})
    await client.put_secret("report-key", Secret("0123456789"))
    grants = {"configuration_from": ("report",), "secrets": {"key": "report-key"}}
    trigger = {"kind": "cron", "configuration": {"schedule": "every 100ms", "payload": "you"}}
    digest = await deploy(client, REPORT, triggers=(trigger,), **grants)

    async def last() -> tuple[str, str, str]:
        line = (await client.log_lines("report", 1))[0]
        return line.stream, line.context, line.text

    async def has_line() -> bool:
        return bool(await client.log_lines("report", 1))

    await until(has_line, True)
    assert await last() == ("info", "report", "Weekly for you, with a key of 10 bytes")
    await client.put_secret("report-key", Secret("012"))
    await client.put_config("report", {"title": "Daily"})
    await until(last, ("info", "report", "Daily for you, with a key of 3 bytes"))
    async with client.events() as events:
        await redeploy(client, "report", digest, configuration_from=("report",), triggers=(trigger,))
        with anyio.fail_after(10):
            while (event := await anext(events)).event != "trigger.failed":
                pass
    assert "no key was granted" in event.details["reason"]


async def test_a_schedule_that_makes_no_sense_is_refused_before_it_is_stored(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await deploy(client, GREETER)

    with pytest.raises(Invalid, match="Bad minute"):
        await client.put_trigger("greeter", "cron", {"schedule": "61 * * * *", "call": CALL})
    with pytest.raises(Invalid, match="neither wasmcloud:cron/scheduler nor wasi:cli/run"):
        await client.put_trigger("greeter", "cron", {"schedule": "every 1s"})
    assert await client.triggers() == []


async def test_a_trigger_that_was_put_too_early_and_calls_nothing_is_told_of_when_the_code_comes(
    lattice: Lattice,
) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await client.put_trigger("greeter", "messaging", {"subject": "orders.new"}, name="orders")
    await client.put_trigger("greeter", "cron", {"schedule": "every 1h", "call": CALL, "args": '["x"]'})

    digest = await deploy(client, GREETER)
    change = await client.deploy(Deployment(name="greeter", digest=digest, replicas=2))

    (warning,) = change.warnings
    assert "its messaging trigger 'orders' calls nothing" in warning
    assert "does not export wasmcloud:messaging/handler" in warning
