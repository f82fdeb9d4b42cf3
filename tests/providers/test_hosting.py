"""Providers are bound per link, checked, started anew after a failure, and called as replicas are."""

from __future__ import annotations

import json

import anyio
import pytest
import structlog

from lattice import wire
from lattice.clock import now
from lattice.errors import (
    Denied,
    Failed,
    Interrupted,
    Invalid,
    NotFound,
    Overloaded,
    TimedOut,
    Unreachable,
)
from lattice.model import Link
from providers.bindings import find_link
from providers.hosted import CHECK_LIMIT_SECONDS, FAILED_SECONDS, STUCK_SECONDS
from providers.hosting import DESCRIPTION
from tests.providers.fakes import World, hosting, link, request, stream_of


async def test_link_is_bound_by_its_first_call_and_unbound_at_the_end() -> None:
    world = World()

    async with hosting(world, link(configuration={"word": "Moin"})) as host:
        assert world.events == ["start"]
        assert await host.call("greet", "Ann") == "Moin, Ann!"
        assert await host.call("greet", "Bob") == "Moin, Bob!"

    assert world.events == ["start", "bind Moin", "unbind Moin", "close"]


async def test_changed_configuration_holds_from_the_next_call_on() -> None:
    world = World()

    async with hosting(world) as host:
        await host.call("greet", "Ann")
        host.put(link(configuration={"word": "Moin"}))

        assert await host.call("greet", "Ann") == "Moin, Ann!"
        host.put(link(configuration={"word": "Moin"}), link(name="other"))
        assert await host.call("greet", "Ann") == "Moin, Ann!"

    assert world.events.count("bind Moin") == 1
    assert world.events.count("unbind Hello") == 1


async def test_call_in_progress_keeps_its_binding() -> None:
    world = World()

    async with hosting(world) as host, anyio.create_task_group() as tasks:
        results: list[str] = []

        async def wait() -> None:
            results.append(await host.call("wait"))

        tasks.start_soon(wait)
        await world.entered.wait()
        host.put(link(configuration={"word": "Moin"}))
        assert await host.call("greet", "Ann") == "Moin, Ann!"
        assert "unbind Hello" not in world.events
        world.release.set()

    assert results == ["Hello"]
    assert "unbind Hello" in world.events


async def test_call_of_a_job_that_has_ended_is_denied_and_its_binding_released() -> None:
    world = World()

    async with hosting(world, link(configuration={"word": "Moin"})) as host:
        await host.call("greet", "Ann")
        host.sources.clear()
        with pytest.raises(Denied, match="no component and no job of that name is known here"):
            await host.call("greet", "Ann")
        host.providers.hosted()["greeter"]._running.bindings.sweep()  # type: ignore[union-attr]  # it runs
        with anyio.fail_after(5):
            await world.unbound.wait()

        assert world.events == ["start", "bind Moin", "unbind Moin"]


async def test_call_without_a_link_is_denied_with_the_line_that_grants_it() -> None:
    async with hosting(World()) as host:
        for changes in ({"caller": "stranger"}, {"link": "second"}):
            host.put(link(target="elsewhere"))
            with pytest.raises(Denied, match=r"latticectl link put .* acme:greetings greeter"):
                await host.call("greet", "Ann", **changes)
        with pytest.raises(Denied, match="over links only"):
            await host.call("greet", "Ann", link=None, caller=None)


async def test_call_that_is_faster_than_the_news_of_its_link_waits_for_it() -> None:
    async with hosting(World(), link(target="elsewhere")) as host, anyio.create_task_group() as tasks:

        async def put() -> None:
            await anyio.sleep(0.02)
            host.put(link())

        tasks.start_soon(put)
        assert await host.call("greet", "Ann") == "Hello, Ann!"


async def test_clients_are_served_where_the_provider_says_so() -> None:
    async with hosting(World(), clients_may_call=True) as host:
        assert await host.call("greet", "Ann", link=None, caller=None) == "Hello, Ann!"
        assert await host.call("binding", link=None, caller="node-a") == ["", "default", ""]


async def test_bad_configuration_ends_the_calls_of_its_link_only() -> None:
    async with hosting(World(), link(configuration={"word": "!"}), link(name="good")) as host:
        with pytest.raises(Invalid, match="word"):
            await host.call("greet", "Ann")
        assert await host.call("greet", "Ann", link="good") == "Hello, Ann!"
        host.put(link())
        assert await host.call("greet", "Ann") == "Hello, Ann!"


