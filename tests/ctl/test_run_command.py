"""What `latticectl run` asks a node for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
