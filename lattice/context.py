"""What accompanies a call from its caller to its end."""

from __future__ import annotations

from lattice.plain import maker, plain


@plain
class CallContext:
    """As the callee sees it, and hands it on to what it calls in turn."""

    deadline: float
    """By `lattice.clock.now`."""
    call_id: str = ""
    traceparent: str | None = None
    hops: int = 0
    attempt: int = 0
    caller: str | None = None


make_context = maker(CallContext)
