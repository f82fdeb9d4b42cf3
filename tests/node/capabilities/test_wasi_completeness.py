from pathlib import Path

import pytest
import wasmtime

from lattice import wit
from node.capabilities.wasi import WasiSettings, is_builtin, wasi_interfaces
from node.engine.describe import describe

EVERY_IMPORT = (Path(__file__).parent / "every_wasi_import.wat").read_text()


@pytest.fixture(scope="module")
def imports() -> dict[str, wit.Interface]:
    return dict(describe(bytes(wasmtime.wat2wasm(EVERY_IMPORT)), wasmtime.Engine()).imports)


def test_all_interfaces_of_the_newest_wasi_are_built_in(imports: dict[str, wit.Interface]) -> None:
    built_in = {interface.name for interface in wasi_interfaces(WasiSettings())}

    assert built_in == set(imports)
    assert all(is_builtin(name) for name in imports)


def test_each_interface_has_the_functions_and_resources_of_its_definition(
    imports: dict[str, wit.Interface],
) -> None:
    for interface in wasi_interfaces(WasiSettings()):
        definition = imports[interface.name]
        assert set(interface.functions) == set(definition.functions), interface.name
        assert set(interface.resources) == set(definition.resources), interface.name
