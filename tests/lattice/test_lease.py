"""One leads, by its own clock; whoever led before can't make a node obey."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.lease import Fencing, Lease, ReadLease, WriteLease
from lattice.model import LeaseValue
from lattice.orders import Order
from tests.lattice.lattices import spec


def decide(lease: Lease, now: float, *, gone: str = "", rank: int = 0) -> WriteLease | ReadLease | None:
    return lease.decide(now, is_gone=lambda node: node == gone, rank=rank)


def bid(lease: Lease, now: float, **changes: object) -> WriteLease:
    write = decide(lease, now, **changes)  # type: ignore[arg-type]
    assert isinstance(write, WriteLease)
    return write


def held(node: str = "NA", now: float = 0.0) -> Lease:
    """A lease that the node has just taken."""
    lease = Lease(node)
    lease.read(None, 0, now)
    lease.written(bid(lease, now), 1, now)
    return lease


def other(now: float = 0.0, *, fence: int = 4) -> Lease:
    """Another candidate, which has just seen that NA holds it."""
    lease = Lease("NB")
    lease.read(LeaseValue(holder="NA", fence=fence), 1, now)
    return lease


def test_candidate_reads_before_it_writes() -> None:
    assert decide(Lease("NA"), 0.0) == ReadLease()


def test_free_lease_is_taken_above_all_fences_that_nodes_saw() -> None:
    lease = Lease("NA")
    lease.read(None, 0, 0.0)
    lease.heard_fence(7)

    write = bid(lease, 0.0)

    assert (write.value, write.revision) == (LeaseValue(holder="NA", fence=8), None)
    lease.written(write, 1, 0.1)
    assert lease.is_leading(0.1)


def test_holder_renews_each_second_at_the_revision_it_knows() -> None:
    lease = held()

    assert decide(lease, 0.9) is None
    write = bid(lease, 1.0)

    assert (write.value, write.revision) == (LeaseValue(holder="NA", fence=1, renewals=1), 1)


def test_leader_stops_commanding_two_seconds_after_it_sent_the_last_renewal() -> None:
    lease = held()
    write = bid(lease, 1.0)

    lease.written(write, 2, 1.9)

    assert lease.is_leading(2.9)
    assert not lease.is_leading(3.0)


def test_lease_is_taken_when_it_has_not_changed_for_three_seconds_by_the_own_clock() -> None:
    lease = other()

    assert decide(lease, 2.9) is None
    assert bid(lease, 3.1).value == LeaseValue(holder="NB", fence=5)


def test_renewal_that_is_seen_starts_the_time_again() -> None:
    lease = other()
    lease.seen(LeaseValue(holder="NA", fence=4, renewals=1), 2, 2.0)

    assert decide(lease, 4.9) is None
    assert bid(lease, 5.1).revision == 2


def test_lease_is_taken_at_once_when_its_holder_is_gone_by_the_first_candidate() -> None:
    assert isinstance(decide(other(), 0.1, gone="NA", rank=0), WriteLease)

    second = other()
    assert decide(second, 0.1, gone="NA", rank=1) is None
    assert isinstance(decide(second, 0.2, gone="NA", rank=1), WriteLease)


def test_loser_of_a_race_reads_who_won() -> None:
    lease = other()
    write = bid(lease, 0.0, gone="NA")
    lease.refused(write)

    assert decide(lease, 0.3, gone="NA") == ReadLease()
    lease.read(LeaseValue(holder="NC", fence=5), 2, 0.3)

    assert decide(lease, 0.4, gone="NA") is None
    assert lease.holder == "NC"


def test_write_that_was_not_answered_but_happened_counts_from_when_it_was_sent() -> None:
    lease = Lease("NA")
    lease.read(None, 0, 0.0)
    write = bid(lease, 0.0)

    assert decide(lease, 1.0) is None  # given up; the store is asked again a moment later
    assert decide(lease, 1.3) == ReadLease()
    lease.read(write.value, 1, 1.4)

    assert lease.is_leading(1.9)
    assert not lease.is_leading(2.0)


def test_lease_of_the_own_former_boot_is_taken_anew_under_a_higher_fence() -> None:
    lease = Lease("NA")
    lease.read(LeaseValue(holder="NA", fence=4), 9, 0.0)

    assert not lease.is_leading(0.0)
    assert bid(lease, 0.0).value == LeaseValue(holder="NA", fence=5)


def test_leader_that_hears_of_a_higher_fence_takes_the_lease_again_above_it() -> None:
    lease = held()
    lease.heard_fence(6)

    write = bid(lease, 0.1)

    assert (write.value.fence, write.revision) == (7, 1)


def test_another_holder_ends_the_lead_at_once() -> None:
    lease = held()

    lease.seen(LeaseValue(holder="NB", fence=2), 2, 0.5)

    assert not lease.is_leading(0.5)


def test_late_news_of_an_earlier_lease_change_nothing() -> None:
    lease = held()
    lease.written(bid(lease, 1.0), 2, 1.0)

    lease.seen(LeaseValue(holder="NA", fence=1), 1, 1.1)

    assert bid(lease, 2.0).revision == 2


def test_fence_outlives_the_loss_of_the_store() -> None:
    lease = other(fence=4)
    lease.seen(None, 0, 1.0)

    assert decide(lease, 1.1) is None  # the holder may write it again
    assert bid(lease, 3.1).value.fence == 5


def test_holder_writes_a_lost_lease_again_at_once() -> None:
    lease = held()
    lease.seen(None, 0, 0.5)

    write = bid(lease, 0.6)

    assert (write.value.fence, write.revision) == (2, None)


def test_released_lease_is_free_for_others_at_once() -> None:
    leaver, taker = held(), other(fence=1)
    release = leaver.release(0.5)

    assert release is not None
    assert not leaver.is_leading(0.5)
    taker.seen(release.value, 2, 0.5)
    assert bid(taker, 0.6).value == LeaseValue(holder="NB", fence=2)
    assert other().release(0.0) is None


# Fencing


def order(
    fence: int, generation: int, *, component: str = "greeter", boot: int = 1, node: str = "NA"
) -> Order:
    return Order(
        node=node, boot=boot, component=component, revision="r", count=1, spec=spec(component),
        fence=fence, generation=generation,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("late", "reason"),
    [
        (order(1, 9), "former leader"),
        (order(2, 4), "later order"),
        (order(3, 1, boot=2), "earlier start"),
        (order(3, 1, node="NB"), "another node"),
    ],
)
def test_late_order_is_refused_with_the_highest_fence(late: Order, reason: str) -> None:
    fencing = Fencing("NA", 1)
    assert fencing.check(order(2, 5)).is_accepted

    reply = fencing.check(late)

    assert not reply.is_accepted
    assert reply.fence == 2
    assert reason in reply.reason


def test_order_for_another_component_may_be_overtaken_but_not_by_a_later_leader() -> None:
    fencing = Fencing("NA", 1)
    fencing.check(order(2, 5))

    assert fencing.check(order(2, 4, component="other")).is_accepted
    assert not fencing.check(order(1, 9, component="third")).is_accepted


def test_repeated_order_is_accepted_and_known_as_such() -> None:
    fencing = Fencing("NA", 1)

    assert not fencing.is_repeated(order(2, 5))
    fencing.check(order(2, 5))

    assert fencing.is_repeated(order(2, 5))
    assert fencing.check(order(2, 5)).is_accepted


orders = st.lists(st.builds(order, st.integers(1, 4), st.integers(1, 4)), max_size=20)


@given(orders)
def test_accepted_versions_only_grow(received: list[Order]) -> None:
    fencing = Fencing("NA", 1)

    accepted = [item.version for item in received if fencing.check(item).is_accepted]

    assert accepted == sorted(accepted)
    assert not received or max(item.version for item in received) == accepted[-1]


def test_a_fence_that_no_lattice_reaches_is_not_believed() -> None:
    lease = Lease("NA")

    lease.heard_fence(7)
    lease.heard_fence(2**63 - 1)

    assert lease.highest == 7
