"""A node for tests of the client: answers every control operation and calls over any bus, from plain state.

It does at once what a lattice does in time: what is deployed runs. `requests` has what it was asked,
`refusals` what it answers with an error instead, once per error.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from lattice import subjects, wire, wit
from lattice.bus import Bus, Message
from lattice.errors import Conflict, Invalid, LatticeError, NotFound
from lattice.jobs import INTERFACE as JOBS
from lattice.names import did_you_mean

NODE_ID = "NA" + "B" * 54
GREET = "demo:greeter/greet@0.1.0"
STRING, S32, U8 = wit.STRING, wit.Primitive("s32"), wit.Primitive("u8")

GREETER = wit.ComponentType(
    imports={"wasi:cli/environment@0.2.0": wit.Interface("wasi:cli/environment@0.2.0", {})},
    exports={
        GREET: wit.Interface(
            GREET,
            {
                "greet": wit.Function((("name", STRING),), STRING),
                "divide": wit.Function((("a", S32), ("b", S32)), wit.Result(S32, STRING)),
                "echo": wit.Function((("data", wit.BYTES),), wit.BYTES),
                "limit": wit.Function((("value", U8),), None),
                "repeat": wit.Function((("word", STRING), ("times", wit.Option(U8))), wit.List(STRING)),
            },
            {"mood": wit.Enum(("happy", "sad"))},
        )
    },
)


def greeter(function: str, args: list[Any]) -> Any:
    """What the component does."""
    match function, args:
        case "greet", [name]:
            return f"Hello, {name}!"
        case "divide", [_, 0]:
            return {"err": "division by zero"}
        case "divide", [a, b]:
            return {"ok": a // b}
        case "echo", [data]:
            return data
        case "repeat", [word, times]:
            return [word] * (times or 1)
    return None


class FakeNode:
    """The state of the lattice that it pretends to be is in its public attributes."""

    def __init__(self, lattice: str = "default") -> None:
        self.components: dict[str, dict[str, Any]] = {}
        self.links: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.calls: list[Message] = []
        self.jobs: list[dict[str, Any]] = []
        """What was to be run; only detached jobs are answered."""
        self.refusals: dict[str, list[LatticeError]] = defaultdict(list)
        self.replies: dict[str, dict[str, Any]] = {}
        """Whole replies to give instead, by operation."""
        self.at_request: dict[str, Callable[[], None]] = {}
        """What to do before an operation is answered."""
        self.stored: dict[str, bytes] = {}
        """What `prepare` found in the object store."""
        self.published: list[tuple[str, dict[str, Any]]] = []
        """What to publish after the next reply."""
        self.lattice = lattice
        self._bus: Bus | None = None

    @asynccontextmanager
    async def serving(self, bus: Bus) -> AsyncIterator[FakeNode]:
        """Answer for as long as the context lasts."""
        self._bus = bus
        send, receive = anyio.create_memory_object_stream[Message](1000)
        for subject in (
            subjects.controls(self.lattice),
            subjects.calls(self.lattice),
            subjects.node_controls(self.lattice, NODE_ID),
            subjects.node_calls(self.lattice, NODE_ID),
        ):
            await bus.subscribe(subject, send.send_nowait, queue="nodes")
        async with send, receive, anyio.create_task_group() as tasks:
            tasks.start_soon(self._answer_all, bus, receive)
            yield self
            tasks.cancel_scope.cancel()

    def deployed(self, name: str = "greeter", **fields: Any) -> dict[str, Any]:
        """Have a component without deploying it."""
        self.components[name] = _component(name, **fields)
        return self.components[name]

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.requests]

    def request_of(self, operation: str) -> dict[str, Any]:
        return next(fields for name, fields in reversed(self.requests) if name == operation)

    async def publish(self, subject: str, fields: dict[str, Any]) -> None:
        assert self._bus is not None
        await self._bus.publish(subject, wire.encode_message(fields))

    async def _answer_all(self, bus: Bus, messages: Any) -> None:
        async for message in messages:
            try:
                headers, body = await self._answer(bus, message)
            except LatticeError as error:
                headers, body = wire.encode_error(error)
            assert message.reply is not None
            await bus.publish(message.reply, body, headers=headers)
            for subject, fields in self.published:
                await self.publish(subject, fields)
            self.published.clear()

    async def _answer(self, bus: Bus, message: Message) -> tuple[dict[str, str] | None, bytes]:
        subject = subjects.parse(message.subject)
        if isinstance(subject, subjects.Call):
            return None, self._call(subject, message)
        assert isinstance(subject, subjects.Control)
        fields = wire.decode_message(message.data)
        operation = subject.operation
        self.requests.append((operation, fields))
        self.at_request.get(operation, lambda: None)()
        self._refuse(operation)
        if operation in self.replies:
            return None, wire.encode_message(self.replies[operation])
        if operation == "prepare":
            store = await bus.object_store(subjects.artifacts_bucket(self.lattice))
            self.stored[fields["digest"]] = await store.get(fields["digest"])
        handler = getattr(self, "_" + operation.replace(".", "_"))
        return None, wire.encode_message(handler(fields))

    def _refuse(self, operation: str) -> None:
        if self.refusals[operation]:
            raise self.refusals[operation].pop(0)

    def _call(self, call: subjects.Call, message: Message) -> bytes:
        self.calls.append(message)
        self._refuse("call")
        if call.interface == JOBS:
            self.jobs += wire.decode(message.data)
            started = {"job": "tool-0123456789abcdef", "node": NODE_ID}
            return wire.encode({**started, **self.replies.get("run", {})})
        function = GREETER.exports[call.interface].functions[call.function]
        args = wire.decode_arguments(function, message.data)
        return wire.encode_result(function, greeter(call.function, args))

    # Control operations

    def _prepare(self, fields: dict[str, Any]) -> dict[str, Any]:
        size = len(self.stored[fields["digest"]])
        type_ = wit.component_type_to_json(GREETER)
        reply = {"digest": fields["digest"], "size": size, "type": type_}
        return {**reply, "compile_seconds": 0.4, "cached": False}

    def _deploy(self, fields: dict[str, Any]) -> dict[str, Any]:
        name = fields["name"]
        generation = self.components.get(name, {"generation": 0})["generation"] + 1
        if fields.get("expected_generation", generation - 1) != generation - 1:
            raise Conflict(f"`{name}` has generation {generation - 1}")
        self.components[name] = _component(
            name, digest=fields["digest"], replicas=fields["replicas"], generation=generation
        )
        return {"name": name, "generation": generation, "incarnation": 7, "changed": True, "warnings": []}

    def _update(self, fields: dict[str, Any]) -> dict[str, Any]:
        component = self._found(fields["component"])
        component.update(digest=fields["digest"], generation=component["generation"] + 1)
        return {"name": component["name"], "generation": component["generation"], "changed": True}

    def _scale(self, fields: dict[str, Any]) -> dict[str, Any]:
        component, count = self._found(fields["component"]), fields["replicas"]
        component["replicas"] = {"desired": count, "running": count, "starting": 0, "failed": 0}
        component["generation"] += 1
        return {"name": component["name"], "generation": component["generation"], "changed": True}

    def _delete(self, fields: dict[str, Any]) -> dict[str, Any]:
        component = self._found(fields["component"])
        del self.components[component["name"]]
        return {"name": component["name"], "generation": component["generation"] + 1}

    def _link_put(self, fields: dict[str, Any]) -> dict[str, Any]:
        self._found(fields["source"])
        self.links.append({**fields, "route": "local"})
        known = [*self.components, "stock"]
        warnings = (
            [] if fields["target"] in known else [f"{fields['target']!r} is neither deployed nor offered"]
        )
        return {**fields, "changed": True, "warnings": warnings}

    def _link_delete(self, fields: dict[str, Any]) -> dict[str, Any]:
        kept = [link for link in self.links if link["interface"] != fields["interface"]]
        changed, self.links = len(kept) != len(self.links), kept
        return {"changed": changed}

    def _link_get(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"links": [link for link in self.links if fields.get("source") in (None, link["source"])]}

    def _get_nodes(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"nodes": [_node()]}

    def _get_components(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"components": list(self.components.values())}

    def _get_replicas(self, fields: dict[str, Any]) -> dict[str, Any]:
        names = [self._found(fields["component"])["name"]] if "component" in fields else self.components
        return {"replicas": [_replica(name) for name in names]}

    def _describe_node(self, fields: dict[str, Any]) -> dict[str, Any]:
        if fields["node"] != "node-1" and not NODE_ID.startswith(fields["node"]):
            raise NotFound(f"there is no node `{fields['node']}`")
        return {"node": {**_node(), "components": [], "compiled": ["sha256:" + "0" * 64], "statistics": {}}}

    def _get_providers(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"providers": [_provider()]}

    def _describe_provider(self, fields: dict[str, Any]) -> dict[str, Any]:
        if fields["provider"] == "lost":
            place = {
                **_provider()["nodes"][0],
                "is_healthy": True,
                "reason": "it does not answer at the moment",
            }
            return {"provider": {**_provider(), "name": "lost", "nodes": [place], "exports": [], "links": []}}
        if fields["provider"] != "cache":
            raise NotFound(f"no node offers a provider {fields['provider']!r}")
        link = {"source": "shop", "interface": "wasi:keyvalue", "name": "default"}
        return {"provider": {**_provider(), "exports": [wit.interface_to_json(CACHE)], "links": [link]}}

    def _describe_component(self, fields: dict[str, Any]) -> dict[str, Any]:
        component = self._found(fields["component"])
        running = component["replicas"]["running"]
        placement = {
            "node": NODE_ID, "node_name": "node-1", "count": running, "running": running, "state": "running",
            "reason": None,
        }  # fmt: skip
        return {
            "component": {
                "type": wit.component_type_to_json(GREETER),
                "limits": {"memory_bytes": 64 * 2**20},
                "labels": {},
                "links": [link for link in self.links if link["source"] == component["name"]],
                "placements": [placement] if running else [],
                "pending": [],
                "ready_to_take_over": ["node-2"],
                "settings": {"idempotent": False},
                **component,
            }
        }

    def _drain(self, fields: dict[str, Any]) -> dict[str, Any]:
        if fields["node"] != "node-1":
            raise NotFound(f"there is no node `{fields['node']}`")
        return {"node": NODE_ID, "moved": 2}

    def _logs(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"lines": self.lines[-fields["lines"] :] if fields["lines"] else []}

    def _found(self, name: Any) -> dict[str, Any]:
        if not isinstance(name, str):
            raise Invalid("component must be a string")
        if name not in self.components:
            raise NotFound(f"there is no component `{name}`{did_you_mean(name, self.components)}")
        return self.components[name]


def _component(name: str, replicas: int = 2, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "digest": "sha256:" + "0" * 64,
        "size": 1234,
        "replicas": {"desired": replicas, "running": replicas, "starting": 0, "failed": 0},
        "generation": 1,
        "revision": "0123456789ab",
        "exports": list(GREETER.exports),
        "imports": list(GREETER.imports),
        "state": "ready",
        "reason": None,
        **fields,
    }


CACHE = wit.Interface("acme:cache/store", {"size": wit.Function((), wit.Primitive("u32"))})


def _provider() -> dict[str, Any]:
    place = {"node": NODE_ID, "node_name": "node-1", "is_healthy": False, "reason": "no server"}
    return {
        "name": "cache",
        "kind": "keyvalue-redis",
        "interfaces": ["lattice:keyvalue/store"],
        "is_healthy": False,
        "linked": 1,
        "nodes": [{**place, "statistics": {"calls": 7, "errors": {"interrupted": 2}}}],
    }


def _node() -> dict[str, Any]:
    return {
        "id": NODE_ID, "name": "node-1", "labels": {"zone": "a"}, "state": "ready", "is_controller": True,
        "replicas": 2, "capacity": 1000, "load": 0.25, "calls_in_flight": 1, "version": "0.1.0",
        "uptime_seconds": 725.0, "memory_bytes": 90 * 2**20, "address": "localhost", "from_the_future": 1,
    }  # fmt: skip


def _replica(component: str) -> dict[str, Any]:
    return {
        "id": f"{component}-0", "component": component, "node": NODE_ID, "node_name": "node-1",
        "revision": "0123456789ab", "state": "running", "calls": 12, "errors": 1, "in_flight": 0,
        "since_seconds": 60.0,
    }  # fmt: skip


def line(text: str, at: float | None = None) -> dict[str, Any]:
    """A line of a log, as nodes give it."""
    return {"time": at or time.time(), "node": "node-1", "stream": "stdout", "text": text, "call_id": None}
