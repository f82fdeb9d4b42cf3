"""Cron triggers across nodes: no tick twice where it must not be, none lost where it must be done."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from itertools import pairwise

import anyio
import pytest
from structlog.testing import capture_logs

from lattice import schedule, subjects
from lattice.errors import Invalid
from lattice.faulty_bus import Faults
from lattice.model import Trigger, TriggerKind
from lattice.schedule import MAX_MISSED
from node.triggers.cron import check_trigger
from tests.node.triggers.cron_world import INTERFACE, Member, World
from tests.waiting import until

CALL = f"{INTERFACE}.tick"
CAREFUL = {"schedule": "every 100ms", "call": CALL}
EACH = {**CAREFUL, "missed": "all", "overlap": "allow"}
"""At most once, but none left out because the machine is slow."""
THOROUGH = {**CAREFUL, "delivery": "at-least-once"}
INTERVAL = 10
"""Of the ticks, in hundredths of a second."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with anyio.create_task_group() as tasks:
        yield World(tasks)
        tasks.cancel_scope.cancel()


def gaps(world: World) -> list[int]:
    """Between each tick that was done and the next."""
    ticks = world.ticks()
    return [(after - before) // INTERVAL for before, after in pairwise(ticks)]


async def none_left_out(world: World, count: int) -> None:
    """Return when so many ticks in a row were done; of those due at once a later one may end first."""
    await until(lambda: len(world.done) >= count and set(gaps(world)) == {1})


async def test_each_tick_is_called_once_with_its_id_and_trace(world: World) -> None:
    world.put(EACH)
    await world.join()

    await none_left_out(world, 5)

    assert set(world.begun.values()) == {1}
    tick = next(iter(world.done))
    assert tick.startswith("shop/default/20")
    request = world.requests[0]
    assert (request.component, request.interface, request.function) == ("shop", INTERFACE, "tick")
    assert (request.call_id, request.traceparent) == (schedule.call_id(tick), schedule.traceparent(tick))
    event, details = world.events[0]
    assert event == "trigger.fired"
    assert details == {
        "component": "shop",
        "kind": "cron",
        "name": "default",
        "tick": tick,
        "call_id": request.call_id,
        "attempt": 1,
        "seconds": details["seconds"],
    }


async def test_a_node_that_does_not_lead_calls_nothing(world: World) -> None:
    world.put(CAREFUL)
    follower, leader = await world.join(is_leading=False), await world.join()

    await until(lambda: len(world.done) >= 3)

    assert not follower.cron._followed
    assert leader.cron._followed


async def test_two_that_believe_to_lead_share_the_ticks(world: World) -> None:
    world.put(EACH)
    for _ in range(3):
        await world.join()

    await none_left_out(world, 8)

    assert set(world.begun.values()) == {1}


async def test_a_new_trigger_begins_now_and_a_changed_schedule_anew(world: World) -> None:
    world.put({**CAREFUL, "schedule": "0 0 1 1 *"})
    await world.join()
    world.put(EACH)
    await none_left_out(world, 3)

    assert world.kinds() == {"trigger.fired": len(world.events)}


async def test_a_deleted_trigger_stops_and_its_progress_is_forgotten(world: World) -> None:
    world.put(CAREFUL)
    await world.join()
    await until(lambda: len(world.done) >= 2)

    world.put(None)
    bucket = world.broker.bucket(subjects.ticks_bucket("test"))
    await until(lambda: not [entry for entry in bucket.entries() if entry.value])
    count = len(world.begun)
    await anyio.sleep(0.25)  # two ticks that must not come

    assert len(world.begun) == count


async def test_progress_of_triggers_deleted_while_nobody_led_is_forgotten(world: World) -> None:
    world.put(CAREFUL)
    first = await world.join()
    await until(lambda: len(world.done) >= 1)
    first.kill()
    world.put(None)

    await world.join()

    bucket = world.broker.bucket(subjects.ticks_bucket("test"))
    await until(lambda: not [entry for entry in bucket.entries() if entry.value])


# Failover


async def _fail_over(world: World, configuration: dict[str, str], faults: Faults, seed: int) -> None:
    """A row of leaders, each killed at a random moment; sometimes two believe to lead for a while."""
    dice = random.Random(seed)
    world.put(configuration)
    leader = await world.join(faults=faults)
    await until(lambda: len(world.done) >= 1)
    for _ in range(6):
        await anyio.sleep(dice.uniform(0, 0.2))
        following: Member | None = await world.join(faults=faults) if dice.random() < 0.5 else None
        await anyio.sleep(dice.uniform(0, 0.05))
        leader.kill()
        leader = following or await world.join(faults=faults)
    count = len(world.done)
    await until(lambda: len(world.done) >= count + 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_at_most_once_no_tick_is_called_twice_whoever_dies(world: World, seed: int) -> None:
    world.seconds = 0.03

    await _fail_over(world, EACH, Faults(), seed)

    assert max(world.begun.values()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_at_least_once_no_tick_is_lost_whoever_dies(world: World, seed: int) -> None:
    world.seconds = 0.03

    await _fail_over(world, THOROUGH, Faults(), seed)

    await none_left_out(world, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_a_store_whose_answers_are_lost_makes_no_tick_run_twice(world: World, seed: int) -> None:
    faults = Faults(store_timeout=0.2, store_unreachable=0.2)

    await _fail_over(world, EACH, faults, seed)

    assert max(world.begun.values()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_a_store_whose_answers_are_lost_loses_no_tick(world: World, seed: int) -> None:
    faults = Faults(store_timeout=0.2, store_unreachable=0.2)

    await _fail_over(world, THOROUGH, faults, seed)

    await none_left_out(world, 2)


@pytest.mark.slow
async def test_a_claim_whose_answer_was_lost_is_still_used_by_its_owner(world: World) -> None:
    world.put(EACH)
    await world.join(faults=Faults(store_timeout=0.4))

    await none_left_out(world, 12)

    assert set(world.begun.values()) == {1}


async def test_what_was_missed_while_nobody_led_is_made_up_for_as_set(world: World) -> None:
    world.put(CAREFUL)
    first = await world.join()
    await until(lambda: len(world.done) >= 2)
    first.is_leading = False
    await until(lambda: not first.cron._followed)
    missed_from = world.ticks()[-1]
    world.events.clear()
    await anyio.sleep(0.35)  # three ticks that nobody makes

    first.is_leading = True
    await until(lambda: world.ticks()[-1] > missed_from)

    assert next(tick for tick in world.ticks() if tick > missed_from) >= missed_from + 3 * INTERVAL
    skipped = [details for event, details in world.events if event == "trigger.skipped"]
    assert "missed" in skipped[0]["reason"]


async def test_a_lost_store_neither_repeats_nor_loses_a_tick_of_a_leader_that_lives(world: World) -> None:
    world.put(EACH)
    await world.join()
    await until(lambda: len(world.done) >= 2)

    world.broker._buckets.pop(subjects.ticks_bucket("test"))
    await none_left_out(world, 6)

    assert set(world.begun.values()) == {1}


async def test_after_a_clock_that_was_days_ahead_is_set_right_the_schedule_begins_anew(world: World) -> None:
    world.clock_ahead = 400 * 86_400.0
    world.put(EACH)
    await world.join()
    await until(lambda: len(world.done) >= 2)
    before = set(world.done)

    world.clock_ahead = 0.0
    await until(lambda: len(set(world.done) - before) >= 3)

    assert set(world.begun.values()) == {1}


async def test_what_was_done_by_a_clock_that_is_set_back_a_little_is_not_done_again(world: World) -> None:
    world.clock_ahead = 100.0
    world.put(EACH)
    await world.join()
    await until(lambda: len(world.done) >= 2)

    with capture_logs() as logs:
        world.clock_ahead = 0.0
        await until(lambda: any(entry["event"] == "trigger.waits" for entry in logs))
    done = len(world.done)
    world.clock_ahead = 100.5
    await until(lambda: len(world.done) >= done + 3)

    assert set(world.begun.values()) == {1}
    (entry,) = [entry for entry in logs if entry["event"] == "trigger.waits"]
    assert "set back" in entry["reason"]


async def test_a_clock_that_is_set_forward_makes_up_for_a_bounded_number_of_ticks(world: World) -> None:
    world.put(EACH)
    await world.join()
    await until(lambda: len(world.done) >= 2)
    before = len(world.done)

    world.clock_ahead = 400 * 86_400.0
    await until(lambda: world.kinds()["trigger.skipped"] >= 1)
    await until(lambda: len(world.done) >= before + MAX_MISSED)

    assert set(world.begun.values()) == {1}


# Failures and overlap


@pytest.mark.parametrize("function", ["tick", "attempt"])
async def test_a_failed_call_is_repeated_where_it_must_be_done(world: World, function: str) -> None:
    world.failures = 1
    world.put({**THOROUGH, "call": f"{INTERFACE}.{function}"})
    await world.join()

    await until(lambda: world.kinds()["trigger.fired"] >= 3)

    failed, *_ = [details for event, details in world.events if event == "trigger.failed"]
    fired = [details for event, details in world.events if event == "trigger.fired"]
    assert (failed["tick"], failed["attempt"], failed["final"]) == (fired[0]["tick"], 1, False)
    assert fired[0]["attempt"] == 2
    assert "not now" in failed["reason"]
    assert set(gaps(world)) == {1}


async def test_a_failed_call_is_not_repeated_where_it_may_be_done_once(world: World) -> None:
    world.failures = 1
    world.put(CAREFUL)
    await world.join()

    await until(lambda: world.kinds()["trigger.fired"] >= 2)

    failed, *_ = [details for event, details in world.events if event == "trigger.failed"]
    assert failed["final"]
    assert world.begun[failed["tick"]] == 1


async def test_what_fails_for_too_long_is_given_up(world: World) -> None:
    world.failures = 1
    world.put({**THOROUGH, "retry": "0.5s"})
    await world.join()

    await until(lambda: world.kinds()["trigger.fired"] >= 2)

    failed, *_ = [details for event, details in world.events if event == "trigger.failed"]
    assert failed["final"]


@pytest.mark.slow
async def test_a_tick_during_the_call_before_is_skipped_or_allowed_as_set(world: World) -> None:
    world.seconds = 0.25
    world.put(CAREFUL)
    await world.join()
    await until(lambda: world.kinds()["trigger.fired"] >= 2)
    skipped = [details for event, details in world.events if event == "trigger.skipped"]

    assert gaps(world)[0] >= 3
    assert any("still running" in details["reason"] for details in skipped)

    world.events.clear()
    world.done.clear()
    world.put(EACH)
    await until(lambda: len(world.done) >= 5)

    assert 1 in gaps(world)


async def test_a_component_that_is_not_deployed_is_an_event_that_says_so(world: World) -> None:
    world.put({**CAREFUL, "call": "demo:jobs/nightly.tack"})
    await world.join()

    await until(lambda: world.kinds()["trigger.failed"] >= 1)

    _, details = world.events[0]
    assert details["code"] == "not-found"
    assert "did you mean `demo:jobs/nightly.tick`" in details["reason"]


def test_a_trigger_is_checked_before_it_is_stored() -> None:
    check_trigger(Trigger(component="shop", kind=TriggerKind.CRON, configuration=CAREFUL))
    with pytest.raises(Invalid, match="schedule is missing"):
        check_trigger(Trigger(component="shop", kind=TriggerKind.CRON, configuration={"call": CALL}))
