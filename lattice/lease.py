"""Who leads, and whose orders count. Pure; `now` is the process's own monotonic clock in seconds.

The lease is one value of the store, `{holder, fence, renewals}`, changed by compare-and-set only. The
holder renews it each second. Another takes it when it has not changed for three seconds by the taker's own
clock, or at once when the holder is known to be gone. Clocks of two machines are never compared: a holder
stops commanding when the last renewal that succeeded was *sent* more than two seconds ago, a second before
anybody may take over.

That alone is not enough: the holder may be wrongly believed gone, and orders may be late. So each lease has
a fence above all before it, each order carries it, and nodes refuse what is below the highest they saw. A
leader that learns of a higher fence (the store was lost and an old leader came back, say) takes the lease
again above it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lattice.model import LeaseValue, OrderVersion
from lattice.orders import Order, OrderReply

LEASE_SECONDS = 3.0
RENEW_SECONDS = 1.0
COMMAND_SECONDS = 2.0
"""How old the last renewal of a leader that commands may be; below LEASE_SECONDS."""
WRITE_SECONDS = 1.0
"""After which a write that was not answered is given up; it may still have happened."""
RETRY_SECONDS = 0.25
MAX_FENCE = 2**62
"""The highest that is believed of a node: leases go on above it, up to what a message can carry."""
STAGGER_SECONDS, MAX_STAGGER = 0.05, 20
"""Candidates try one after the other, so that a thousand nodes do not write at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteLease:
    """Compare-and-set the lease: create it if `revision` is None, else update that revision."""

    value: LeaseValue
    revision: int | None
    sent_at: float


@dataclass(frozen=True, slots=True)
class ReadLease:
    """Read the lease from the store itself."""