async def test_link_that_is_gone_is_unbound() -> None:
    world = World()

    async with hosting(world) as host:
        await host.call("greet", "Ann")
        host.put(link(name="other"))
        with pytest.raises(Interrupted):  # which has the provider checked at once
            await host.call("fail", Interrupted("lost"), link="other")
        with anyio.fail_after(5):
            await world.unbound.wait()
        with pytest.raises(Denied):
            await host.call("greet", "Ann")


@pytest.mark.slow
async def test_backend_that_hangs_is_found_soon_by_a_call_that_does_not_get_on() -> None:
    world = World(hangs=True)

    async with hosting(world) as host, anyio.create_task_group() as tasks:
        ended: list[str] = []

        async def wait() -> None:
            ended.append(await host.call("wait"))

        tasks.start_soon(wait)
        await world.entered.wait()
        began = now()
        await host.until(healthy=False)
        world.release.set()

        assert now() - began < STUCK_SECONDS + CHECK_LIMIT_SECONDS + 1.5  # the check in turn would end later
        assert "its backend does not answer, or hangs" in host.changes[-1][0].reason
        with pytest.raises(Unreachable, match="does not answer"):
            await host.call("greet", "Ann")

    assert ended == ["Hello"]


async def test_call_that_is_cancelled_at_its_deadline_has_the_backend_checked_at_once() -> None:
    world = World()

    async with hosting(world) as host:
        with anyio.move_on_after(0.1):
            await host.call("wait", deadline=now() + 0.1)
        began = now()
        with anyio.fail_after(5):
            while not world.checks:  # noqa: ASYNC110 - nothing tells of it
                await anyio.sleep(0.01)

        assert now() - began < 2.5  # the check in turn is later


async def test_provider_that_fails_its_check_is_started_anew_and_calls_end_at_once_meanwhile() -> None:
    world = World()

    async with hosting(world) as host:
        await host.call("greet", "Ann")
        world.fails_to_start = [Unreachable("no server"), Unreachable("no server yet")]
        world.fails_to_check = Unreachable("the server is gone")
        with pytest.raises(Interrupted):
            await host.call("fail", Interrupted("lost"))
        await host.until(healthy=False)

        began = now()
        with pytest.raises(Unreachable, match="does not run here"):
            await host.call("greet", "Ann")
        assert now() - began < 2.5  # else it would have waited for its deadline
        assert not host.providers.serves("greeter")
        offer = host.changes[-1][0]
        assert not offer.is_healthy and "server" in offer.reason
        await host.until(healthy=True)
        assert await host.call("greet", "Ann") == "Hello, Ann!"

    assert world.events.count("start") == 4
    assert world.events.count("close") == 4


async def test_a_provider_that_fails_is_closed_though_a_call_of_it_waits() -> None:
    world = World()
    async with hosting(world) as host, anyio.create_task_group() as tasks:
        tasks.start_soon(host.call, "wait")
        await world.entered.wait()
        world.fails_to_check = Failed("the backend hangs")

        with pytest.raises(Interrupted):
            await host.call("fail-interrupted")  # has the check made at once
        with anyio.fail_after(FAILED_SECONDS + 1):
            await host.until(healthy=False)
            await host.until(healthy=True)
        world.release.set()

    assert world.events.count("close") == 2


async def test_failures_have_codes_and_others_are_logged_under_an_error_id() -> None:
    async with hosting(World()) as host:
        with structlog.testing.capture_logs() as logs, pytest.raises(Failed) as caught:
            await host.call("fail", ValueError("secret detail"))
        with pytest.raises(NotFound, match=r"did you mean `acme:greetings/greet.greet`"):
            await host.call("gret", "Ann")
        with pytest.raises(Invalid, match="string"):
            await host.call("greet", 7)
        with pytest.raises(Invalid, match="1 argument"):
            await host.call("greet")
        with pytest.raises(Invalid, match="1 wanted"):
            await host.call("double")
        errors = host.providers.hosted()["greeter"].statistics.errors

    assert "secret detail" not in caught.value.message
    assert "provider 'greeter' failed" in caught.value.message
    assert logs[0]["error_id"] == caught.value.error_id
    assert errors == {"failed": 1, "not-found": 1, "invalid": 3}


async def test_more_calls_than_allowed_are_overloaded() -> None:
    world = World()

    async with hosting(world, max_calls=1) as host, anyio.create_task_group() as tasks:
        tasks.start_soon(host.call, "wait")
        await world.entered.wait()
        with pytest.raises(Overloaded):
            await host.call("greet", "Ann")
        world.release.set()


