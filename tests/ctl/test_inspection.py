"""`inspect` runs the node's program and passes on what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctl.commands.inspect import inspection_text
from ctl.inspection import inspect_file
from lattice import wit
from lattice.errors import Failed, Invalid
from tests.ctl.fake_node import GREETER

REPORT = {
    "file": "greeter.wasm",
    "digest": "sha256:" + "1" * 64,
    "size": 2048,
    "type": wit.component_type_to_json(GREETER),
    "warnings": ["nothing in it can be called"],
    "from_the_future": 1,
}


def program(folder: Path, script: str) -> Path:
    """A `lattice-node` that does what the shell script says."""
    path = folder / "lattice-node"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


async def test_the_report_of_the_program_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "report").write_text(json.dumps(REPORT))
    node = program(tmp_path, f'[ "$*" = "inspect --json x.wasm" ] && cat {tmp_path}/report')

    inspection = await inspect_file(Path("x.wasm"), program=node)

    assert (inspection.size, inspection.warnings) == (2048, ("nothing in it can be called",))
    text = inspection_text(Path("x.wasm"), inspection)
    assert text.startswith("file:    x.wasm\nsize:    2.0 KiB\n")
    assert "greet: func(name: string) -> string;" in text


async def test_what_the_program_refuses_is_said_in_its_words(tmp_path: Path) -> None:
    node = program(tmp_path, "echo 'error: x.wasm: truncated' >&2; echo >&2; echo 'hint: no' >&2; exit 1")

    with pytest.raises(Invalid, match=r"^x\.wasm: truncated$"):
        await inspect_file(Path("x.wasm"), program=node)


async def test_an_answer_that_is_not_json_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="did not print JSON"):
        await inspect_file(Path("x.wasm"), program=program(tmp_path, "echo hello"))


async def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"did not end within 0\.1 s"):
        await inspect_file(Path("x.wasm"), program=program(tmp_path, "exec sleep 60"), timeout_seconds=0.1)
