"""What guests write is limited in rate."""

from __future__ import annotations

from node.engine.host import CallContext, GuestCall
from node.engine.output import LimitedOutput
from tests.node.engine.bare_instance import BareInstance


def test_output_beyond_the_rate_is_dropped_and_counted() -> None:
    kept: list[bytes] = []
    output = LimitedOutput(lambda call, stream, data: kept.append(data), bytes_per_second=100)
    call = GuestCall("guest", CallContext(deadline=0), BareInstance(), output)

    call.log("stdout", b"x" * 150)
    call.log("stdout", b"y" * 1000)

    assert kept[0] == b"x" * 150
    assert sum(map(len, kept)) <= 201
    assert output.dropped_bytes >= 949
