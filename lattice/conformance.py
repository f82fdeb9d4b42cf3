"""What every `Bus` must do: run each of `CHECKS` with two buses on one server and a name of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio

from lattice.bus import Bus, Entry, Message, QueueSettings, Work, WorkQueue
from lattice.errors import Conflict, Interrupted, Invalid, LatticeError, NotFound, TimedOut, Unreachable
from lattice.streams import receive_body

WAIT_SECONDS = 5.0


@dataclass(kw_only=True)
class Setting:
    """Two connected buses on one server, and a name for subjects and buckets."""

    one: Bus
    two: Bus
    name: str


@dataclass
class Inbox:
    """A handler that keeps what it was given, and can be waited for."""

    messages: list[Message] = field(default_factory=list)
    _came: anyio.Event = field(default_factory=anyio.Event)

    def __call__(self, message: Message) -> None:
        self.messages.append(message)
        self._came.set()

    async def wait_for(self, count: int) -> list[Message]:
        """What came, once it is so many."""
        with anyio.fail_after(WAIT_SECONDS):
            while len(self.messages) < count:
                self._came = anyio.Event()
                await self._came.wait()
        return self.messages


@dataclass
class Watched:
    """A watch's handler that keeps what it was given, and can be waited for."""

    entries: list[Entry | None] = field(default_factory=list)
    restarts: list[bool] = field(default_factory=list)
    _came: anyio.Event = field(default_factory=anyio.Event)

    def __call__(self, entry: Entry | None) -> None:
        self.entries.append(entry)
        self._came.set()

    async def wait_until(
        self, condition: Callable[[list[Entry | None]], bool], seconds: float = WAIT_SECONDS
    ) -> list[Entry | None]:
        """What came, once the condition holds."""
        with anyio.fail_after(seconds):
            while not condition(self.entries):
                self._came = anyio.Event()
                await self._came.wait()
        return self.entries


async def refused(expected: type[LatticeError], call: Awaitable[object]) -> None:
    """Check that the call raises exactly this error."""
    try:
        outcome = await call
    except LatticeError as error:
        outcome = error
    assert type(outcome) is expected, f"{outcome!r} instead of {expected.__name__}"


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


async def _pieces(*pieces: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if error is not None:
        raise error


async def an_object_is_written_and_read_as_a_stream(setting: Setting) -> None:
    store = await setting.one.object_store(setting.name)
    data = bytes(range(256)) * 8192

    written = await store.write("large", _pieces(data[:100], b"", data[100:700_000], data[700_000:]))
    info, body = await store.read("large")
    read = await receive_body(body, max_bytes=len(data))

    assert read == data
    assert (written.size, info.size, info.name) == (len(data), len(data), "large")
    assert abs(info.modified - time.time()) < 60
    assert await store.info("large") == info


async def any_range_of_an_object_can_be_read(setting: Setting) -> None:
    store = await setting.one.object_store(setting.name)
    data = bytes(number % 251 for number in range(1_200_000))
    await store.write("numbers", _pieces(data))

    for start, end in [(0, 0), (0, 1), (524_287, 524_289), (1_100_000, None), (700_000, 2**40), (5, 5)]:
        _, body = await store.read("numbers", start=start, end=end)
        assert await receive_body(body, max_bytes=len(data)) == data[start:end]


async def an_object_that_was_not_written_whole_is_not_there(setting: Setting) -> None:
    store = await setting.one.object_store(setting.name)
    await store.put("kept", b"before")

    for name in ("new", "kept"):
        await refused(Interrupted, store.write(name, _pieces(b"x" * 700_000, error=Interrupted("lost"))))

    assert await store.names() == ["kept"]
    assert await store.get("kept") == b"before"


async def objects_are_listed_in_pages(setting: Setting) -> None:
    store = await setting.one.object_store(setting.name)
    for number in range(7):
        await store.put(f"object {number}", b"x" * number)
    await store.delete("object 3")

    found: list[str] = []
    page = await store.page(limit=2)
    found.extend(item.name for item in page.objects)
    while page.cursor:
        page = await store.page(page.cursor, limit=2)
        found.extend(item.name for item in page.objects)

    assert sorted(found) == [f"object {number}" for number in (0, 1, 2, 4, 5, 6)]
    await store.clear()
    assert (await store.page()).objects == ()


async def a_store_that_is_not_to_be_made_is_not_found(setting: Setting) -> None:
    missing = await setting.one.object_store(setting.name, make=False)

    await refused(NotFound, missing.write("x", _pieces(b"x")))
    await refused(NotFound, missing.read("x"))
    await refused(NotFound, missing.page())
    await refused(NotFound, missing.created_at())
    made = await setting.two.object_store(setting.name)
    assert abs(await made.created_at() - time.time()) < 60
    await missing.put("x", b"x")
    await setting.two.delete_object_store(setting.name)
    await refused(NotFound, missing.info("x"))
    await refused(NotFound, setting.two.delete_object_store(setting.name))


def _queue(setting: Setting, **changes: Any) -> QueueSettings:
    return QueueSettings(
        stream=setting.name, name="workers", subject=f"{setting.name}.work.>", **{"prefetch": 4, **changes}
    )


async def _take(queue: WorkQueue) -> Work:
    with anyio.fail_after(WAIT_SECONDS):
        return await queue.take()


async def work_is_given_once_among_all_who_take(setting: Setting) -> None:
    one = await setting.one.work_queue(_queue(setting))
    two = await setting.two.work_queue(_queue(setting))
    for number in range(20):
        await setting.one.publish_stored(
            f"{setting.name}.work.{number}", b"%d" % number, headers={"n": str(number)}, timeout_seconds=5
        )

    taken: list[Work] = []

    async def work(queue: WorkQueue) -> None:
        while True:
            taken.append(item := await queue.take())
            await item.done()
            if len(taken) == 20:
                tasks.cancel_scope.cancel()

    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, one)
            tasks.start_soon(work, two)

    assert sorted(int(item.message.data) for item in taken) == list(range(20))
    assert {item.message.subject for item in taken} == {f"{setting.name}.work.{n}" for n in range(20)}
    assert all(item.message.headers["n"] == item.message.data.decode() for item in taken)
    assert {item.attempt for item in taken} == {1}
    assert len({item.sequence for item in taken}) == 20


