"""The table of requests that wait for a reply: when their time ends, and what is kept for them."""

from __future__ import annotations

import anyio
import pytest

from lattice.bus import Message
from lattice.clock import now
from lattice.errors import TimedOut
from lattice.replies import SPAN_SECONDS, Replies

DAY_SECONDS = 24 * 3600.0


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.05, 0.3])
async def test_none_ends_before_its_time_and_none_waits_for_the_end_of_its_span(seconds: float) -> None:
    replies, began = Replies(), now()
    waiting = [replies.expect("subject", seconds) for _ in range(3)]

    for each in waiting:
        with pytest.raises(TimedOut):
            await each

    assert seconds <= now() - began < seconds + SPAN_SECONDS / 2
    assert not len(replies)


async def test_a_reply_after_the_time_and_a_second_one_are_dropped() -> None:
    replies = Replies()
    late, twice = replies.expect("subject", 0.0), replies.expect("subject", 5.0)
    with pytest.raises(TimedOut):
        await late

    replies.settle(late.token, Message("reply", b"late"))
    replies.settle(twice.token, Message("reply", b"first"))
    replies.settle(twice.token, Message("reply", b"second"))

    assert (await twice).data == b"first"
    assert not len(replies)


async def test_one_that_is_cancelled_is_forgotten() -> None:
    replies = Replies()
    waiting = replies.expect("subject", 5.0)
    cancelled = []

    async def wait() -> None:
        try:
            await waiting
        except anyio.get_cancelled_exc_class():
            cancelled.append(len(replies))
            raise

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    replies.settle(waiting.token, Message("reply", b"late"))

    assert cancelled == [0]


async def test_requests_that_might_take_a_day_leave_nothing_behind() -> None:
    replies = Replies()

    for number in range(1000):
        replies.forget(replies.expect("subject", DAY_SECONDS - number))

    assert len(replies._deadlines) == 0
