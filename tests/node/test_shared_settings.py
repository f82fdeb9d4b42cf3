"""Nodes and providers' processes share one environment: what means the same for both is declared once."""

from __future__ import annotations

import dataclasses
from typing import Any

from lattice.process_settings import ProcessSettings
from node.settings import NodeSettings
from providers.sdk.__main__ import VARIABLES
from providers.sdk.settings import MemberSettings

OF_ONE_PROCESS = {
    "name",
    "label",
    "config_source",
    "secret_source",
    "max_calls",
    "connect_timeout",
    "drain_timeout",
}
"""Settings that both have under one name, of which a node's value is not meant for a provider beside it."""


def test_a_setting_of_nodes_and_providers_is_of_one_process_or_shared() -> None:
    shared = _names(ProcessSettings)

    both = _names(NodeSettings) & _names(MemberSettings)

    assert both - shared == OF_ONE_PROCESS, "declare it in ProcessSettings, or say that each has its own"
    assert {f"LATTICE_{name.upper()}" for name in shared} == VARIABLES


def _names(settings: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(settings)}
