"""The thumbnails example on real nodes: blobs, messages and replies together, wherever its replicas run."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import pytest

from ctl.client import ControlClient
from lattice.bus import Message
from lattice.errors import TimedOut, Unreachable
from lattice.nats_bus import NatsBus
from tests.e2e.processes import EXAMPLES, Lattice

pytestmark = pytest.mark.slow

THUMBS = EXAMPLES / "thumbs/c/thumbs.wasm"
PHOTO = bytes(number % 251 for number in range(300_000))
LINKS = (("wasi:blobstore", "blobstore-nats"), ("wasmcloud:messaging", "messaging-nats"))


async def deployed(lattice: Lattice, client: ControlClient, configuration: Mapping[str, str]) -> None:
    """Three replicas that take messages on `photos.added`."""
    await lattice.deploy(THUMBS, replicas=3, links=LINKS)
    await client.put_link(
        "thumbs", "wasmcloud:messaging", "messaging-nats", configuration=dict(configuration)
    )
    await client.put_trigger("thumbs", "messaging", {"subject": "photos.added"})


async def asked(bus: NatsBus, name: bytes, seconds: float = 10) -> Message:
    """The reply to a message, as soon as somebody takes it."""
    with anyio.fail_after(20):
        while True:
            try:
                return await bus.request("photos.added", name, timeout_seconds=seconds)
            except Unreachable:
                await anyio.sleep(0.05)


async def test_a_message_is_handled_with_blobs_and_replied_to(
    lattice: Lattice, client: ControlClient
) -> None:
    await deployed(lattice, client, {"publish": "thumbs.>"})
    made: list[Message] = []

    assert await client.call("thumbs", "add", ["cat", PHOTO]) == {"ok": len(PHOTO)}
    async with lattice.bus() as bus:
        await bus.subscribe("thumbs.made", made.append)
        replies = [(await asked(bus, b"cat")).data for _ in range(9)]

    assert replies == [b"made cat"] * 9
    assert [message.data for message in made] == [b"made cat"] * 9
    assert made[0].headers["lattice-source"] == "thumbs"
    assert await client.call("thumbs", "thumb", ["cat"]) == {"ok": PHOTO[::16]}


async def test_what_the_link_does_not_grant_is_not_sent(lattice: Lattice, client: ControlClient) -> None:
    await deployed(lattice, client, {"publish": "other.>"})
    made: list[Message] = []
    await client.call("thumbs", "add", ["dog", PHOTO])

    async with lattice.bus() as bus:
        await bus.subscribe("thumbs.made", made.append)
        with pytest.raises(TimedOut):
            await asked(bus, b"dog", seconds=1)

    assert made == []
