"""What every store of blobs must do: run each of `CHECKS` with a store, started, and a bucket of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import anyio

from lattice.errors import Interrupted, LatticeError
from lattice.streams import receive_body
from providers.blobstore.bucket import BlobError, Bucket, Case, Store

LARGE = 12 * 1024 * 1024
"""More than two parts of a store that uploads in parts."""

STRANGE_NAMES = (
    "plain.txt",
    "a/b/c",
    "../../etc/passwd",
    "/absolute",
    "..",
    ".",
    ".hidden",
    "trailing/",
    "double//slash",
    "spaces and\ttabs\n",
    "ümläut-日本-🦆",
    "100%",
    "%2F",
    "a*b?c&d=e+f#g",
    "-dash",
    "x" * 200,
)


@dataclass(kw_only=True)
class Setting:
    """A store that was started, and a bucket and another one, which nobody else uses."""

    store: Store
    bucket: Bucket
    other: Bucket


async def pieces(*given: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    """A stream of these pieces, which may break."""
    for piece in given:
        yield piece
    if error is not None:
        raise error


async def refused(case: Case, call: Awaitable[object]) -> None:
    """Check that the call is refused in exactly this way."""
    try:
        outcome = await call
    except BlobError as error:
        outcome = error
        if error.case == case:
            return
    raise AssertionError(f"{outcome!r} instead of {case}")


async def content(bucket: Bucket, container: str, name: str, start: int = 0, end: int | None = None) -> bytes:
    """The bytes of an object."""
    _, body = await bucket.read(container, name, start, end)
    async with body:
        return await receive_body(body, max_bytes=LARGE * 2)


async def names(bucket: Bucket, container: str, limit: int = 1000) -> list[str]:
    """All names in a container, sorted."""
    page = await bucket.page(container, limit=limit)
    found = list(page.names)
    while page.cursor:
        page = await bucket.page(container, page.cursor, limit)
        found.extend(page.names)
    return sorted(found)


async def a_container_is_made_and_known(setting: Setting) -> None:
    bucket = setting.bucket
    await refused("no-such-container", bucket.info("photos"))

    made = await bucket.create("photos")
    again = await bucket.create("photos")

    assert made == again == await bucket.info("photos")
    assert abs(made.created_at - time.time()) < 60
    assert await names(bucket, "photos") == []


async def nothing_works_in_a_container_that_does_not_exist(setting: Setting) -> None:
    bucket = setting.bucket
    await bucket.create("there")
    await bucket.write("there", "x", pieces(b"x"))

    await refused("no-such-container", bucket.write("missing", "x", pieces(b"x")))
    await refused("no-such-container", bucket.read("missing", "x"))
    await refused("no-such-container", bucket.stat("missing", "x"))
    await refused("no-such-container", bucket.page("missing"))
    await refused("no-such-container", bucket.remove("missing", "x"))
    await refused("no-such-container", bucket.clear("missing"))
    await refused("no-such-container", bucket.delete("missing"))
    await refused("no-such-container", bucket.copy(("there", "x"), ("missing", "x")))
    await refused("no-such-container", bucket.move(("there", "x"), ("missing", "x")))
    assert await names(bucket, "there") == ["x"]


async def an_object_is_stored_replaced_and_removed(setting: Setting) -> None:
    bucket = setting.bucket
    await bucket.create("c")

    written = await bucket.write("c", "o", pieces(b"first"))
    first = await content(bucket, "c", "o")
    await bucket.write("c", "o", pieces(b"the ", b"", b"second"))
    info = await bucket.stat("c", "o")
    second = await content(bucket, "c", "o")
    await bucket.remove("c", "o")
    await bucket.remove("c", "o")

    assert (first, second) == (b"first", b"the second")
    assert (written.size, info.size, info.name) == (5, 10, "o")
    assert abs(info.created_at - time.time()) < 60
    await refused("no-such-object", bucket.stat("c", "o"))
    await refused("no-such-object", bucket.read("c", "o"))


async def an_empty_object_is_one(setting: Setting) -> None:
    bucket = setting.bucket
    await bucket.create("c")

    await bucket.write("c", "empty", pieces())

    assert (await bucket.stat("c", "empty")).size == 0
    assert await content(bucket, "c", "empty") == b""
    assert await names(bucket, "c") == ["empty"]


async def a_large_object_comes_back_unchanged(setting: Setting) -> None:
    bucket = setting.bucket
    await bucket.create("c")
    piece = bytes(range(251)) * 1000
    count = LARGE // len(piece)

    await bucket.write("c", "large", pieces(*[piece] * count))

    assert await content(bucket, "c", "large") == piece * count


async def any_range_can_be_read(setting: Setting) -> None:
    bucket = setting.bucket
    await bucket.create("c")
    data = bytes(number % 251 for number in range(1_000_000))
    await bucket.write("c", "o", pieces(data))

    for start, end in [(0, 1), (0, None), (999_999, 1_000_000), (300_000, 700_000), (10, 2**62), (4, 4)]:
        assert await content(bucket, "c", "o", start, end) == data[start:end]
    await refused("invalid", bucket.read("c", "o", 1_000_000))


async def strange_names_are_names_like_any_other(setting: Setting) -> None:
    bucket = setting.bucket
    await bucket.create("c")

    for name in STRANGE_NAMES:
        await bucket.write("c", name, pieces(name.encode()))

    assert await names(bucket, "c") == sorted(STRANGE_NAMES)
    assert await names(bucket, "c", limit=3) == sorted(STRANGE_NAMES)
    for name in STRANGE_NAMES:
        assert await content(bucket, "c", name) == name.encode()
        assert (await bucket.stat("c", name)).name == name
    for name in ("", "nul\0", "x" * 1025):
        await refused("invalid", bucket.write("c", name, pieces(b"")))


async def strange_containers_are_containers_like_any_other(setting: Setting) -> None:
    bucket = setting.bucket
    strange = [name for name in STRANGE_NAMES if len(name) < 100]

    for name in strange:
        await bucket.create(name)
        await bucket.write(name, "own", pieces(name.encode()))

    for name in strange:
        assert await names(bucket, name) == ["own"]
        assert await content(bucket, name, "own") == name.encode()
    await refused("invalid", bucket.create(""))


async def what_breaks_off_leaves_nothing_behind(setting: Setting) -> None:
    bucket = setting.bucket
    await bucket.create("c")
    await bucket.write("c", "kept", pieces(b"before"))
    broken = Interrupted("the sender was lost")

    for name in ("new", "kept"):
        for size in (10, LARGE):
            outcome: object = None
            try:
                outcome = await bucket.write("c", name, pieces(b"x" * size, error=broken))
            except LatticeError as error:
                outcome = error
            assert outcome is broken, f"{outcome!r} instead of what broke it"

    assert await names(bucket, "c") == ["kept"]
    assert await content(bucket, "c", "kept") == b"before"


async def what_is_cancelled_leaves_nothing_behind(setting: Setting) -> None:
    bucket = setting.bucket
    await bucket.create("c")
    reached = anyio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * LARGE
        reached.set()
        await anyio.sleep_forever()

    async def write() -> None:
        await bucket.write("c", "new", endless())

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await reached.wait()
            tasks.cancel_scope.cancel()

    assert await names(bucket, "c") == []
    await bucket.write("c", "new", pieces(b"after"))
    assert await content(bucket, "c", "new") == b"after"


async def a_reader_may_leave_early(setting: Setting) -> None:
    bucket = setting.bucket
    await bucket.create("c")
    await bucket.write("c", "o", pieces(b"x" * LARGE))

    for _ in range(3):
        _, body = await bucket.read("c", "o")
        async with body:
            assert len(await body.receive()) > 0

    assert len(await content(bucket, "c", "o")) == LARGE


async def copies_and_moves(setting: Setting) -> None:
    bucket = setting.bucket
    for container in ("a", "b"):
        await bucket.create(container)
    await bucket.write("a", "one", pieces(b"one"))
    await bucket.write("b", "two", pieces(b"two"))

    await bucket.copy(("a", "one"), ("b", "copy"))
    await bucket.copy(("a", "one"), ("a", "one"))
    await bucket.move(("a", "one"), ("b", "two"))
    await bucket.move(("b", "two"), ("b", "two"))

    assert await names(bucket, "a") == []
    assert await names(bucket, "b") == ["copy", "two"]
    assert [await content(bucket, "b", name) for name in ("copy", "two")] == [b"one", b"one"]
    await refused("no-such-object", bucket.copy(("a", "one"), ("b", "x")))
    await refused("no-such-object", bucket.move(("a", "one"), ("b", "x")))


async def clearing_leaves_the_container_and_deleting_does_not(setting: Setting) -> None:
    bucket = setting.bucket
    for container in ("a", "b"):
        await bucket.create(container)
        for number in range(3):
            await bucket.write(container, f"folder/{number}", pieces(b"x"))

    await bucket.clear("a")
    await bucket.delete("b")

    assert await names(bucket, "a") == []
    await refused("no-such-container", bucket.info("b"))
    await bucket.create("b")
    assert await names(bucket, "b") == []


async def buckets_do_not_see_each_other(setting: Setting) -> None:
    await setting.bucket.create("c")
    await setting.bucket.write("c", "o", pieces(b"mine"))

    await refused("no-such-container", setting.other.info("c"))
    await setting.other.create("c")
    await setting.other.write("c", "o", pieces(b"yours"))
    await setting.other.clear("c")

    assert await content(setting.bucket, "c", "o") == b"mine"


async def it_says_that_it_is_well(setting: Setting) -> None:
    await setting.store.check()


CHECKS: tuple[Callable[[Setting], Awaitable[None]], ...] = (
    a_container_is_made_and_known,
    nothing_works_in_a_container_that_does_not_exist,
    an_object_is_stored_replaced_and_removed,
    an_empty_object_is_one,
    a_large_object_comes_back_unchanged,
    any_range_can_be_read,
    strange_names_are_names_like_any_other,
    strange_containers_are_containers_like_any_other,
    what_breaks_off_leaves_nothing_behind,
    what_is_cancelled_leaves_nothing_behind,
    a_reader_may_leave_early,
    copies_and_moves,
    clearing_leaves_the_container_and_deleting_does_not,
    buckets_do_not_see_each_other,
    it_says_that_it_is_well,
)