async def test_stop_lets_calls_end_and_takes_no_more() -> None:
    world = World()
    results: list[str] = []

    async with hosting(world) as host, anyio.create_task_group() as tasks:

        async def wait() -> None:
            results.append(await host.call("wait"))

        tasks.start_soon(wait)
        await world.entered.wait()
        tasks.start_soon(host.providers.stop)
        await host.until(healthy=False)
        with pytest.raises(Unreachable, match="stopped"):
            await host.call("greet", "Ann")
        world.release.set()

    assert results == ["Hello"]
    assert world.events[-2:] == ["unbind Hello", "close"]


async def test_encoded_calls_are_answered_in_kind() -> None:
    async with hosting(World()) as host:
        packed = await host.providers.call_encoded(request("greet"), wire.encode(["Ann"]), wire.MSGPACK)
        text = await host.providers.call_encoded(request("greet"), b'{"name": "Ann"}', wire.JSON)

    assert wire.decode(packed.data) == "Hello, Ann!"
    assert json.loads(text.data) == "Hello, Ann!"


async def test_encoded_call_ends_at_its_deadline() -> None:
    async with hosting(World()) as host:
        with pytest.raises(TimedOut):
            await host.providers.call_encoded(request("wait", deadline=now() + 0.05), b"", wire.MSGPACK)


async def test_byte_streams_travel_beside_a_call_which_lasts_until_they_end() -> None:
    async with hosting(World()) as host:
        hosted = host.providers.hosted()["greeter"]

        exchange = await host.providers.exchange(request("double"), [3], await stream_of(b"ab"))
        assert hosted.statistics.in_progress == 1
        assert exchange.value == 3
        assert exchange.body is not None
        assert b"".join([chunk async for chunk in exchange.body]) == b"abab"
        assert hosted.statistics.in_progress == 0

        async with await host.providers.exchange(request("double"), [3], await stream_of(b"ab")):
            assert hosted.statistics.in_progress == 1
        assert hosted.statistics.in_progress == 0

        plain = await host.providers.exchange(request("greet"), ["Ann"], None)
        assert (plain.value, plain.body) == ("Hello, Ann!", None)
        with pytest.raises(Invalid, match="no"):
            await host.providers.exchange(request("fail"), [Invalid("no")], await stream_of(b"ab"))
        assert hosted.statistics.in_progress == 0


async def test_every_provider_describes_itself_without_a_link() -> None:
    async with hosting(World()) as host:
        found = await host.call("describe", interface=DESCRIPTION, link=None, caller=None)

    assert found["offer"]["kind"] == "greeter"
    assert list(found["exports"][0]["functions"]) == ["greet"]


@pytest.mark.parametrize(
    ("links", "interface", "expected"),
    [
        ([link(interface="wasi:keyvalue")], "lattice:keyvalue/store", 0),
        ([link(interface="wasi:keyvalue/store@0.2.0-draft")], "lattice:keyvalue/store", 0),
        (
            [link(interface="wasi:keyvalue"), link(interface="wasi:keyvalue/batch")],
            "lattice:keyvalue/batch",
            1,
        ),
        ([link(interface="wasi:blobstore/container")], "lattice:blobstore/blobs", 0),
        ([link(interface="wasmcloud:messaging")], "lattice:messaging/consumer", 0),
        ([link(interface="wasi:blobstore")], "lattice:keyvalue/store", None),
        ([link(interface="lattice:keyvalue")], "lattice:keyvalue/store", None),
        ([link(interface="acme:greetings/greet@0.1.0")], "acme:greetings/greet@0.1.2", 0),
        ([link(interface="acme:greetings/other")], "acme:greetings/greet", None),
        ([link(interface="acme:greetings/greet", target="x")], "acme:greetings/greet", None),
    ],
)
def test_most_exact_link_is_found(links: list[Link], interface: str, expected: int | None) -> None:
    found = find_link(links, "greeter", "default", interface)

    assert found is (None if expected is None else links[expected])


async def test_a_provider_is_not_offered_while_a_component_has_its_name() -> None:
    async with hosting(World()) as host:
        with structlog.testing.capture_logs() as logs:
            host.deploy("greeter")
            await host.changed.wait()
            (offer,) = host.changes[-1]
            assert not host.providers.serves("greeter")

            host.deploy("other")
            await host.changed.wait()
            assert host.changes[-1][0].is_healthy
            assert host.providers.serves("greeter")
            assert await host.call("greet", "Ann") == "Hello, Ann!"

    assert "'greeter' is a component" in offer.reason
    assert "offer the provider under another name, or delete the component" in offer.reason
    assert [entry["event"] for entry in logs] == ["provider.refused", "provider.admitted"]
    assert logs[0]["log_level"] == "error"
    assert logs[0]["reason"] == offer.reason
