"""Calls as clients make them: all types between nodes, large bodies, JSON, plain NATS clients."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import nats
import pytest

from ctl.calling import CallOptions
from ctl.client import ControlClient
from lattice import connection
from tests.e2e.processes import BYTES, GREETER, TYPES, Lattice
from tests.e2e.questions import holders

pytestmark = pytest.mark.slow

PERSON = {
    "name": "Ada",
    "age": 36,
    "nickname": None,
    "languages": ["en", "fr", ""],
    "at": {"x": -1, "y": 2**31 - 1},
}
EVERYTHING = {
    "yes": True,
    "small": -128,
    "large": 2**64 - 1,
    "ratio": -0.5,
    "letter": "\N{GRINNING FACE}",
    "text": "a\0b\N{COMBINING ACUTE ACCENT}",
    "data": bytes(range(256)),
    "pair": [65535, "two"],
    "who": PERSON,
    "what": {"portrait": PERSON},
    "hue": "dark-blue",
    "rights": ["read", "execute"],
    "perhaps": [None],
    "outcome": {"err": "no"},
}
VALUES: list[tuple[str, Any]] = [
    ("echo-bool", True),
    ("echo-u8", 255),
    ("echo-s8", -128),
    ("echo-u16", 65535),
    ("echo-s16", -32768),
    ("echo-u32", 2**32 - 1),
    ("echo-s32", -(2**31)),
    ("echo-u64", 2**64 - 1),
    ("echo-s64", -(2**63)),
    ("echo-f32", math.inf),
    ("echo-f64", -math.inf),
    ("echo-f64", 1e-300),
    ("echo-char", "\N{GRINNING FACE}"),
    ("echo-string", "Grüße, \N{SNOWMAN}\0"),
    ("echo-bytes", bytes(range(256))),
    ("echo-bytes", b""),
    ("echo-list", [-1, 0, 2**31 - 1]),
    ("echo-list", []),
    ("echo-strings", ["", "a", "ü"]),
    ("echo-chunks", [b"", b"\0\xff"]),
    ("echo-entries", [["key", b"\x80"], ["", b""]]),
    ("echo-tuple", [1, "two", 0.5]),
    ("echo-record", PERSON),
    ("echo-variant", {"nothing": None}),
    ("echo-variant", {"circle": 0.25}),
    ("echo-variant", {"rectangle": [1.5, 2.5]}),
    ("echo-variant", {"polygon": [{"x": 1, "y": 2}]}),
    ("echo-variant", {"portrait": PERSON}),
    ("echo-enum", "dark-blue"),
    ("echo-permissions", ["read", "execute"]),
    ("echo-months", ["january", "december"]),
    ("echo-bits", ["b0", "b31"]),
    ("echo-bits", []),
    ("echo-option", None),
    ("echo-option", ""),
    ("echo-option-bytes", b"\xff"),
    ("echo-option-option", None),
    ("echo-option-option", [None]),
    ("echo-option-option", [7]),
    ("echo-option-thrice", [[None]]),
    ("echo-option-thrice", [[True]]),
    ("echo-result", {"ok": 1}),
    ("echo-result", {"err": "no"}),
    ("echo-result-same", {"err": "same"}),
    ("echo-result-ok", {"err": None}),
    ("echo-result-err", {"ok": None}),
    ("echo-result-empty", {"ok": None}),
    ("echo-result-option", {"ok": None}),
    ("echo-result-option", {"err": "text"}),
    ("echo-everything", EVERYTHING),
]


def as_lists(value: Any) -> Any:
    """Tuples and lists are one on the wire."""
    if isinstance(value, list | tuple):
        return [as_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return value


async def other_node(lattice: Lattice, client: ControlClient, component: str) -> str:
    """The id of a node without a replica of the component."""
    taken = await holders(client, component)
    return next(node.id for node in lattice.nodes.values() if node.name not in taken)


async def test_values_of_all_types_come_back_unchanged_from_another_node(
    lattice: Lattice, client: ControlClient, router: ControlClient
) -> None:
    await lattice.deploy(TYPES)
    away = CallOptions(node=await other_node(lattice, client, "types"))

    for name, value in VALUES:
        function = await client.function("types", name)
        assert as_lists(await client.invoke(function, [value], away)) == value, name
        assert as_lists(await router.invoke(function, [value])) == value, name
    for name in ("echo-f32", "echo-f64"):
        assert math.isnan(await client.call("types", name, [math.nan], options=away))
    assert await client.call("types", "add", [2**32 - 1, 2], options=away) == 1
    assert await client.call("types", "sum", list(range(17)), options=away) == sum(range(17))
    assert await client.call("types", "nothing", [], options=away) is None


@pytest.mark.parametrize("size", [1_000, 900_000, 1_100_000, 5_000_000])
async def test_bytes_of_any_size_go_to_another_node_and_back(
    lattice: Lattice, client: ControlClient, router: ControlClient, size: int
) -> None:
    await lattice.deploy(BYTES)
    away = CallOptions(node=await other_node(lattice, client, "bytes"))
    data = os.urandom(size)

    assert await client.call("bytes", "echo", [data], options=away) == data
    assert await router.call("bytes", "echo", [data]) == data


async def test_a_payload_above_the_components_limit_is_refused_by_name(
    lattice: Lattice, client: ControlClient
) -> None:
    await lattice.deploy(BYTES)
    away = CallOptions(node=await other_node(lattice, client, "bytes"))

    with pytest.raises(Exception, match=r"limit|payload") as caught:
        await client.call("bytes", "checksum", [bytes(9 * 2**20)], options=away)

    assert getattr(caught.value, "code", None) == "invalid"
    assert await client.call("bytes", "checksum", [b"\1\2"], options=away) == 3


async def plain_client(lattice: Lattice) -> Any:
    """A NATS client that knows nothing of the lattice's code."""
    file = connection.server_folder(lattice.name, lattice.folder) / connection.SERVER_FILE
    server = json.loads(file.read_bytes())
    return await nats.connect(server["url"], user=server["user"], password=server["password"])


