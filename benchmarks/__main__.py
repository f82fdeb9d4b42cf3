"""Runs the benchmarks: `python -m benchmarks [--only NAME] [--quick] [--output FILE]`."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click
import structlog
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.groups import GROUPS
from benchmarks.measurement import QUICK, Effort, Row

RESULTS = Path(__file__).parent / "results.json"


@click.command()
@click.option("--only", multiple=True, type=click.Choice(sorted(GROUPS)), help="Measure this group alone.")
@click.option("--quick", is_flag=True, help="Only show that the benchmarks run; the figures mean nothing.")
@click.option("--output", type=click.Path(path_type=Path), help="Where the JSON goes.")
def main(only: Sequence[str], quick: bool, output: Path | None) -> None:
    """Measure what is promised beside its alternative, print a table, and write it as JSON.

    Exits with 0 whether or not targets are met, with 1 when something could not be measured.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    console = Console(soft_wrap=True)
    for fact in machine.facts():
        console.print(fact, highlight=False)
    failed: list[str] = []
    rows = list(_measure(only or list(GROUPS), QUICK if quick else Effort(), console, failed))
    console.print(_table(rows))
    console.print(f"load after: {machine.load()}", highlight=False)
    target = output or (None if quick or only else RESULTS)
    if target:
        target.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
        console.print(f"written to {target}", highlight=False)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _measure(names: Sequence[str], effort: Effort, console: Console, failed: list[str]) -> Iterator[Row]:
    """A group that fails is named in `failed`, and the others are measured nevertheless."""
    for name in names:
        console.print(f"[bold]{name}[/bold] (load {machine.load()})", highlight=False)
        try:
            for row in GROUPS[name](effort):
                console.print(f"  {_line(row)}", highlight=False)
                yield row
        except Exception:
            traceback.print_exc()
            failed.append(name)


def _line(row: Row) -> str:
    theirs = "" if row.theirs is None else f" against {_figure(row.theirs)}"
    return f"{row.name}: {_figure(row.ours)}{theirs} {row.unit} {_verdict(row)}"


def _table(rows: Sequence[Row]) -> Table:
    table = Table("what", "ours", "theirs", "unit", "ratio", "target", "met", title="Benchmarks")
    for row in rows:
        theirs = "" if row.theirs is None else _figure(row.theirs)
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.name, _figure(row.ours), theirs, row.unit, ratio, row.target, _verdict(row))
    return table


def _verdict(row: Row) -> str:
    return {True: "[green]yes[/green]", False: "[red]NO[/red]", None: ""}[row.met]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


if __name__ == "__main__":
    main()
