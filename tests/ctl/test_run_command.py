"""What `latticectl run` asks a node for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lattice.errors import Denied
from lattice.jobs import JobSpec
from tests.ctl.conftest import CommandLine


@pytest.fixture
def asked(latticectl: CommandLine, greeter_file: Path) -> Any:
    """Runs a detached job with these options, and gives what the node was asked for."""

    def run(*options: str) -> JobSpec:
        result = latticectl("run", "--detach", *options, str(greeter_file), "--link", "one")
        assert result.exit_code == 0, result.stderr
        return JobSpec.from_dict(latticectl.node.jobs[-1])

    return run


def test_a_job_is_given_nothing_that_was_not_asked_for(asked: Any) -> None:
    spec = asked()

    component = spec.component
    assert spec.arguments == ("--link", "one")
    assert not (component.configuration or component.configuration_from or component.secrets)
    assert not (component.allow_hosts or component.network or component.folders or component.environment)


def test_configuration_secrets_and_hosts_are_given_as_to_a_component(asked: Any) -> None:
    component = asked(
        "--config", "colour=red", "--config", "size=9=10", "--config-from", "shop", "--config-from", "env:A",
        "--secret", "password=db-password", "--allow-host", "*.example.com", "--env", "A=b",
    ).component  # fmt: skip

    assert component.configuration == {"colour": "red", "size": "9=10"}
    assert component.configuration_from == ("shop", "env:A")
    assert component.secrets == {"password": "db-password"}
    assert component.allow_hosts == ("*.example.com",)
    assert component.environment == {"A": "b"}


def test_links_are_written_as_for_a_deployment(asked: Any) -> None:
    spec = asked(
        "--link", "wasi:keyvalue=keyvalue-nats,bucket=orders",
        "--link", "demo:stock/items=stock,name:overseas,idempotent",
        "--link", "wasi:blobstore=photos,bucket=a=b,config-from:shop,config-from:env:A,secret:key=s3-key",
    )  # fmt: skip

    store, stock, blobs = spec.links
    assert (store.source, store.interface, store.target) == ("greeter-1", "wasi:keyvalue", "keyvalue-nats")
    assert (store.name, store.configuration, store.idempotent) == ("default", {"bucket": "orders"}, False)
    assert (stock.target, stock.name, stock.idempotent) == ("stock", "overseas", True)
    assert blobs.configuration == {"bucket": "a=b"}
    assert blobs.configuration_from == ("shop", "env:A")
    assert blobs.secrets == {"key": "s3-key"}


def test_links_of_a_deployment_may_have_all_of_it_too(latticectl: CommandLine, greeter_file: Path) -> None:
    latticectl(
        "deploy", str(greeter_file), "--no-wait",
        "--link", "wasi:keyvalue=cache,name:fast,config-from:shop,secret:password=db",
    )  # fmt: skip

    assert latticectl.node.request_of("deploy")["links"] == [
        {
            "interface": "wasi:keyvalue",
            "target": "cache",
            "name": "fast",
            "configuration_from": ["shop"],
            "secrets": {"password": "db"},
        }
    ]


@pytest.mark.parametrize(
    ("link", "says"),
    [
        ("wasi:keyvalue", "INTERFACE=TARGET"),
        ("wasi:keyvalue=cache,bucket", "--link configuration: 'bucket' is not of the form KEY=VALUE"),
        ("wasi:keyvalue=cache,secret:password", "--link secret: 'password' is not of the form KEY=VALUE"),
        ("wasi:keyvalue=cache,name:A_b", "--link name"),
        ("wasi:keyvalue=Cache", "--link target"),
    ],
)
def test_what_is_no_link_is_said_to_be_none(
    latticectl: CommandLine, greeter_file: Path, link: str, says: str
) -> None:
    result = latticectl("run", "--link", link, str(greeter_file))

    assert result.exit_code == 2
    assert says in result.stderr
    assert latticectl.node.jobs == []


def test_two_links_of_one_name_are_refused_before_anything_is_sent(
    latticectl: CommandLine, greeter_file: Path
) -> None:
    link = ("--link", "wasi:keyvalue=cache,bucket=a")

    result = latticectl("run", *link, *link, str(greeter_file))

    assert result.exit_code == 1
    assert "twice" in result.stderr and latticectl.node.jobs == []


def test_what_a_job_can_not_use_is_said_when_it_begins(latticectl: CommandLine, greeter_file: Path) -> None:
    latticectl.node.replies["run"] = {"warnings": ["there is no configuration 'shop' yet"]}

    result = latticectl("run", "--detach", str(greeter_file))

    assert "warning: there is no configuration 'shop' yet" in result.stderr
    assert result.stdout == "tool-0123456789abcdef\n"


def test_a_denied_link_has_a_hint_for_jobs(latticectl: CommandLine, greeter_file: Path) -> None:
    line = "latticectl run ... --link wasi:keyvalue=keyvalue-nats,bucket=NAME"
    latticectl.node.refusals["call"] = [Denied(f"'tool' imports it; grant it with `{line}`")]

    result = latticectl("run", "--detach", str(greeter_file))

    assert result.exit_code == 1
    assert line in result.stderr and "`latticectl get providers`" in result.stderr
    assert "link put" not in result.stderr
