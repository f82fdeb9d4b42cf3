"""`latticectl config`, `secret` and `trigger` against the real operations, without the rest of a node."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import nkeys
import pytest
from click.testing import CliRunner, Result

from ctl.cli import cli
from ctl.client import ControlClient
from ctl.session import Session
from ctl.settings import ClientSettings
from lattice.configuration import Configurations
from lattice.configuration_sources import OpenedSource
from lattice.inventory import Heartbeat, InventoryPage, NodeInfo
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.observer import Observer
from lattice.sealing import SealKey
from lattice.secret_readers import SecretsPolicy
from lattice.secret_sources import SecretSources
from lattice.secrets import Secrets
from node.capabilities.config.operations import ConfigurationOperations
from node.capabilities.secrets.operations import SecretOperations
from node.control import Control

VALUE = "hunter2-correct-horse"


class Keys:
    """Of one node named `a`."""

    def __init__(self) -> None:
        seed = bytes(nkeys.encode_seed(SealKey.generate().public, nkeys.PREFIX_BYTE_SERVER))
        self.id = nkeys.from_seed(bytearray(seed)).public_key.decode()
        self.key = SealKey.generate()
        self.announcement = self.key.announcement(seed)


class CommandLine:
    """Runs commands against the operations of one node, whose store outlives each of them."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.keys = Keys()
        self.policy = SecretsPolicy()
        self.secret_sources: tuple[OpenedSource, ...] = ()
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.revealed: str | bytes | None = None
        self.processes: dict[str, tuple[Keys, str]] = {}
        """Processes beside the node by their names: their keys, and what they provide."""

    @asynccontextmanager
    async def connect(self, settings: ClientSettings) -> AsyncIterator[ControlClient]:
        async with (
            MemoryBus(self.broker) as node_bus,
            MemoryBus(self.broker) as bus,
            AsyncExitStack() as stack,
            anyio.create_task_group() as tasks,
        ):
            configurations = Configurations(node_bus, "default")
            sources = SecretSources(self.secret_sources)
            secrets = Secrets(node_bus, "default", node=self.keys.id, key=self.keys.key, sources=sources)
            await tasks.start(configurations.run)
            await tasks.start(secrets.run)
            announce = lambda event, details: self.events.append((event, details))  # noqa: E731
            observer = self._observer(node_bus)
            of_secrets = SecretOperations(node_bus, secrets, observer, self.policy, announce)
            tables = (ConfigurationOperations(configurations, announce).table(), of_secrets.table())
            table = {name: operation for part in tables for name, operation in part.items()}
            control = Control(
                node_bus, "default", self.keys.id, table, of_secrets.own_table(), is_quiet=lambda: False
            )
            await control.start(tasks, stack)
            yield ControlClient(bus, lattice=settings.lattice, timeout_seconds=2)
            if secrets.record("db") is not None and self.keys.id in secrets.record("db").sealed:  # type: ignore[union-attr]
                self.revealed = secrets.reveal("db").reveal()
            tasks.cancel_scope.cancel()

    def _observer(self, bus: MemoryBus) -> Observer:
        observer = Observer(bus, "default")
        for name, (keys, provider) in {"a": (self.keys, ""), **self.processes}.items():
            info = NodeInfo(id=keys.id, name=name, boot=1, seal_key=keys.announcement, provider=provider)
            observer.state.apply(Heartbeat(node=keys.id, boot=1, beat=1, inventory=1), 0.0)
            observer.state.apply(InventoryPage(info=info, inventory=1), 0.0)
        return observer

    def __call__(self, *args: str, input: str | bytes | None = None) -> Result:
        session = Session(connect=self.connect)
        return CliRunner(env={"COLUMNS": "100"}).invoke(cli, args, input=input, obj=session)

    def json(self, *args: str) -> Any:
        done = self(*args, "--output", "json")
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def latticectl() -> CommandLine:
    return CommandLine()


# Configurations