class Lease:
    """One candidate's view of the lease.

    The mutable state is the value last seen, the write that is under way, and when the last renewal was sent.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._value: LeaseValue | None = None
        self._revision: int | None = None
        self._holder: str | None = None  # outlives the value when the store is lost
        self._changed_at: float | None = None
        self._is_read = False
        self._vacant_since: float | None = None
        self._write: WriteLease | None = None
        self._attempts: dict[int, float] = {}  # fence -> when this process last tried to write it
        self._retry_at = 0.0
        self._renewed_at: float | None = None
        self.highest = 0
        """The highest fence known, from the lease or from nodes."""

    def __repr__(self) -> str:
        holder = self._value.holder if self._value else None
        return f"<Lease held by {holder} under fence {self.fence}, highest {self.highest}>"

    @property
    def holder(self) -> str | None:
        """The node that holds the lease, as far as is known."""
        return (self._value.holder or None) if self._value else None

    @property
    def fence(self) -> int:
        """Of the lease last seen."""
        return self._value.fence if self._value else 0

    def is_leading(self, now: float) -> bool:
        """Whether this node holds the lease and may command."""
        return self._is_ours and self._renewed_at is not None and now - self._renewed_at < COMMAND_SECONDS

    def seen(self, value: LeaseValue | None, revision: int, now: float) -> None:
        """A watch of the store told of this value; one older than what is known counts for nothing."""
        if value and self._value and _progress(value) < _progress(self._value):
            return
        self._take(value, revision, now)

    def read(self, value: LeaseValue | None, revision: int, now: float) -> None:
        """The store answered with this value: it counts, whatever was known."""
        self._take(value, revision, now)
        if value and value.holder == self._node and value.fence in self._attempts:
            self._renewed_at = max(self._renewed_at or 0.0, self._attempts[value.fence])

    def heard_fence(self, fence: int) -> None:
        """A node saw an order of this fence. What no lattice reaches is a lie, and nothing could go above."""
        if fence <= MAX_FENCE:
            self.highest = max(self.highest, fence)

    def decide(
        self, now: float, *, is_gone: Callable[[str], bool], rank: int
    ) -> WriteLease | ReadLease | None:
        """What to do now, if anything. `rank` is the place of this node among the candidates, from 0."""
        if self._write is not None and now - self._write.sent_at >= WRITE_SECONDS:
            self.unknown(self._write, now)
        if self._write is not None or now < self._retry_at:
            return None
        if not self._is_read:
            self._retry_at = now + RETRY_SECONDS
            return ReadLease()
        if self._is_ours and self._renewed_at is not None:
            return self._renew(now)
        return self._compete(now, is_gone, rank)

    def release(self, now: float) -> WriteLease | None:
        """Give the lease up, so that another takes it at once; None if it is not held."""
        if not self._is_ours or self._value is None:
            return None
        self._renewed_at = None
        # Counted like a renewal: a watch takes a value of less progress for an old one.
        vacant = LeaseValue(holder="", fence=self._value.fence, renewals=self._value.renewals + 1)
        return self._begin(vacant, now)

    def written(self, write: WriteLease, revision: int, now: float) -> None:
        """The store took the write."""
        if write is self._write:
            self._write = None
        self._take(write.value, revision, now)
        if write.value.holder == self._node:
            self._renewed_at = max(self._renewed_at or 0.0, write.sent_at)

    def refused(self, write: WriteLease) -> None:
        """Another write came first: read what it was."""
        if write is self._write:
            self._write, self._is_read = None, False

    def unknown(self, write: WriteLease, now: float) -> None:
        """The store did not answer: the write may have happened or not."""
        if write is self._write:
            self._write, self._is_read, self._retry_at = None, False, now + RETRY_SECONDS

    @property
    def _is_ours(self) -> bool:
        return self._value is not None and self._value.holder == self._node

    def _take(self, value: LeaseValue | None, revision: int, now: float) -> None:
        if value != self._value:
            self._vacant_since = None
        if self._changed_at is None or (value is not None and value != self._value):
            self._changed_at = now
        self._value, self._revision, self._is_read = value, revision if value else None, True
        if value is None:
            return
        self._holder = value.holder
        self.highest = max(self.highest, value.fence)
        if value.holder != self._node:
            self._renewed_at = None

    def _renew(self, now: float) -> WriteLease | None:
        assert self._value is not None
        assert self._renewed_at is not None
        if self.highest > self._value.fence:
            return self._bid(now)
        if now - self._renewed_at < RENEW_SECONDS:
            return None
        renewals = self._value.renewals + 1
        return self._begin(LeaseValue(holder=self._node, fence=self._value.fence, renewals=renewals), now)

    def _compete(self, now: float, is_gone: Callable[[str], bool], rank: int) -> WriteLease | None:
        if not self._is_vacant(now, is_gone):
            self._vacant_since = None
            return None
        if self._vacant_since is None:
            self._vacant_since = now
        if now - self._vacant_since < min(rank, MAX_STAGGER) * STAGGER_SECONDS:
            return None
        return self._bid(now)

    def _is_vacant(self, now: float, is_gone: Callable[[str], bool]) -> bool:
        if not self._holder or self._holder == self._node or is_gone(self._holder):
            return True
        return self._changed_at is not None and now - self._changed_at > LEASE_SECONDS

    def _bid(self, now: float) -> WriteLease:
        return self._begin(LeaseValue(holder=self._node, fence=self.highest + 1), now)

    def _begin(self, value: LeaseValue, now: float) -> WriteLease:
        self._write = WriteLease(value=value, revision=self._revision, sent_at=now)
        if value.holder == self._node:
            self._attempts = {value.fence: now} if value.fence not in self._attempts else self._attempts
            self._attempts[value.fence] = now
        return self._write


def _progress(value: LeaseValue) -> tuple[int, int]:
    return value.fence, value.renewals


class Fencing:
    """A node's check of orders: none below the highest fence it saw, none that a later one replaced.

    The mutable state is the highest fence and the version of the last order per component.
    """

    def __init__(self, node: str, boot: int) -> None:
        self._node = node
        self._boot = boot
        self._last: dict[str, OrderVersion] = {}
        self.highest = 0
        """The highest fence of any order accepted."""

    def check(self, order: Order) -> OrderReply:
        """Accept or refuse the order. One that is repeated is accepted again: it changes nothing."""
        refusal = self._refusal(order)
        if refusal is None:
            self.highest = order.fence
            self._last[order.component] = order.version
        return OrderReply(
            node=self._node, is_accepted=refusal is None, fence=self.highest, reason=refusal or ""
        )

    def is_repeated(self, order: Order) -> bool:
        """Whether this very order was accepted before; ask before `check`."""
        return self._last.get(order.component) == order.version

    def _refusal(self, order: Order) -> str | None:
        if (order.node, order.boot) != (self._node, self._boot):
            return "the order is for another node or for an earlier start of this one"
        if order.fence < self.highest:
            return (
                f"the order is of a former leader: its fence is {order.fence}, the highest is {self.highest}"
            )
        if order.version < self._last.get(order.component, (0, 0)):
            return "a later order for the component came first"
        return None
