from __future__ import annotations

import hashlib
import json
from pathlib import Path

import anyio
import pytest

from lattice import wit
from lattice.errors import Invalid
from node.engine.binary import MODULE_HEADER
from node.engine.inspection import inspect_file, inspection_text, inspection_to_json
from tests.node.engine.guests import BYTES, RESOURCES, binary


def written(folder: Path, data: bytes) -> Path:
    path = folder / "guest.wasm"
    path.write_bytes(data)
    return path


@pytest.fixture
def bytes_file(tmp_path: Path) -> Path:
    return written(tmp_path, binary(BYTES))


async def test_a_report_has_full_signatures_and_survives_json(bytes_file: Path) -> None:
    report = json.loads(json.dumps(inspection_to_json(await inspect_file(bytes_file))))

    (host,) = report["imports"]
    assert report["digest"] == f"sha256:{hashlib.sha256(binary(BYTES)).hexdigest()}"
    assert report["size"] == len(binary(BYTES))
    assert report["kind"] == "component"
    assert host["name"] == "demo:bytes/host"
    assert host["types"] == ["record chunk { data: list<u8>, note: string }"]
    assert "take: func(c: chunk, n: u32) -> chunk" in host["functions"]
    assert report["adapted_imports"] == ["demo:bytes/host"]
    assert wit.component_type_from_json(report["type"]).exports["demo:bytes/api"]


async def test_the_text_reads_like_wit(bytes_file: Path) -> None:
    text = inspection_text(await inspect_file(bytes_file))

    assert "import demo:bytes/host {\n  record chunk { data: list<u8>, note: string };\n" in text
    assert "export size: func(data: list<u8>) -> u32;" in text


async def test_used_resources_say_where_they_come_from(tmp_path: Path) -> None:
    path = await anyio.to_thread.run_sync(written, tmp_path, binary(RESOURCES))

    inspection = await inspect_file(path)

    assert "  use wasi:io/poll@0.2.0.{pollable};" in inspection_text(inspection)
    assert inspection.warnings == ("the component exports no function: nothing in it can be called",)


@pytest.mark.parametrize(
    ("data", "words"), [(None, "no such file"), (b"", "empty"), (MODULE_HEADER, "core WebAssembly module")]
)
async def test_what_is_no_component_is_named_with_its_file(
    tmp_path: Path, data: bytes | None, words: str
) -> None:
    path = tmp_path / "guest.wasm"
    if data is not None:
        await anyio.Path(path).write_bytes(data)

    with pytest.raises(Invalid, match=f"guest.wasm: .*{words}"):
        await inspect_file(path)
