"""What every key-value backend must do: run each of `CHECKS` with a store that is empty at first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from lattice.caller import new_call_id
from lattice.clock import now
from lattice.errors import Invalid
from providers.keyvalue.interface import ATOMICS, BATCH, MAX_KEY_BYTES, STORE, KeyValueProvider
from providers.provider import BoundLink, ProviderCall

SECONDS = 10.0


class Client:
    """Calls a provider as it is called over a link."""

    def __init__(self, provider: KeyValueProvider, source: str, bucket: str = "") -> None:
        self._provider = provider
        self._link = BoundLink(source=source, name="default", interface="wasi:keyvalue")
        self._bucket = bucket
        self._binding: Any = None

    def within(self, bucket: str) -> Client:
        """The same namespace, another bucket of it."""
        return Client(self._provider, self._link.source, bucket)

    @property
    def provider(self) -> KeyValueProvider:
        """The one that is called."""
        return self._provider

    async def call(self, interface: str, function: str, *args: Any) -> Any:
        """What the function returns."""
        if self._binding is None:
            self._binding = await self._provider.bind(self._link)
        call = ProviderCall(
            link=self._link, binding=self._binding, call_id=new_call_id(), deadline=now() + SECONDS
        )
        return await self._provider.interfaces[interface][function](call, self._bucket, *args)

    async def ok(self, interface: str, function: str, *args: Any) -> Any:
        """The value of a call that must go well."""
        result = await self.call(interface, function, *args)
        assert "ok" in result, f"{function} returned {result!r}"
        return result["ok"]

    async def refusal(self, interface: str, function: str, *args: Any) -> str:
        """The reason of a call that must not go well."""
        result = await self.call(interface, function, *args)
        assert "err" in result, f"{function} returned {result!r}"
        return str(result["err"]["other"])

    async def keys(self) -> list[str]:
        """All keys, page by page."""
        found: list[str] = []
        cursor = None
        while True:
            page = await self.ok(STORE, "list-keys", cursor)
            found.extend(page["keys"])
            cursor = page["cursor"]
            if cursor is None:
                return found


async def what_was_set_is_read(client: Client) -> None:
    for value in (b"first", b"", bytes(range(256)), b"x" * 100_000):
        await client.ok(STORE, "set", "key", value)
        assert await client.ok(STORE, "get", "key") == value
        assert await client.ok(STORE, "exists", "key") is True


async def a_missing_key_is_none_and_not_an_error(client: Client) -> None:
    assert await client.ok(STORE, "get", "never") is None
    assert await client.ok(STORE, "exists", "never") is False
    assert await client.ok(STORE, "delete", "never") is None


async def a_deleted_key_is_gone_and_can_be_set_again(client: Client) -> None:
    await client.ok(STORE, "set", "key", b"1")
    await client.ok(STORE, "delete", "key")

    assert await client.ok(STORE, "get", "key") is None
    assert await client.keys() == []
    await client.ok(STORE, "set", "key", b"2")
    assert await client.ok(STORE, "get", "key") == b"2"


async def keys_may_be_any_text(client: Client) -> None:
    keys = [
        "",
        ".",
        "a.b",
        "a..b",
        ".a",
        "=",
        "=41",
        "A",
        "*",
        ">",
        "a b",
        "a\nb",
        "ä€😀",
        "a/b:c",
        "$KV.x",
        "[x]?",
    ]
    for number, key in enumerate(keys):
        await client.ok(STORE, "set", key, str(number).encode())

    assert sorted(await client.keys()) == sorted(keys)
    for number, key in enumerate(keys):
        assert await client.ok(STORE, "get", key) == str(number).encode()
    assert "bytes" in await client.refusal(STORE, "set", "k" * (MAX_KEY_BYTES + 1), b"")
    await client.ok(STORE, "set", "ä" * (MAX_KEY_BYTES // 2), b"longest")
    assert await client.ok(STORE, "get", "ä" * (MAX_KEY_BYTES // 2)) == b"longest"


async def a_value_that_is_too_large_is_refused(client: Client) -> None:
    most = client.provider.max_value_bytes
    await client.ok(STORE, "set", "key", b"x" * most)

    assert len(await client.ok(STORE, "get", "key")) == most
    over = b"x" * (most + 1)
    for refusal in (
        await client.refusal(STORE, "set", "key", over),
        await client.refusal(BATCH, "set-many", [("other", b""), ("key", over)]),
        await client.refusal(ATOMICS, "swap", "key", over, "1"),
    ):
        assert f"of 'key' has {most + 1} bytes" in refusal
        assert f"at most {most}" in refusal
        assert "as a blob (wasi:blobstore)" in refusal
    assert await client.ok(STORE, "get", "other") is None
    assert len(await client.ok(STORE, "get", "key")) == most


async def many_keys_come_in_pages(client: Client) -> None:
    keys = [f"key-{number}" for number in range(2500)]
    for start in range(0, len(keys), 1000):
        await client.ok(BATCH, "set-many", [(key, b"v") for key in keys[start : start + 1000]])

    assert sorted(set(await client.keys())) == sorted(keys)


async def buckets_and_namespaces_are_apart(client: Client) -> None:
    other = client.within("other")
    stranger = Client(client.provider, "stranger")
    await client.ok(STORE, "set", "key", b"own")
    await other.ok(STORE, "set", "key", b"other's")

    assert await client.ok(STORE, "get", "key") == b"own"
    assert await other.ok(STORE, "get", "key") == b"other's"
    assert await stranger.ok(STORE, "get", "key") is None
    assert (await client.keys(), await other.keys(), await stranger.keys()) == (["key"], ["key"], [])
    assert await client.ok(STORE, "open") is None
    assert "err" in await client.within("b" * 300).call(STORE, "open")


async def increments_add_up(client: Client) -> None:
    assert await client.ok(ATOMICS, "increment", "count", 5) == 5
    assert await client.ok(ATOMICS, "increment", "count", -7) == -2
    assert await client.ok(STORE, "get", "count") == b"-2"
    await client.ok(STORE, "set", "count", b"40")
    assert await client.ok(ATOMICS, "increment", "count", 2) == 42


async def what_is_no_number_or_too_large_is_not_incremented(client: Client) -> None:
    await client.ok(STORE, "set", "large", str(2**63 - 1).encode())

    assert await client.refusal(ATOMICS, "increment", "large", 1)
    for text in (
        b"abc",
        b"",
        b"1_0",
        b" 1",
        b"1\n",
        b"+1",
        b"-0",
        b"01",
        b"1.0",
        str(2**63).encode(),
        b"\xff",
    ):
        await client.ok(STORE, "set", "text", text)
        assert await client.refusal(ATOMICS, "increment", "text", -1), text
        assert await client.ok(STORE, "get", "text") == text
    assert await client.ok(STORE, "get", "large") == str(2**63 - 1).encode()


async def increments_at_the_same_time_all_count(client: Client) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(25):
            tasks.start_soon(client.ok, ATOMICS, "increment", "count", 1)

    assert await client.ok(STORE, "get", "count") == b"25"


async def a_swap_needs_the_state_that_was_read(client: Client) -> None:
    absent = await client.ok(ATOMICS, "current", "key")
    assert absent["value"] is None
    assert await client.ok(ATOMICS, "swap", "key", b"1", absent["version"]) is True
    assert await client.ok(ATOMICS, "swap", "key", b"2", absent["version"]) is False

    present = await client.ok(ATOMICS, "current", "key")
    assert present["value"] == b"1"
    assert await client.ok(ATOMICS, "swap", "key", b"3", present["version"]) is True
    assert await client.ok(ATOMICS, "swap", "key", b"4", present["version"]) is False
    assert await client.ok(STORE, "get", "key") == b"3"


async def of_swaps_at_the_same_time_one_wins(client: Client) -> None:
    await client.ok(STORE, "set", "key", b"before")
    state = await client.ok(ATOMICS, "current", "key")
    won: list[bytes] = []

    async def swap(value: bytes) -> None:
        if await client.ok(ATOMICS, "swap", "key", value, state["version"]):
            won.append(value)

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(swap, str(number).encode())

    assert len(won) == 1
    assert await client.ok(STORE, "get", "key") == won[0]


async def batches_do_what_their_parts_do(client: Client) -> None:
    await client.ok(BATCH, "set-many", [("a", b"1"), ("b", b"2"), ("a", b"3")])

    assert await client.ok(BATCH, "get-many", ["b", "never", "a", "b"]) == [b"2", None, b"3", b"2"]
    await client.ok(BATCH, "delete-many", ["a", "never"])
    assert await client.keys() == ["b"]
    assert await client.ok(BATCH, "get-many", []) == []
    assert await client.ok(BATCH, "set-many", []) is None
    assert await client.ok(BATCH, "delete-many", []) is None
    assert "keys at once" in await client.refusal(BATCH, "get-many", ["k"] * 1001)


async def a_links_configuration_is_checked(client: Client) -> None:
    for configuration, word in (
        ({"bukket": "a"}, "`bucket`"),
        ({"bucket": "a.b"}, "letters"),
        ({"bucket": ""}, "letters"),
    ):
        link = BoundLink(source="a", name="default", interface="wasi:keyvalue", configuration=configuration)
        reason = ""
        try:
            await client.provider.bind(link)
        except Invalid as error:
            reason = error.message
        assert word in reason, f"{configuration}: {reason!r}"


CHECKS: tuple[Callable[[Client], Awaitable[None]], ...] = (
    what_was_set_is_read,
    a_missing_key_is_none_and_not_an_error,
    a_deleted_key_is_gone_and_can_be_set_again,
    keys_may_be_any_text,
    a_value_that_is_too_large_is_refused,
    many_keys_come_in_pages,
    buckets_and_namespaces_are_apart,
    increments_add_up,
    what_is_no_number_or_too_large_is_not_incremented,
    increments_at_the_same_time_all_count,
    a_swap_needs_the_state_that_was_read,
    of_swaps_at_the_same_time_one_wins,
    batches_do_what_their_parts_do,
    a_links_configuration_is_checked,
)
