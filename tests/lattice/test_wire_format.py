"""The examples of docs/wire-format.md are true."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest

from lattice import bodies, frames, subjects, values, wire, wit
from lattice.bodies import Peer
from lattice.bus import Message
from lattice.errors import BY_CODE, Invalid
from lattice.nats_bus import NatsBus
from tests.servers import NatsServer

PAGE = Path(__file__).parents[2] / "docs" / "wire-format.md"
TEXT = PAGE.read_text(encoding="utf-8")
HELLO = wit.Function((("name", wit.STRING),), wit.STRING)


def _blocks(info: str) -> list[str]:
    return re.findall(rf"^```{re.escape(info)}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def _rows(heading: str) -> list[list[str]]:
    table = TEXT.split(f"| {heading} |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in table]


class TypeText:
    """Reads the WIT types that the page uses."""

    def __init__(self, text: str) -> None:
        self._tokens = re.findall(r"[a-z][a-z0-9-]*|\S", text)

    def read(self) -> wit.Type:
        word = self._tokens.pop(0)
        match word:
            case "list":
                return wit.List(*self._angle())
            case "option":
                return wit.Option(*self._angle())
            case "tuple":
                return wit.Tuple(tuple(self._angle()))
            case "result":
                return wit.Result(*(self._angle() if self._tokens[:1] == ["<"] else [None, None]))
            case "record":
                return wit.Record(tuple((name, part) for name, part in self._braces() if part))
            case "variant":
                return wit.Variant(tuple(self._braces()))
            case "enum":
                return wit.Enum(tuple(name for name, _ in self._braces()))
            case "flags":
                return wit.Flags(tuple(name for name, _ in self._braces()))
        return wit.Primitive(word)

    def _angle(self) -> list[wit.Type]:
        found = []
        while self._tokens.pop(0) in ("<", ","):
            found.append(self.read())
        return found

    def _braces(self) -> list[tuple[str, wit.Type | None]]:
        found: list[tuple[str, wit.Type | None]] = []
        while self._tokens.pop(0) in ("{", ","):
            name, part = self._tokens.pop(0), None
            if self._tokens[0] in (":", "("):
                is_case = self._tokens.pop(0) == "("
                part = self.read()
                if is_case:
                    self._tokens.pop(0)
            found.append((name, part))
        return found


VALUES = _rows("WIT type | msgpack (hex) | JSON")


@pytest.mark.parametrize(("text", "packed", "as_json"), VALUES)
def test_the_table_of_values_is_true(text: str, packed: str, as_json: str) -> None:
    type_, body, data = TypeText(text).read(), bytes.fromhex(packed), json.loads(as_json)

    value = values.check(type_, wire.decode(body))

    assert wit.type_text(type_) == text
    assert values.to_json(type_, value) == data
    assert wire.encode(values.from_json(type_, data)) == body


def test_the_table_of_values_has_every_kind_of_type() -> None:
    shown = {type(TypeText(text).read()) for text, _, _ in VALUES}

    assert shown | {wit.Handle} == set(get_args(wit.Type))


def test_the_subjects_are_subjects() -> None:
    examples = [line for block in _blocks("subjects") for line in block.split()]

    assert len(examples) >= 7
    for example in examples:
        subjects.parse(example)


def test_every_shape_of_subject_is_documented() -> None:
    sample = {
        "lattice": "default", "component": "greeter", "node": "NA", "interface": "-", "function": "run",
        "operation": "link.put", "noun": "node", "verb": "joined", "owner": "NA", "stream": "0" * 32,
    }  # fmt: skip
    shapes = [row[0] for row in _rows("subject | who publishes | what")]

    kinds = {
        (type(parsed), getattr(parsed, "kind", "")) for shape in shapes for parsed in [_parsed(shape, sample)]
    }

    assert {kind for kind, _ in kinds} == set(get_args(subjects.Subject))
    assert {detail for _, detail in kinds} == {"", "heartbeat", "delta", "order", "inventory", "ping"}


def _parsed(shape: str, sample: dict[str, str]) -> subjects.Subject:
    return subjects.parse(re.sub(r"\{(\w+)\}", lambda found: sample[found[1]], shape))


def test_the_headers_are_headers() -> None:
    (block,) = _blocks("headers")
    headers = dict(line.split(": ", 1) for line in block.splitlines())

    assert wire.encode_headers(wire.decode_headers(headers)) == headers


def test_every_header_is_documented() -> None:
    documented = {row[0] for row in _rows("request header | value | without it")}

    stream = wire.StreamId(owner="NA", stream="0" * 32)
    everything = wire.CallHeaders(
        content_type=wire.JSON, budget_ms=1, idempotent=True, traceparent="x", call_id="c", caller="c",
        attempt=2, hops=1, request_stream=stream, accepts_stream=True, origin="NA", link="default",
        body_stream=stream, accepts_body=True,
    )  # fmt: skip
    assert set(wire.encode_headers(everything)) == documented


def test_every_error_is_documented() -> None:
    assert {row[0] for row in _rows("code | meaning | retry?")} == set(BY_CODE)


def test_the_error_is_an_error() -> None:
    (block,) = _blocks("json error")
    function = wit.Function((("limit", wit.Primitive("u8")),), None)

    with pytest.raises(Invalid) as caught:
        values.arguments_from_json(function, [300])

    assert wire.error_fields(caught.value) == json.loads(block)


def test_the_message_is_a_message() -> None:
    cancel, message = _blocks("json message")

    assert wire.decode_message(message.encode(), wire.JSON) == {"component": "greeter", "replicas": 3}
    assert set(wire.decode_message(cancel.encode(), wire.JSON)) == {"call_id", "origin"}


def test_the_frames_are_frames() -> None:
    (block,) = _blocks("frames")
    examples = [line.split(maxsplit=1) for line in block.splitlines()]

    kinds = [type(frames.decode_frame(bytes.fromhex(packed))).__name__.lower() for _, packed in examples]

    assert kinds == [kind for kind, _ in examples]
    assert {"credit", "data", "end", "cancel"} <= set(kinds)


def test_the_limits_are_those_of_the_code() -> None:
    limits = dict(_rows("what | limit"))

    assert limits["arrays and maps within each other"] == str(wire.MAX_DEPTH)
    assert limits["data of one frame"] == f"{frames.MAX_CHUNK_BYTES} bytes"
    assert limits["credit beyond what was sent"].startswith(f"{frames.MAX_CREDIT_BYTES >> 20} MiB")
    assert limits["hops"] == str(wire.MAX_HOPS)
    assert str(bodies.HEADER_ROOM_BYTES) in limits["body of a message"]
    assert str(frames.FIRST_CREDIT_BYTES) in TEXT


# The calls, against a real server


@asynccontextmanager
async def _greeter(bus: NatsBus) -> AsyncIterator[None]:
    peer = Peer(bus=bus, lattice="default", owner="NA")

    async def serve(message: Message) -> None:
        called, call = subjects.parse_call(message.subject), wire.decode_headers(message.headers)
        assert (called.component, called.interface, called.function) == (
            "greeter",
            "demo:greeter/greet",
            "hello",
        )
        (name,) = wire.decode_arguments(HELLO, message.data, call.content_type)
        result = wire.encode_result(HELLO, f"Hello, {name}!", call.content_type)
        await bodies.reply(peer, message.reply or "", result, call)

    async with anyio.create_task_group() as group:

        def begin(message: Message) -> None:
            group.start_soon(serve, message)

        subscription = await bus.subscribe(subjects.calls("default"), begin, queue="nodes")
        yield
        await subscription.unsubscribe()


async def test_the_line_for_the_nats_command_calls(nats_bus: NatsBus) -> None:
    (line,) = _blocks("sh nats-cli")
    program, verb, subject, body, option, header = shlex.split(line)
    name, _, value = header.partition(":")

    async with _greeter(nats_bus):
        reply = await nats_bus.request(subject, body.encode(), headers={name: value}, timeout_seconds=5)

    assert (program, verb, option) == ("nats", "req", "-H")
    assert reply.data == b'"Hello, World!"'


async def test_the_client_in_plain_nats_py_calls(
    nats_bus: NatsBus,
    nats_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (source,) = _blocks("python nats-py")
    example: dict[str, Any] = {"__name__": "example"}
    exec(compile(source, str(PAGE), "exec"), example)

    async with _greeter(nats_bus):
        await example["main"](nats_server.url.replace("//", "//app:app@"))

    assert capsys.readouterr().out == "Hello, World!\n"
    assert source.count("\n") <= 20
