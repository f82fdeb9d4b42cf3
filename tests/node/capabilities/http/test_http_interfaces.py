"""The interfaces of wasi:http against their definition."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime

from lattice import wit
from node.capabilities.http.client import HttpClient
from node.capabilities.http.interfaces import SUPPORT, HttpSettings, http_interfaces
from node.capabilities.wasi import WasiSettings, wasi_interfaces
from node.engine.compiler import Compiler
from node.engine.describe import describe
from node.engine.engine import Engine
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool

EVERY_IMPORT = (Path(__file__).parent / "every_http_import.wat").read_text()
UNSTABLE = {"[method]response-outparam.send-informational"}


@pytest.fixture(scope="module")
def imports() -> dict[str, wit.Interface]:
    return dict(describe(bytes(wasmtime.wat2wasm(EVERY_IMPORT)), wasmtime.Engine()).imports)


def test_each_interface_has_the_functions_and_resources_of_its_definition(
    imports: dict[str, wit.Interface],
) -> None:
    for interface in http_interfaces(HttpSettings(client=HttpClient())):
        definition = imports[interface.name]
        assert set(interface.functions) - UNSTABLE == set(definition.functions), interface.name
        assert set(interface.resources) == set(definition.resources), interface.name
        assert interface.name.partition("@")[0] in SUPPORT


@pytest.mark.parametrize("version", ["0.2.0", "0.2.4", "0.2.12", "0.2.99"])
async def test_every_version_can_be_imported_whole(compiler: Compiler, engine: Engine, version: str) -> None:
    text = EVERY_IMPORT.replace("0.2.12", version)
    compiled = await compiler.compile(bytes(wasmtime.wat2wasm(text)))
    imports = [*wasi_interfaces(WasiSettings()), *http_interfaces(HttpSettings(client=HttpClient()))]

    pool = ComponentPool(engine, compiled, name="all", limits=InstanceLimits(), slots=1, imports=imports)

    await pool.aclose()
