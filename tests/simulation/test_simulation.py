"""Whatever faults a seed brings: afterwards the lattice is as asked, and what must never happen did not.

`LATTICE_SIMULATION_SEEDS=5000` runs so many seeds; `LATTICE_SIMULATION_SEED=17` replays one and prints its
history.
"""

from __future__ import annotations

import os
import sys

import pytest

from lattice.model import ComponentSpec, new_application
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


def steady_world(seed: int) -> World:
    """Five nodes without faults that hold two components as asked."""
    world = World(seed, nodes=5)
    world.is_faulty = False
    for node in world.nodes.values():
        node.start()
    world.run(5.0)
    for number, name in enumerate(("alpha", "beta")):
        spec = ComponentSpec(name=name, digest=f"sha256:{number:064x}", replicas=3)
        world.write(new_application(name, None, 1, components=[spec]))
    world.run(10.0)
    assert world.complaint() is None
    return world


@pytest.mark.parametrize("seed", range(10))
def test_loss_of_the_store_moves_nothing(seed: int) -> None:
    world = steady_world(seed)
    orders = world.orders

    world.lose_store()
    world.run(25.0)

    assert world.complaint() is None
    assert world.orders == orders
    assert {"app.alpha", "app.beta", "marker"} <= world.store.entries.keys()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("victim", ["leader", "other"])
def test_replicas_of_a_killed_node_are_back_within_a_second(seed: int, victim: str) -> None:
    world = steady_world(seed)
    leader = world.leader()
    holders = [node for node in world.nodes.values() if node.assignments.replicas]
    killed = leader if victim == "leader" else next(node for node in holders if node is not leader)
    assert killed is not None

    killed.crash()
    del world.nodes[killed.id]
    begun = world.now
    while world.complaint():
        world.run(world.now + 0.05)
        assert world.now - begun < 1.0, world.complaint()


def test_silent_node_is_replaced_after_three_heartbeats_and_its_surplus_is_dropped() -> None:
    world = steady_world(1)
    leader = world.leader()
    stopped = next(n for n in world.nodes.values() if n.assignments.replicas and n is not leader)
    stopped.paused_until = world.now + 8.0
    before = stopped.assignments.replicas

    world.run(world.now + 5.5)
    others = sum(node.assignments.replicas for node in world.nodes.values() if node is not stopped)
    assert others == 6
    assert stopped.assignments.replicas == before

    world.run(world.now + 6.0)
    assert world.complaint() is None
