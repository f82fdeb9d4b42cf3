"""Components that call components: on one node, over the lattice, in chains and circles, without a link."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import pytest

from ctl.calling import CallOptions
from ctl.client import ControlClient
from lattice.errors import LatticeError
from providers.provider import ProviderFunction
from providers.sdk import Provider, ProviderCall, offering
from tests.e2e.artifacts import relay
from tests.e2e.processes import GREETER, GREETER_KV, KV_STORE, TYPES, Lattice, until
from tests.e2e.questions import holders

pytestmark = pytest.mark.slow

GREETING = "Hello, Ada!"
STORE = "demo:kv/store"


async def greet(client: ControlClient, name: str = "Ada") -> str:
    return str(await client.call("greeter-kv", "hello", [name], options=CallOptions(budget_seconds=5)))


async def test_a_link_is_served_by_the_replica_on_the_same_node(
    lattice: Lattice, client: ControlClient
) -> None:
    await lattice.deploy(KV_STORE, replicas=3)
    await lattice.deploy(GREETER_KV, replicas=3, links=((STORE, "kv-store"),))

    for node in lattice.nodes.values():
        options = CallOptions(node=node.id)
        assert (await client.call("greeter-kv", "hello", ["Ada"], options=options)).startswith("Hello, Ada!")

    (link,) = await client.links("greeter-kv")
    assert link.route == "local"
    calls = {item.node_name: item.calls for item in await client.replicas("kv-store")}
    assert calls == {"a": 1, "b": 1, "c": 1}


async def test_a_link_is_served_over_the_lattice(lattice: Lattice, client: ControlClient) -> None:
    await lattice.deploy(KV_STORE)
    await lattice.deploy(GREETER_KV, replicas=3, links=((STORE, "kv-store"),))

    for node in lattice.nodes.values():
        options = CallOptions(node=node.id)
        assert (await client.call("greeter-kv", "hello", ["Ada"], options=options)).startswith("Hello, Ada!")

    (link,) = await client.links("greeter-kv")
    assert link.route == "remote"
    assert [item.calls for item in await client.replicas("kv-store")] == [3]


async def test_an_import_without_a_link_is_refused_with_the_line_that_grants_it(lattice: Lattice) -> None:
    done = await lattice.ctl("deploy", GREETER_KV)

    assert done.code == 1
    assert f"latticectl link put greeter-kv {STORE}" in done.err
    assert "Traceback" not in done.err


async def test_a_link_may_be_put_before_its_source_is_deployed(
    lattice: Lattice, client: ControlClient
) -> None:
    await lattice.deploy(KV_STORE)
    put = await lattice.ctl("link", "put", "greeter-kv", STORE, "kv-store")
    assert put.code == 0, put.err

    await lattice.deploy(GREETER_KV)

    assert (await greet(client)).startswith(GREETING)


async def test_a_link_that_does_not_fit_is_refused_by_name(lattice: Lattice) -> None:
    await lattice.deploy(GREETER)
    await lattice.deploy(TYPES)
    await lattice.deploy(KV_STORE)
    await lattice.deploy(GREETER_KV, links=((STORE, "kv-store"),))

    to_greeter = await lattice.ctl("link", "put", "greeter-kv", STORE, "greeter")
    unknown = await lattice.ctl("link", "put", "greeter-kv", "demo:kv/stor", "kv-store")

    assert to_greeter.code == 1 and "does not export demo:kv/store" in to_greeter.err
    assert unknown.code == 1 and "did you mean" in unknown.err


async def test_a_deleted_link_is_denied_and_a_new_one_serves_again(
    lattice: Lattice, client: ControlClient
) -> None:
    await lattice.deploy(KV_STORE)
    await lattice.deploy(GREETER_KV, links=((STORE, "kv-store"),))
    assert (await greet(client)).startswith(GREETING)

    await client.delete_link("greeter-kv", STORE)
    await until(lambda: _is_refused(client), what="calls are refused")
    with pytest.raises(LatticeError, match=f"latticectl link put greeter-kv {STORE}"):
        await greet(client)

    await client.put_link("greeter-kv", STORE, "kv-store")
    assert (await until(lambda: greet(client))).startswith(GREETING)


async def _is_refused(client: ControlClient) -> bool:
    try:
        await client.call("greeter-kv", "hello", ["Ada"], options=CallOptions(budget_seconds=0.3))
    except LatticeError:
        return True
    return False


async def test_a_chain_of_links_crosses_three_nodes(lattice: Lattice, client: ControlClient) -> None:
    relays = [relay(lattice.folder, f"relay-{number}") for number in (1, 2)]
    await lattice.deploy(KV_STORE, labels={"node": "a"})
    await lattice.deploy(relays[0], labels={"node": "b"}, links=((STORE, "kv-store"),))
    await lattice.deploy(relays[1], labels={"node": "c"}, links=((STORE, "relay-1"),))
    await lattice.deploy(GREETER_KV, labels={"node": "a"}, links=((STORE, "relay-2"),))

    assert (await greet(client)).startswith(GREETING)


class Witness(Provider):
    """Answers with what accompanied the call: its trace, what is left of its budget, and who called."""

    types = {STORE: {"get": "func(key: string) -> option<string>"}}  # noqa: RUF012 - as providers declare it

    @property
    def interfaces(self) -> Mapping[str, Mapping[str, ProviderFunction]]:
        return {STORE: {"get": self._get}}

    async def _get(self, call: ProviderCall, key: str) -> str:
        return f"{call.traceparent} {call.seconds_left:.3f} {call.link.source}"


async def test_trace_and_budget_reach_the_end_of_a_chain_over_three_nodes_and_a_process(
    lattice: Lattice, client: ControlClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    relays = [relay(lattice.folder, f"relay-{number}") for number in (1, 2)]
    monkeypatch.setenv("LATTICE_STATE", str(lattice.folder))
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with offering(Witness, name="witness", lattice=lattice.name):
        await lattice.deploy(relays[0], labels={"node": "b"}, links=((STORE, "witness"),))
        await lattice.deploy(relays[1], labels={"node": "c"}, links=((STORE, "relay-1"),))
        await lattice.deploy(GREETER_KV, labels={"node": "a"}, links=((STORE, "relay-2"),))

        options = CallOptions(budget_seconds=5, traceparent=trace)
        answer = str(await client.call("greeter-kv", "hello", ["Ada"], options=options))

    traceparent, left, source = answer.partition("You said: ")[2].split()
    assert traceparent.split("-")[:2] == trace.split("-")[:2]
    assert 2 < float(left.rstrip(".")) < 5
    assert source.startswith("relay-1")


async def test_a_circle_of_links_ends_with_an_error_that_says_so(
    lattice: Lattice, client: ControlClient
) -> None:
    relays = [relay(lattice.folder, f"relay-{number}") for number in (1, 2)]
    await lattice.deploy(relays[0], links=((STORE, "relay-2"),), waits=False)
    await lattice.deploy(relays[1], links=((STORE, "relay-1"),))
    await until(lambda: holders(client, "relay-1"), what="relay-1 runs")

    with anyio.fail_after(5), pytest.raises(LatticeError, match="circle"):
        await client.call("relay-1", "get", ["key"])

    for node in lattice.nodes.values():
        assert not node.lines("node.lost")
