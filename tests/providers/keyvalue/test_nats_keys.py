"""Keys of any text become keys of NATS, and back; increments of several processes add up."""

from __future__ import annotations

import anyio
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


async def test_increments_of_several_processes_add_up(nats_server: NatsServer, lattice_name: str) -> None:
    async with NatsBus(nats_server.settings()) as one, NatsBus(nats_server.settings()) as two:
        contexts = [ProviderContext(name="a", lattice=lattice_name, bus=bus) for bus in (one, two)]
        clients = [Client(NatsKeyValue(context, NatsSettings()), "a") for context in contexts]
        async with anyio.create_task_group() as tasks:
            for client in clients * 15:
                tasks.start_soon(client.ok, ATOMICS, "increment", "count", 1)

        assert await clients[0].ok(STORE, "get", "count") == b"30"
