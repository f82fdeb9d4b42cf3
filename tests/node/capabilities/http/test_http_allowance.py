"""What a guest holds of the host's memory is counted, and given back."""

from __future__ import annotations

import pytest

from lattice.errors import Trapped
from lattice.http import HttpRequest
from node.capabilities.http.allowance import ALLOWANCE_BYTES, Allowance
from node.capabilities.http.fields import Fields
from node.capabilities.http.incoming_body import BodyBuffer
from node.capabilities.http.outgoing_body import BodyPipe
from node.http.handler import response_of
from tests.node.capabilities.http.conftest import Handlers, context
from tests.node.capabilities.http.corpus import LAB


def test_fields_count_until_the_last_handle_is_dropped() -> None:
    allowance = Allowance()
    fields = Fields.from_list([("a", b"x" * 1000)], allowance)
    shared, copy = fields, fields.clone(allowance)

    held = [allowance.held]
    copy.delete("a")
    held.append(allowance.held)
    del fields
    held.append(allowance.held)
    del shared, copy

    assert held[0] == 2 * held[1] > 2000
    assert held[1] == held[2]
    assert allowance.held == 0


def test_bytes_of_bodies_count_until_they_are_taken() -> None:
    allowance = Allowance()
    pipe, buffer = BodyPipe(allowance), BodyBuffer(b"x" * 500, allowance=allowance)
    pipe.write(b"y" * 300)
    assert allowance.held == 800

    pipe.finish()
    pipe.take_all()
    buffer.read(200)
    assert allowance.held == 300
    del buffer

    assert allowance.held == 0


def test_a_pipe_that_is_closed_gives_back_what_nobody_took() -> None:
    allowance = Allowance()
    pipe = BodyPipe(allowance)
    pipe.write(b"y" * 300)

    pipe.close()

    assert allowance.held == 0


def test_more_than_the_allowance_is_a_fault_of_the_guest() -> None:
    allowance = Allowance()
    allowance.take(ALLOWANCE_BYTES - 100)

    with pytest.raises(Trapped, match="does not drop"):
        Fields(allowance).append("a", b"x" * 100)
    with pytest.raises(Trapped, match="nobody takes"):
        BodyPipe(allowance).write(b"x" * 101)

    assert allowance.held == ALLOWANCE_BYTES - 100


async def test_a_guest_may_write_much_before_it_sets_its_response(handlers: Handlers) -> None:
    lab = await handlers.make(LAB)
    request = HttpRequest(method="GET", scheme="http", authority="a.test", path="/before/15")

    response = await response_of(lab, request, context())

    assert not isinstance(response.body, bytes)
    async with response.body as body:
        assert b"".join([chunk async for chunk in body]) == bytes(15 * 65536)
