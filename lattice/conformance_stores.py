"""What every `Bus` must do with large objects and with queues of work; a part of `lattice.conformance`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio

from lattice.bus import OwnedQueue, QueueSettings, Work, WorkQueue
from lattice.conformance_setting import WAIT_SECONDS, Setting, refused
from lattice.errors import Interrupted, Invalid, NotFound
from lattice.streams import receive_body


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
        stream=setting.name,
        subject=f"{setting.name}.work.>",
        **{"name": "workers", "prefetch": 4, **changes},
    )


MEASUREMENTS = 5
"""Of what holds unless the machine stands still meanwhile."""


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

    assert [item.attempt for item in (first, again, third)] == [1, 2, 3]


async def work_that_is_in_progress_is_not_given_again(setting: Setting) -> None:
    queue = await setting.one.work_queue(_queue(setting, ack_wait_seconds=0.3))

    for _ in range(MEASUREMENTS):
        await setting.one.publish_stored(f"{setting.name}.work.x", b"x", timeout_seconds=5)
        work = await _take(queue)
        for _ in range(6):
            await anyio.sleep(0.1)
            await work.in_progress()
        await work.done()
        with anyio.move_on_after(0.6):
            await (await queue.take()).done()
            continue  # this machine stood still for longer than the wait
        return
    raise AssertionError("it was given again each time")


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


async def _is_there(setting: Setting) -> bool | None:
    """Whether the queue is retired; None when it is gone."""
    owned = await setting.two.owned_queues(setting.name)
    return next((item.is_retired for item in owned if item.name == "workers"), None)


async def a_queue_is_found_by_its_owner_alone(setting: Setting) -> None:
    await setting.one.work_queue(_queue(setting))
    await setting.one.work_queue(_queue(setting, owner=setting.name))  # which does not make it its owner
    await setting.one.work_queue(_queue(setting, name="owned", owner=setting.name))

    owned = await setting.two.owned_queues(setting.name)

    assert owned == [OwnedQueue(stream=setting.name, name="owned", is_retired=False)]
    assert await setting.two.owned_queues(f"{setting.name}-other") == []


async def a_retired_queue_ends_once_nobody_takes_from_it(setting: Setting) -> None:
    queue = await setting.one.work_queue(_queue(setting, owner=setting.name))
    await setting.one.publish_stored(f"{setting.name}.work.x", b"x", timeout_seconds=5)
    await (await _take(queue)).done()
    (owned,) = await setting.two.owned_queues(setting.name)
    await setting.two.retire_queue(owned, idle_seconds=0.2)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.take)
        await anyio.sleep(1.0)
        assert await _is_there(setting) is True  # somebody waits for work all the while
        tasks.cancel_scope.cancel()

    await queue.aclose()
    with anyio.fail_after(WAIT_SECONDS):
        while await _is_there(setting) is not None:  # noqa: ASYNC110 - the server tells nobody
            await anyio.sleep(0.02)
    await setting.two.retire_queue(owned, idle_seconds=0.2)
    again = await setting.two.work_queue(_queue(setting, owner=setting.name))
    assert (await _take(again)).message.data == b"x"


async def a_retired_queue_that_is_opened_again_stays_as_it_was(setting: Setting) -> None:
    queue = await setting.one.work_queue(_queue(setting, owner=setting.name))
    for text in ("a", "b"):
        await setting.one.publish_stored(f"{setting.name}.work.x", text.encode(), timeout_seconds=5)
    await (await _take(queue)).done()
    await queue.aclose()
    (owned,) = await setting.two.owned_queues(setting.name)

    await setting.two.retire_queue(owned, idle_seconds=1.5)
    opened = await setting.two.work_queue(_queue(setting, owner=setting.name))
    await anyio.sleep(2.0)

    assert await _is_there(setting) is False
    assert (await _take(opened)).message.data == b"b"


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


CHECKS: tuple[Callable[[Setting], Awaitable[None]], ...] = (
    an_object_is_written_and_read_as_a_stream,
    any_range_of_an_object_can_be_read,
    an_object_that_was_not_written_whole_is_not_there,
    objects_are_listed_in_pages,
    a_store_that_is_not_to_be_made_is_not_found,
    work_is_given_once_among_all_who_take,
    work_that_is_not_settled_is_given_again,
    work_that_is_in_progress_is_not_given_again,
    a_queue_keeps_its_place_and_what_came_meanwhile,
    a_queue_is_found_by_its_owner_alone,
    a_retired_queue_ends_once_nobody_takes_from_it,
    a_retired_queue_that_is_opened_again_stays_as_it_was,
    a_subject_that_no_stream_stores_is_not_found,
    a_stream_is_made_once_for_a_subject,
    a_queue_of_a_stream_without_its_subject_is_invalid,
)