def test_a_configuration_is_put_shown_changed_and_deleted(latticectl: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "shop.env").write_text("A=1\nB=2\n")
    (tmp_path / "banner.txt").write_text("hello\nyou\n")
    files = ("--env-file", str(tmp_path / "shop.env"), "--from-file", f"banner={tmp_path / 'banner.txt'}")

    put = latticectl.json("config", "put", "shop", "B=3", *files)
    latticectl.json("config", "put", "shop", "C=4", "--merge")

    assert put == {"name": "shop", "generation": 1, "keys": ["A", "B", "banner"], "changed": True}
    found = latticectl.json("config", "get", "shop")
    assert found["values"] == {"A": "1", "B": "3", "banner": "hello\nyou\n", "C": "4"}
    assert latticectl("config", "get", "shop").stdout == "A=1\nB=3\nC=4\nbanner=hello\\nyou\\n\n"
    assert latticectl.json("get", "configs")[0]["generation"] == 2
    assert latticectl.json("config", "delete", "shop")["changed"]
    assert latticectl.json("get", "configs") == []
    assert [event for event, _ in latticectl.events] == ["config.put", "config.put", "config.deleted"]


def test_putting_the_same_configuration_says_so(latticectl: CommandLine) -> None:
    latticectl("config", "put", "shop", "A=1")

    again = latticectl("config", "put", "shop", "A=1")

    assert "configuration `shop` is as it was" in again.stderr
    assert len(latticectl.events) == 1


def test_a_configuration_that_is_not_there_is_named(latticectl: CommandLine) -> None:
    latticectl("config", "put", "shop", "A=1")

    done = latticectl("config", "get", "shob")

    assert done.exit_code == 4
    assert "did you mean `shop`" in done.stderr
    assert "latticectl get configs" in done.stderr


def test_a_file_that_can_not_be_read_is_named(latticectl: CommandLine, tmp_path: Path) -> None:
    done = latticectl("config", "put", "shop", "--env-file", str(tmp_path / "nothing.env"))

    assert done.exit_code == 1
    assert "cannot read" in done.stderr
    assert "nothing.env" in done.stderr


