"""What every `Bus` must do: run each of `CHECKS` with two buses on one server and a name of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from lattice import conformance_stores
from lattice.bus import Bus, Entry, Message
from lattice.conformance_setting import WAIT_SECONDS, Inbox, Setting, Watched, refused
from lattice.errors import Conflict, Interrupted, Invalid, NotFound, TimedOut, Unreachable


async def a_message_reaches_every_subscriber_unchanged(setting: Setting) -> None:
    first, second = Inbox(), Inbox()
    subject = f"{setting.name}.news"
    await setting.one.subscribe(f"{setting.name}.*", first)
    await setting.two.subscribe(f"{setting.name}.>", second)

    await setting.one.publish(subject, b"\x00\xff", headers={"kind": "täglich"}, reply="back")
    await setting.one.publish(subject)

    for inbox in (first, second):
        full, empty = await inbox.wait_for(2)
        assert (full.subject, full.data, dict(full.headers), full.reply) == (
            subject,
            b"\x00\xff",
            {"kind": "täglich"},
            "back",
        )
        assert (empty.data, dict(empty.headers), empty.reply) == (b"", {}, None)


async def messages_of_one_sender_keep_their_order(setting: Setting) -> None:
    inbox = Inbox()
    await setting.two.subscribe(f"{setting.name}.count", inbox)

    for number in range(2000):
        await setting.one.publish(f"{setting.name}.count", str(number).encode())

    assert [int(message.data) for message in await inbox.wait_for(2000)] == list(range(2000))


async def a_queue_group_gets_each_message_once(setting: Setting) -> None:
    group, alone = Inbox(), Inbox()
    workers: list[Bus] = []
    subject = f"{setting.name}.work"

    async def work(bus: Bus) -> None:
        def receive(message: Message) -> None:
            workers.append(bus)
            group(message)

        await bus.subscribe(subject, receive, queue="workers")

    await work(setting.one)
    await work(setting.two)
    await setting.two.subscribe(subject, alone)

    for number in range(100):
        await setting.one.publish(subject, str(number).encode())

    assert len(await alone.wait_for(100)) == 100
    assert sorted(int(message.data) for message in await group.wait_for(100)) == list(range(100))
    assert len(set(map(id, workers))) == 2


async def a_subscription_is_in_place_when_subscribe_returns(setting: Setting) -> None:
    inbox = Inbox()
    for number in range(20):
        await setting.one.subscribe(f"{setting.name}.{number}", inbox)
        await setting.two.publish(f"{setting.name}.{number}")
        await inbox.wait_for(number + 1)


async def an_ended_subscription_is_silent(setting: Setting) -> None:
    ended, other = Inbox(), Inbox()
    subscription = await setting.one.subscribe(f"{setting.name}.x", ended)
    await setting.one.subscribe(f"{setting.name}.x", other)

    await subscription.unsubscribe()
    await subscription.unsubscribe()
    await setting.one.publish(f"{setting.name}.x")
    await other.wait_for(1)

    assert ended.messages == []


async def a_failing_handler_ends_nothing(setting: Setting) -> None:
    seen: list[bytes] = []

    def fail(message: Message) -> None:
        seen.append(message.data)
        raise ValueError("as it should")

    inbox = Inbox()
    await setting.one.subscribe(f"{setting.name}.x", fail)
    await setting.one.subscribe(f"{setting.name}.x", inbox)

    await setting.two.publish(f"{setting.name}.x", b"1")
    await setting.two.publish(f"{setting.name}.x", b"2")
    await inbox.wait_for(2)

    assert seen == [b"1", b"2"]
    assert setting.one.statistics().handler_errors == 2


async def _serve(bus: Bus, subject: str, answer: Callable[[Message], bytes]) -> None:
    send, receive = anyio.create_memory_object_stream[Message](100)
    await bus.subscribe(subject, send.send_nowait)
    async with send, receive:
        async for message in receive:
            await bus.publish(message.reply or "", answer(message), headers=message.headers)


async def a_request_gets_its_own_reply(setting: Setting) -> None:
    subject = f"{setting.name}.echo"
    answers: dict[int, bytes] = {}

    async def ask(number: int) -> None:
        reply = await setting.one.request(subject, str(number).encode(), timeout_seconds=WAIT_SECONDS)
        answers[number] = reply.data

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_serve, setting.two, subject, lambda message: message.data[::-1])
        await _until_served(setting, subject)
        async with anyio.create_task_group() as callers:
            for number in range(90):
                callers.start_soon(ask, number)
        tasks.cancel_scope.cancel()

    assert answers == {number: str(number).encode()[::-1] for number in range(90)}
    assert setting.one.statistics().pending_requests == 0


async def _until_served(setting: Setting, subject: str) -> None:
    with anyio.fail_after(WAIT_SECONDS):
        while True:
            try:
                await setting.one.request(subject, timeout_seconds=1)
                return
            except Unreachable:
                await anyio.sleep(0.001)


async def a_request_that_nobody_takes_is_unreachable_at_once(setting: Setting) -> None:
    started = anyio.current_time()
    await refused(Unreachable, setting.one.request(f"{setting.name}.nobody", timeout_seconds=WAIT_SECONDS))
    assert anyio.current_time() - started < WAIT_SECONDS / 2


async def a_request_without_an_answer_times_out(setting: Setting) -> None:
    await setting.two.subscribe(f"{setting.name}.mute", Inbox())
    await refused(TimedOut, setting.one.request(f"{setting.name}.mute", timeout_seconds=0.05))
    assert setting.one.statistics().pending_requests == 0


async def requests_below_a_prefix_are_interrupted_and_no_others(setting: Setting) -> None:
    inbox = Inbox()
    await setting.two.subscribe(f"{setting.name}.mute.*", inbox)

    async def interrupt() -> None:
        await inbox.wait_for(2)
        setting.one.interrupt(f"{setting.name}.mute.a", "the node was lost")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(interrupt)
        lost = setting.one.request(f"{setting.name}.mute.a", timeout_seconds=WAIT_SECONDS)
        tasks.start_soon(refused, Interrupted, lost)
        await refused(TimedOut, setting.one.request(f"{setting.name}.mute.b", timeout_seconds=0.5))
    assert setting.one.statistics().pending_requests == 0


async def a_cancelled_request_leaves_nothing_behind(setting: Setting) -> None:
    await setting.two.subscribe(f"{setting.name}.mute", Inbox())
    with anyio.move_on_after(0.02):
        await setting.one.request(f"{setting.name}.mute", timeout_seconds=WAIT_SECONDS)
    with anyio.move_on_after(0):
        await setting.one.flush()
    await setting.one.flush()
    assert setting.one.statistics().pending_requests == 0


async def what_cannot_be_sent_is_invalid(setting: Setting) -> None:
    for subject in ("", "a b", "a..b", ".a", "a.", "a\r\nPUB b 0"):
        await refused(Invalid, setting.one.publish(subject))
    await refused(Invalid, setting.one.publish(f"{setting.name}.x", bytes(setting.one.max_payload + 1)))
    await refused(Invalid, setting.one.subscribe("a b", Inbox()))
    await setting.one.flush()


async def a_largest_message_arrives(setting: Setting) -> None:
    inbox = Inbox()
    await setting.two.subscribe(f"{setting.name}.large", inbox)
    data = bytes(range(256)) * (setting.one.max_payload // 256)

    await setting.one.publish(f"{setting.name}.large", data)

    assert (await inbox.wait_for(1))[0].data == data


async def a_key_is_written_by_compare_and_set(setting: Setting) -> None:
    one, two = await setting.one.key_value(setting.name), await setting.two.key_value(setting.name)
    assert await one.get("key") is None
    first = await one.create("key", b"1")

    await refused(Conflict, two.create("key", b"2"))
    await refused(Conflict, two.update("key", b"2", 0))
    second = await two.update("key", b"2", first)
    await refused(Conflict, one.update("key", b"3", first))

    assert second > first
    assert await one.get("key") == Entry("key", b"2", second)
    assert await two.put("key", b"") > second
    assert (await one.get("key") or Entry("", None, 0)).value == b""


async def a_deleted_key_can_be_created_again(setting: Setting) -> None:
    store = await setting.one.key_value(setting.name)
    revision = await store.create("a.b", b"1")
    await refused(Conflict, store.delete("a.b", revision=revision + 7))
    await store.delete("a.b", revision=revision)
    await store.delete("never")

    assert await store.get("a.b") is None
    assert await store.entries() == []
    assert await store.create("a.b", b"2") > revision
    assert [entry.value for entry in await store.entries()] == [b"2"]


async def entries_come_in_the_order_of_their_revisions(setting: Setting) -> None:
    store = await setting.one.key_value(setting.name)
    assert await store.entries() == []
    for number in range(100):
        await store.put(f"key-{number % 50}", str(number).encode())
    await store.delete("key-0")

    entries = await store.entries()

    assert [entry.key for entry in entries] == [f"key-{number}" for number in range(1, 50)]
    assert [entry.revision for entry in entries] == sorted(entry.revision for entry in entries)


async def keys_below_a_prefix_come_in_pages(setting: Setting) -> None:
    store = await setting.one.key_value(setting.name)
    for number in range(7):
        await store.put(f"a.k{number}", b"x" * 1000)
    await store.put("b.other", b"")
    await store.delete("a.k2")
    await store.put("a.k0", b"again")

    found: list[str] = []
    after: int | None = 0
    pages = 0
    while after is not None:
        page, after = await store.keys("a.", after=after, limit=3)
        found.extend(page)
        pages += 1

    assert found == ["a.k1", "a.k3", "a.k4", "a.k5", "a.k6", "a.k0"]
    assert pages == 3
    assert await store.keys("c.", limit=3) == ([], None)


async def a_peek_sees_what_was_written_and_what_was_deleted(setting: Setting) -> None:
    store = await setting.one.key_value(setting.name)
    revision = await store.put("a", b"\x00value")

    assert await store.peek("a") == Entry("a", b"\x00value", revision)
    assert await store.peek("never") is None
    await store.delete("a")
    assert await store.peek("a") is None


async def a_watch_gives_all_then_none_then_changes(setting: Setting) -> None:
    store, other = await setting.one.key_value(setting.name), await setting.two.key_value(setting.name)
    await store.put("a", b"1")
    await store.put("b", b"1")
    await store.put("a", b"2")
    watched, empty = Watched(), Watched()
    watch = await other.watch(watched)
    await (await other.watch(empty)).unsubscribe()
    await watched.wait_until(lambda entries: None in entries)

    await store.put("c", b"3")
    await store.delete("b")

    entries = await watched.wait_until(lambda entries: len(entries) == 5)
    assert [(e.key, e.value) if e else None for e in entries] == [
        ("b", b"1"),
        ("a", b"2"),
        None,
        ("c", b"3"),
        ("b", None),
    ]
    await watch.unsubscribe()


async def a_watch_of_an_empty_bucket_says_so(setting: Setting) -> None:
    store = await setting.one.key_value(setting.name)
    watched = Watched()
    await store.watch(watched)

    assert await watched.wait_until(lambda entries: len(entries) > 0) == [None]


async def bad_keys_are_invalid(setting: Setting) -> None:
    store = await setting.one.key_value(setting.name)
    for key in ("", "a b", "a..b", "a.*", ">", "ä", ".a"):
        await refused(Invalid, store.put(key, b""))
        await refused(Invalid, store.get(key))


async def objects_are_stored_whole(setting: Setting) -> None:
    one, two = await setting.one.object_store(setting.name), await setting.two.object_store(setting.name)
    large = bytes(range(256)) * 10_000
    await one.put("sha256:large", large)
    await one.put("empty", b"")
    await one.put("changed", b"before")
    await one.put("changed", b"after")

    assert await two.get("sha256:large") == large
    assert await two.get("empty") == b""
    assert await two.get("changed") == b"after"
    assert await two.names() == ["changed", "empty", "sha256:large"]
    await two.delete("empty")
    await two.delete("never")
    assert await one.names() == ["changed", "sha256:large"]
    await refused(NotFound, one.get("empty"))
    await refused(NotFound, one.get("never"))


async def a_closed_bus_refuses(setting: Setting) -> None:
    await setting.one.aclose()
    await setting.one.aclose()

    assert not setting.one.is_connected
    await refused(Unreachable, setting.one.publish("x"))
    await refused(Unreachable, setting.one.request("x", timeout_seconds=1))
    await refused(Unreachable, setting.one.subscribe("x", Inbox()))


CHECKS: tuple[Callable[[Setting], Awaitable[None]], ...] = (
    a_message_reaches_every_subscriber_unchanged,
    messages_of_one_sender_keep_their_order,
    a_queue_group_gets_each_message_once,
    a_subscription_is_in_place_when_subscribe_returns,
    an_ended_subscription_is_silent,
    a_failing_handler_ends_nothing,
    a_request_gets_its_own_reply,
    a_request_that_nobody_takes_is_unreachable_at_once,
    a_request_without_an_answer_times_out,
    requests_below_a_prefix_are_interrupted_and_no_others,
    a_cancelled_request_leaves_nothing_behind,
    what_cannot_be_sent_is_invalid,
    a_largest_message_arrives,
    a_key_is_written_by_compare_and_set,
    a_deleted_key_can_be_created_again,
    entries_come_in_the_order_of_their_revisions,
    keys_below_a_prefix_come_in_pages,
    a_peek_sees_what_was_written_and_what_was_deleted,
    a_watch_gives_all_then_none_then_changes,
    a_watch_of_an_empty_bucket_says_so,
    bad_keys_are_invalid,
    objects_are_stored_whole,
    *conformance_stores.CHECKS,
    a_closed_bus_refuses,
)
