"""Key-value in memory: what its size is counted by."""

from __future__ import annotations

import pytest

from providers.keyvalue.interface import Refused
from providers.keyvalue.memory import BUCKET_BYTES, ENTRY_BYTES, MemoryKeyValue, MemorySettings
from providers.registry import ProviderContext


def make(**settings: int) -> MemoryKeyValue:
    context = ProviderContext(name="store", lattice="default", bus=None)  # type: ignore[arg-type]
    return MemoryKeyValue(context, MemorySettings(**settings))


async def test_buckets_that_are_only_asked_for_take_nothing() -> None:
    provider = make()

    for number in range(1000):
        store = provider.store("app", f"bucket-{number}")
        assert await store.get("key") is None
        await store.delete("key")

    assert provider.buckets == {}
    assert provider.used_bytes == 0


async def test_an_emptied_bucket_takes_nothing_and_is_used_again() -> None:
    provider = make()
    one, same = provider.store("app", ""), provider.store("app", "")

    await one.set("key", b"value")
    assert provider.used_bytes == BUCKET_BYTES + ENTRY_BYTES + 8
    assert await same.get("key") == b"value"
    await one.delete("key")
    assert provider.used_bytes == 0
    await same.set("key", b"again")

    assert await one.get("key") == b"again"


async def test_many_buckets_of_a_key_each_fill_the_store() -> None:
    provider = make(max_bytes=10 * (BUCKET_BYTES + ENTRY_BYTES + 2))

    for number in range(10):
        await provider.store("app", str(number)).set("k", b"v")
    with pytest.raises(Refused, match="full"):
        await provider.store("app", "another").set("k", b"v")

    assert len(provider.buckets) == 10
