"""A lease that is given up is taken at once."""

from __future__ import annotations

from lattice.lease import Lease, WriteLease


def _lead(lease: Lease, now: float) -> None:
    lease.read(None, 0, now)
    write = lease.decide(now, is_gone=lambda node: False, rank=0)
    assert isinstance(write, WriteLease)
    lease.written(write, 1, now)


def _renew(lease: Lease, now: float) -> WriteLease:
    write = lease.decide(now, is_gone=lambda node: False, rank=0)
    assert isinstance(write, WriteLease)
    lease.written(write, 2, now)
    return write


def test_a_watcher_sees_that_a_renewed_lease_was_given_up() -> None:
    leader, other = Lease("NA"), Lease("NB")
    _lead(leader, 10.0)
    renewal = _renew(leader, 11.5)
    other.read(renewal.value, 2, 11.5)

    released = leader.release(12.0)
    assert released is not None
    other.seen(released.value, 3, 12.0)
    bid = other.decide(12.0, is_gone=lambda node: False, rank=0)

    assert isinstance(bid, WriteLease)
    assert bid.value.holder == "NB"
    assert bid.value.fence > renewal.value.fence
