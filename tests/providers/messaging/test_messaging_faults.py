"""What becomes of messages whose server is killed while they are on their way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from lattice.bus import Bus
from lattice.conformance_setting import Inbox
from lattice.errors import Interrupted, LatticeError, Unreachable
from lattice.nats_bus import NatsBus
from providers.messaging import MessagingNats
from providers.messaging.conformance import Linked, Setting
from tests.servers import NatsServer

pytestmark = pytest.mark.fault

PROMPTLY_SECONDS = 3.0
"""What is promised is 0.1 s; the machine of the tests may be busy with other things."""


async def test_a_request_in_progress_ends_at_once_and_later_ones_are_answered(
    make_nats_server: Callable[..., NatsServer],
) -> None:
    server = make_nats_server()
    asked, ends = anyio.Event(), []

    async with NatsBus(server.settings()) as bus, NatsBus(server.settings()) as others:
        provider = MessagingNats(bus)
        linked = await Setting(provider=provider, bus=others, name="app").link(publish="app.>")

        await others.subscribe("app.held", lambda message: asked.set())
        questions = Inbox()
        await others.subscribe("app.asked", questions)

        async def request() -> None:
            try:
                outcome: Any = await linked.call("request", "app.held", b"", 60_000, seconds=60)
            except LatticeError as error:
                outcome = error
            ends.append((time.monotonic(), outcome))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(request)
            await asked.wait()
            await anyio.to_thread.run_sync(server.kill)
            killed = time.monotonic()

        ((at, outcome),) = ends
        assert at - killed < PROMPTLY_SECONDS
        assert isinstance(outcome, Interrupted), outcome
        with pytest.raises(Unreachable):
            await linked.call("publish", "app.new", b"lost", None, [])

        await anyio.to_thread.run_sync(server.start)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer, others, questions)
            with anyio.fail_after(20):
                await until_answered(linked)
            tasks.cancel_scope.cancel()


async def answer(bus: Bus, questions: Inbox) -> None:
    for count in range(1, 1000):
        message = (await questions.wait_for(count))[-1]
        await bus.publish(message.reply or "", b"yes")


async def until_answered(linked: Linked) -> None:
    while True:
        try:
            result = await linked.call("request", "app.asked", b"", 1000)
        except LatticeError:
            result = {}
        if result.get("ok", {}).get("body") == b"yes":
            return
        await anyio.sleep(0.05)