@pytest.mark.parametrize("options", [(), ("--merge",), ("--env-file", "none.env")])
def test_a_configuration_is_not_emptied_by_giving_no_values(
    latticectl: CommandLine, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.env").write_text("# nothing\n")
    latticectl("config", "put", "shop", "A=1")

    refused = latticectl("config", "put", "shop", *options)

    assert refused.exit_code == 2
    assert "--empty" in refused.stderr
    assert "latticectl config delete shop" in refused.stderr
    assert latticectl.json("config", "get", "shop")["values"] == {"A": "1"}


def test_a_configuration_is_emptied_by_saying_so(latticectl: CommandLine) -> None:
    latticectl("config", "put", "shop", "A=1")

    contradicting = [latticectl("config", "put", "shop", "--empty", word) for word in ("B=1", "--merge")]
    emptied = latticectl.json("config", "put", "shop", "--empty")

    assert [done.exit_code for done in contradicting] == [2, 2]
    assert (emptied["keys"], emptied["changed"]) == ([], True)
    assert "has 0 values now" in latticectl("config", "put", "tools", "--empty").stderr


# Secrets


def test_a_secret_gets_an_empty_value_only_by_saying_so(latticectl: CommandLine) -> None:
    latticectl("secret", "put", "db", input=VALUE)

    refused = latticectl("secret", "put", "db", input="\n")

    assert refused.exit_code == 2
    assert "--empty" in refused.stderr
    assert latticectl.revealed == VALUE
    assert latticectl("secret", "put", "db", "--empty", input="").exit_code == 0
    assert latticectl.revealed == ""


def test_a_secret_is_read_from_the_input_and_shown_nowhere(latticectl: CommandLine) -> None:
    put = latticectl("secret", "put", "db", "--from-file", "-", input=f"{VALUE}\n")
    shown = [latticectl("secret", "get", "db"), latticectl("get", "secrets"), put]

    assert latticectl.revealed == VALUE
    assert "sealed to a" in put.stderr
    assert all(done.exit_code == 0 for done in shown)
    texts = [done.stdout + done.stderr for done in shown] + [repr(latticectl.events)]
    assert not any("hunter2" in text for text in texts)
    stored = b"".join(
        entry.value or b"" for bucket in latticectl.broker._buckets.values() for entry in bucket.entries()
    )
    assert b"hunter2" not in stored


def test_a_binary_secret_is_kept_as_it_is(latticectl: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"\0\xff\n")

    refused = latticectl("secret", "put", "db", "--from-file", str(file))
    latticectl("secret", "put", "db", "--from-file", str(file), "--binary")

    assert "--binary" in refused.stderr
    assert latticectl.revealed == b"\0\xff\n"
    assert latticectl.json("secret", "get", "db")["kind"] == "bytes"


def test_a_value_is_no_argument(latticectl: CommandLine) -> None:
    done = latticectl("secret", "put", "db", VALUE)

    assert done.exit_code == 2
    assert latticectl.revealed is None


def test_a_new_value_keeps_the_readers_and_counts_up(latticectl: CommandLine) -> None:
    latticectl("secret", "put", "db", "--for", "a", input="old")
    latticectl("secret", "put", "db", input="new")

    found = latticectl.json("secret", "get", "db")

    assert latticectl.revealed == "new"
    assert (found["generation"], found["readers"], found["nodes"]) == (2, [latticectl.keys.id], ["a"])


def test_providers_are_readers_beside_a_node_by_their_name(latticectl: CommandLine) -> None:
    latticectl.processes["cache-1"] = Keys(), "cache"
    latticectl("secret", "put", "db", "--for", "a", "--for", "provider:cache", input="old")
    latticectl("secret", "put", "db", input="new")

    found = latticectl.json("secret", "get", "db")
    alone = latticectl("secret", "put", "db", "--for", "provider:cache", input="x")
    by_node = [latticectl("secret", "put", "db", "--for", name, input="x") for name in ("cache-1", "cache")]

    assert (found["reader_providers"], found["nodes"]) == (["cache"], ["a", "cache-1"])
    assert "add `--for NODE`" in alone.stderr
    assert all("use `provider:cache`" in refused.stderr for refused in by_node)


def test_secrets_of_nodes_are_listed_with_those_of_the_lattice_and_changed_by_nobody_here(
    latticectl: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "db-password").write_text(VALUE)
    latticectl.secret_sources = (OpenedSource.parse(f"file:{tmp_path}"),)
    latticectl("secret", "put", "db", input="old")

    table = latticectl("get", "secrets").stdout
    refused = latticectl("secret", "delete", "file:db-password")

    names, local = table.splitlines()[1:]
    assert names.split()[0] == "db"
    assert local.split() == ["file:db-password", "-", "string", "-", "a"]
    assert VALUE not in table
    assert refused.exit_code != 0


def test_a_secret_is_deleted_and_may_be_put_again(latticectl: CommandLine) -> None:
    latticectl("secret", "put", "db", input="old")
    latticectl("secret", "delete", "db")

    gone = latticectl("secret", "get", "db")
    again = latticectl("secret", "put", "db", input="new")

    assert gone.exit_code == 4
    assert again.exit_code == 0
    assert latticectl.revealed == "new"


def test_nothing_is_put_where_no_node_may_read_it(latticectl: CommandLine) -> None:
    latticectl.policy = SecretsPolicy.parse("N" + "A" * 55)
    refused = latticectl("secret", "put", "db", input="x")
    latticectl.policy = SecretsPolicy()
    unknown = latticectl("secret", "put", "db", "--for", "b", input="x")

    assert "--secrets-for" in refused.stderr
    assert "no node 'b'" in unknown.stderr
    assert latticectl.events == []
