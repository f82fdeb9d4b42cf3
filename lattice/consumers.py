"""Durable consumers of JetStream: made for queues of work, found by their owner, and let go.

A consumer is never deleted outright: whoever decides that may be late, and its request later still. It is
told to end by itself once nobody has taken from it for a while, which whoever opens its queue again takes
back. So a queue that is in use stays, whatever anybody else believes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from lattice import jetstream
from lattice.bus import OwnedQueue, QueueSettings
from lattice.errors import Failed, LatticeError, Unreachable

OWNER = "lattice-owner"
"""The key of a consumer's metadata under which its owner stands."""
CONSUMER_NOT_FOUND = 10014
APPEARED, VANISHED = 10148, 10149
"""It was not there a moment ago, or was."""
ATTEMPTS = 3
STORES = ("KV_", "OBJ_")
"""Streams of stores have no queues."""


async def make(bus: jetstream.Transport, settings: QueueSettings) -> None:
    """Make the queue's consumer, or have the one that is there work as the settings say, and stay.

    It is marked with the owner only where it is made: one that somebody else made stays theirs.
    """
    for _ in range(ATTEMPTS):
        present = await _config(bus, settings.stream, settings.name)
        config = _wanted(settings, None if present is None else present.get("metadata"))
        try:
            await _store(bus, settings.stream, config, action="create" if present is None else "update")
        except Failed as error:
            if error.details.get("err_code") not in (APPEARED, VANISHED):
                raise
        else:
            return
    raise Unreachable(f"queue {settings.name!r} of {settings.stream!r} is made and deleted again and again")


async def owned(bus: jetstream.Transport, owner: str) -> list[OwnedQueue]:
    """All that were made for the owner."""
    found: list[OwnedQueue] = []
    async with aclosing(_pages(bus, "STREAM.LIST", "streams")) as streams:
        async for stream in streams:
            name = stream["config"]["name"]
            if stream["state"].get("consumer_count") and not name.startswith(STORES):
                found += await _owned_of(bus, name, owner)
    return found


async def _owned_of(bus: jetstream.Transport, stream: str, owner: str) -> list[OwnedQueue]:
    found: list[OwnedQueue] = []
    try:
        async with aclosing(_pages(bus, f"CONSUMER.LIST.{stream}", "consumers")) as consumers:
            async for consumer in consumers:
                config = consumer["config"]
                if (config.get("metadata") or {}).get(OWNER) == owner:
                    is_retired = bool(config.get("inactive_threshold"))
                    found.append(OwnedQueue(stream=stream, name=consumer["name"], is_retired=is_retired))
    except jetstream.StreamLost:
        return []
    return found


async def retire(bus: jetstream.Transport, queue: OwnedQueue, idle_seconds: float) -> None:
    """Have the server delete it once nobody has taken from it for so long."""
    config = await _config(bus, queue.stream, queue.name)
    if config is None:
        return
    config["inactive_threshold"] = int(idle_seconds * jetstream.NANOSECONDS)
    try:
        await _store(bus, queue.stream, config, action="update")
    except Failed as error:
        if error.details.get("err_code") != VANISHED:
            raise


def _wanted(settings: QueueSettings, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Without an `inactive_threshold`: nothing but the end of its trigger may end it."""
    if metadata is None:
        metadata = {OWNER: settings.owner} if settings.owner else {}
    return {
        "durable_name": settings.name,
        "name": settings.name,
        "ack_policy": "explicit",
        "ack_wait": int(settings.ack_wait_seconds * jetstream.NANOSECONDS),
        "deliver_policy": "all" if settings.from_start else "new",
        "replay_policy": "instant",
        "filter_subject": settings.subject,
        "max_deliver": -1,
        "max_ack_pending": settings.max_pending,
        "metadata": dict(metadata),
    }


async def _config(bus: jetstream.Transport, stream: str, name: str) -> dict[str, Any] | None:
    try:
        info = await jetstream.call(bus, f"CONSUMER.INFO.{stream}.{name}")
    except jetstream.StreamLost:
        return None
    except LatticeError as error:
        if error.details.get("err_code") == CONSUMER_NOT_FOUND:
            return None
        raise
    config: dict[str, Any] = info["config"]
    return config


async def _store(bus: jetstream.Transport, stream: str, config: Mapping[str, Any], *, action: str) -> None:
    operation = f"CONSUMER.CREATE.{stream}.{config['name']}"
    if subject := config.get("filter_subject"):
        operation += f".{subject}"
    await jetstream.call(bus, operation, {"stream_name": stream, "config": config, "action": action})


async def _pages(bus: jetstream.Transport, operation: str, field: str) -> AsyncGenerator[dict[str, Any]]:
    offset, total = 0, 1
    while offset < total:
        page = await jetstream.call(bus, operation, {"offset": offset})
        items = page.get(field) or []
        for item in items:
            yield item
        offset, total = offset + len(items), page["total"] if items else 0
