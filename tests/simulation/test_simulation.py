"""Whatever faults a seed brings: afterwards the lattice is as asked, and what must never happen did not.

`LATTICE_SIMULATION_SEEDS=5000` runs so many seeds; `LATTICE_SIMULATION_SEED=17` replays one and prints its
history.
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.simulation.world import Violation, World

SEEDS = int(os.environ.get("LATTICE_SIMULATION_SEEDS", "300"))
SEED = os.environ.get("LATTICE_SIMULATION_SEED")


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_lattice_converges_after_any_faults(capsys: pytest.CaptureFixture[str]) -> None:
    seeds = [int(SEED)] if SEED else range(SEEDS)
    longest = (0.0, -1)

    for seed in seeds:
        world = World(seed)
        try:
            longest = max(longest, (world.live_through(), seed))
        except Violation:
            raise
        except Exception as error:
            history = "\n".join(world.history[-60:])
            raise AssertionError(f"seed {seed} raised {error!r}\n{history}") from error
        if SEED:
            sys.stdout.write("\n".join(world.history))

    with capsys.disabled():
        slowest = f"the slowest converged in {longest[0]:.1f} s (seed {longest[1]})"
        sys.stdout.write(f" {len(seeds)} seeds, {slowest} ")
