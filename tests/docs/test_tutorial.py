"""The README's first component, literally: every line of it in a shell, in a lattice of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, section

SET_UP = ("make setup", ". .venv/bin/activate")
WAIT = "sleep 5"
READY = '[ "$(latticectl get nodes --output jsonl 2>/dev/null | wc -l)" = 3 ]'
PATIENT = f"for _ in $(seq 100); do {READY} && break; done"

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(120)]


def script(folder: Path) -> str:
    """The tutorial without the set-up, with files in the test's folder, and patient on a slow machine."""
    text = "\n".join(blocks(section(ROOT / "README.md", "Your first component"), "sh"))
    lines = [line for line in text.splitlines() if line not in SET_UP]
    assert WAIT in lines
    return "\n".join(PATIENT if line == WAIT else line for line in lines).replace("/tmp/", f"{folder}/")


def test_the_first_component_survives_its_node(tmp_path: Path) -> None:
    others = {key: value for key, value in os.environ.items() if not key.startswith("LATTICE_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**others, "PATH": path, "LATTICE_STATE": str(tmp_path / "state")}
    clean_up = "trap 'kill -9 $(jobs -p) 2>/dev/null || true' EXIT"

    done = subprocess.run(
        ["bash", "-m", "-e", "-c", f"{clean_up}\n{script(tmp_path)}"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n42\n") == 2
    assert "3 of 3 running" in done.stdout
    assert not (tmp_path / "state" / "default" / "server" / "server.json").exists()
