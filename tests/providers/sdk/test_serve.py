"""A program that offers a provider says goodbye however it ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest

from lattice.errors import Unreachable
from lattice.nats_bus import NatsBus
from providers.sdk import offering, serve
from tests.providers.fakes import Greeter, World
from tests.providers.sdk.someone import NAME, Someone, observing
from tests.servers import NatsServer


async def _hold(make: Callable[[], Greeter], **member: Any) -> None:
    async with offering(make, name=NAME, **member):
        await anyio.sleep_forever()


async def _serve(make: Callable[[], Greeter], **member: Any) -> None:
    await serve(make, name=NAME, **member)


def _is_draining(caller: Someone) -> bool:
    (view,) = caller.observer.state.observed.nodes.values()
    return view.heartbeat is not None and view.heartbeat.is_draining


@pytest.mark.parametrize("program", [_hold, _serve])
async def test_calls_end_before_a_program_that_is_cancelled_leaves(
    program: Callable[..., Any], make_nats_server: Callable[..., NatsServer]
) -> None:
    server, world = make_nats_server(no_auth_user="app"), World()
    results: list[str] = []
    left: list[str] = []

    async with (
        NatsBus(server.settings()) as bus,
        observing(bus) as caller,
        anyio.create_task_group() as tasks,
    ):
        offer = anyio.CancelScope()

        async def run() -> None:
            with offer:
                await program(partial(Greeter, world), nats=server.url)
            left.append(NAME)

        async def wait() -> None:
            results.append(await caller.call("wait"))

        await caller.put()
        tasks.start_soon(run)
        await caller.sees(1)
        tasks.start_soon(wait)
        await world.entered.wait()
        offer.cancel()
        with anyio.fail_after(5):
            while not _is_draining(caller):  # noqa: ASYNC110 - a heartbeat wakes nobody
                await anyio.sleep(0.01)
        assert (results, left) == ([], [])
        world.release.set()

    assert (results, left) == (["Hello"], [NAME])
    assert world.events[-1] == "close"


async def test_a_program_that_is_cancelled_waits_for_calls_no_longer_than_it_was_told(
    make_nats_server: Callable[..., NatsServer],
) -> None:
    server, world = make_nats_server(no_auth_user="app"), World()
    ends: list[str] = []

    async with (
        NatsBus(server.settings()) as bus,
        observing(bus) as caller,
        anyio.create_task_group() as tasks,
    ):

        async def wait() -> None:
            try:
                await caller.call("wait")
            except Exception as error:
                ends.append(type(error).__name__)

        await caller.put()
        with anyio.fail_after(10), anyio.CancelScope() as offer:
            async with offering(partial(Greeter, world), name=NAME, nats=server.url, drain_timeout="0.2s"):
                await caller.sees(1)
                tasks.start_soon(wait)
                await world.entered.wait()
                offer.cancel()
                await anyio.sleep_forever()

    assert ends == ["Interrupted"]


async def test_a_program_can_be_cancelled_while_it_looks_for_its_lattice() -> None:
    with anyio.fail_after(5), anyio.move_on_after(0.3):
        async with offering(partial(Greeter, World()), name=NAME, nats="nats://127.0.0.1:1"):
            raise AssertionError("there is no lattice")


async def test_a_program_without_a_lattice_is_told_so() -> None:
    with pytest.raises(Unreachable, match="cannot reach NATS"):
        async with offering(
            partial(Greeter, World()), name=NAME, nats="nats://127.0.0.1:1", connect_timeout="0.1s"
        ):
            raise AssertionError("there is no lattice")
