"""Keys of any text become keys of NATS, and back; increments of several processes add up."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.bus import check_key
from lattice.nats_bus import NatsBus
from providers.keyvalue.conformance import Client
from providers.keyvalue.interface import ATOMICS, STORE
from providers.keyvalue.nats import NatsKeyValue, NatsSettings, escape, unescape
from providers.registry import ProviderContext
from tests.servers import NatsServer


@given(text=st.text())
def test_any_text_is_a_token_and_comes_back(text: str) -> None:
    token = escape(text)

    check_key(f"{token}.{token}")
    assert "." not in token
    assert unescape(token) == text


@given(one=st.text(), other=st.text())
def test_different_texts_are_different_tokens(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@pytest.mark.fault
async def test_the_servers_largest_message_is_a_limit_that_is_named(
    make_nats_server: Callable[..., NatsServer], lattice_name: str
) -> None:
    server = make_nats_server(max_payload=64 * 1024)
    bucket, key = "$" * 256, "$" * 1024  # each byte of which is three of the subject
    async with NatsBus(server.settings()) as bus:
        context = ProviderContext(name="a", lattice=lattice_name, bus=bus)
        client = Client(NatsKeyValue(context, NatsSettings()), "a").within(bucket)
        own = Client(NatsKeyValue(context, NatsSettings(max_value=1000)), "a")
        most = client.provider.max_value_bytes

        await client.ok(STORE, "set", key, b"x" * most)
        refusal = await client.refusal(STORE, "set", key, b"x" * (most + 1))
        own_refusal = await own.refusal(STORE, "set", "key", b"x" * 1001)

    assert most == 64 * 1024 - 8192
    assert f"takes at most {most} (what one message of the NATS server carries): keep what is" in refusal
    assert "takes at most 1000: keep what is larger as a blob (wasi:blobstore)" in own_refusal


async def test_increments_of_several_processes_add_up(nats_server: NatsServer, lattice_name: str) -> None:
    async with NatsBus(nats_server.settings()) as one, NatsBus(nats_server.settings()) as two:
        contexts = [ProviderContext(name="a", lattice=lattice_name, bus=bus) for bus in (one, two)]
        clients = [Client(NatsKeyValue(context, NatsSettings()), "a") for context in contexts]
        async with anyio.create_task_group() as tasks:
            for client in clients * 15:
                tasks.start_soon(client.ok, ATOMICS, "increment", "count", 1)

        assert await clients[0].ok(STORE, "get", "count") == b"30"