async def work_that_is_not_settled_is_given_again(setting: Setting) -> None:
    queue = await setting.one.work_queue(_queue(setting, ack_wait_seconds=0.3))
    await setting.one.publish_stored(f"{setting.name}.work.x", b"x", timeout_seconds=5)

    first = await _take(queue)
    again = await _take(queue)
    await again.retry(0.05)
    third = await _take(queue)
    for _ in range(6):
        await anyio.sleep(0.1)
        await third.in_progress()
    await third.done()
    with anyio.move_on_after(0.6) as scope:
        await queue.take()

    assert [item.attempt for item in (first, again, third)] == [1, 2, 3]
    assert scope.cancelled_caught


async def a_queue_keeps_its_place_and_what_came_meanwhile(setting: Setting) -> None:
    queue = await setting.one.work_queue(_queue(setting))
    for text in ("a", "b"):
        await setting.one.publish_stored(f"{setting.name}.work.x", text.encode(), timeout_seconds=5)
    await (await _take(queue)).done()
    await queue.aclose()
    await setting.one.publish_stored(f"{setting.name}.work.x", b"c", timeout_seconds=5)

    opened = await setting.two.work_queue(_queue(setting))
    left = [(await _take(opened)).message.data for _ in range(2)]

    assert left == [b"b", b"c"]


async def a_subject_that_no_stream_stores_is_not_found(setting: Setting) -> None:
    await refused(NotFound, setting.one.publish_stored(f"{setting.name}.nowhere", b"", timeout_seconds=1))


async def a_stream_is_made_once_for_a_subject(setting: Setting) -> None:
    subject = f"{setting.name}.dead"
    await setting.one.make_stream(f"{setting.name}-one", subject)
    await setting.two.make_stream(f"{setting.name}-two", subject)

    assert await setting.one.publish_stored(subject, b"x", timeout_seconds=5) == 1
    assert await setting.two.publish_stored(subject, b"y", timeout_seconds=5) == 2


async def a_queue_of_a_stream_without_its_subject_is_invalid(setting: Setting) -> None:
    await setting.one.work_queue(_queue(setting))

    other = QueueSettings(stream=setting.name, name="others", subject=f"{setting.name}.play")
    await refused(Invalid, setting.one.work_queue(other))


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
    an_object_is_written_and_read_as_a_stream,
    any_range_of_an_object_can_be_read,
    an_object_that_was_not_written_whole_is_not_there,
    objects_are_listed_in_pages,
    a_store_that_is_not_to_be_made_is_not_found,
    work_is_given_once_among_all_who_take,
    work_that_is_not_settled_is_given_again,
    a_queue_keeps_its_place_and_what_came_meanwhile,
    a_subject_that_no_stream_stores_is_not_found,
    a_stream_is_made_once_for_a_subject,
    a_queue_of_a_stream_without_its_subject_is_invalid,
    a_closed_bus_refuses,
)