async def test_a_plain_nats_client_calls_with_json(lattice: Lattice) -> None:
    await lattice.deploy(GREETER)
    plain = await plain_client(lattice)
    subject = f"lattice.1.{lattice.name}.call.greeter.demo:greeter/greet.hello"
    headers = {"content-type": "application/json"}

    by_position = await plain.request(subject, b'["World"]', headers=headers, timeout=5)
    by_name = await plain.request(subject, b'{"name": "World"}', headers=headers, timeout=5)
    wrong = await plain.request(subject, b"[1]", headers=headers, timeout=5)
    missing = await plain.request(
        subject.replace("greeter.", "greter.", 1), b"[]", headers=headers, timeout=5
    )
    await plain.close()

    assert json.loads(by_position.data) == json.loads(by_name.data) == "Hello, World!"
    assert wrong.headers["Nats-Service-Error-Code"] == "invalid"
    assert "name" in json.loads(wrong.data)["message"]
    assert missing.headers["Nats-Service-Error-Code"] == "not-found"
    assert "did you mean `greeter`" in json.loads(missing.data)["message"]


async def test_nodes_are_seen_by_the_micro_service_protocol(lattice: Lattice, client: ControlClient) -> None:
    await lattice.deploy(GREETER, replicas=3)
    for node in lattice.nodes.values():
        await client.call("greeter", "hello", ["World"], options=CallOptions(node=node.id))
    plain = await plain_client(lattice)
    found: dict[str, list[dict[str, Any]]] = {}

    for verb in ("PING", "INFO", "STATS"):
        inbox = plain.new_inbox()
        replies = await plain.subscribe(inbox)
        await plain.publish(f"$SRV.{verb}", reply=inbox)
        found[verb] = [json.loads((await replies.next_msg(5)).data) for _ in lattice.nodes]
        await replies.unsubscribe()
    await plain.close()

    for verb, answers in found.items():
        assert {answer["metadata"]["name"] for answer in answers} == set(lattice.nodes), verb
        assert {answer["id"] for answer in answers} == {node.id for node in lattice.nodes.values()}
    endpoints = [endpoint for answer in found["STATS"] for endpoint in answer["endpoints"]]
    assert sum(item["num_requests"] for item in endpoints if item["name"] == "greeter") == 3
