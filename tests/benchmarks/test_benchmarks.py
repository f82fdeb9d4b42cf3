"""The benchmarks run: each group gives its rows, whatever the figures."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.groups import GROUPS
from benchmarks.measurement import Target, compare, percentile

IN_PROCESS = ("cold-call", "bytes", "lag", "parallel", "plan")
COLUMNS = {"name", "ours", "theirs", "unit", "ratio", "target", "met"}


def run(folder: Path, *groups: str) -> list[dict[str, object]]:
    output = folder / "results.json"
    chosen = [part for group in groups for part in ("--only", group)]
    command = [sys.executable, "-m", "benchmarks", "--quick", *chosen, "--output", str(output)]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[2], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        printed, errors = process.communicate()
    finally:
        if process.poll() is None:  # the time of the test is over: it is to end its nodes, too
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
    assert process.returncode == 0, printed + errors
    rows = json.loads(output.read_text())
    assert isinstance(rows, list)
    return rows


def test_those_of_one_process_run(tmp_path: Path) -> None:
    rows = run(tmp_path, *IN_PROCESS)

    assert len(rows) >= len(IN_PROCESS)
    assert all(row.keys() == COLUMNS for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("group", sorted(GROUPS.keys() - set(IN_PROCESS)))
def test_those_of_many_processes_run(group: str, tmp_path: Path) -> None:
    assert run(tmp_path, group)


def test_a_target_holds_only_if_all_its_bounds_do() -> None:
    target = Target(at_most=60.0, ratio_at_most=1.0)

    assert compare("cold call", 50.0, 100.0, "us", target).met
    assert not compare("cold call", 50.0, 40.0, "us", target).met
    assert not compare("cold call", 70.0, 100.0, "us", target).met
    assert target.text("us") == "<= 60 us and <= 1x"


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 21)]

    assert percentile(values, 0.5) == 10.0
    assert percentile(values, 0.99) == 20.0
    assert percentile([3.0], 0.99) == 3.0
