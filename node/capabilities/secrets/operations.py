"""Control operations on secrets. None ever has a value in clear: the client seals it before it sends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import structlog

from lattice import subjects, wire
from lattice.bus import Bus
from lattice.errors import Invalid, LatticeError, NotFound, Unreachable
from lattice.names import check_name, did_you_mean
from lattice.observed import NodeView
from lattice.observer import Observer
from lattice.secret_readers import SecretsPolicy, candidates
from lattice.secret_sources import is_local
from lattice.secrets import SecretRecord, Secrets

log = structlog.get_logger()

ASK_SECONDS = 1.0

Fields = Mapping[str, Any]
Operation = Callable[[Fields], Awaitable[dict[str, Any]]]
Announce = Callable[[str, Mapping[str, Any]], None]


class SecretOperations:
    """Holds no state of its own: what it changes is in the store."""

    def __init__(
        self, bus: Bus, secrets: Secrets, observer: Observer, policy: SecretsPolicy, announce: Announce
    ) -> None:
        self._bus = bus
        self._secrets = secrets
        self._observer = observer
        self._policy = policy
        self._announce = announce

    def table(self) -> dict[str, Operation]:
        """Every operation by its name on the wire."""
        return {
            "secret.prepare": self.prepare,
            "secret.put": self.put,
            "secret.get": self.get,
            "secret.delete": self.delete,
            "get.secrets": self.get_all,
        }

    def own_table(self) -> dict[str, Operation]:
        """What is asked of this node by name."""
        return {"own-secrets": self.own_secrets}

    async def prepare(self, request: Fields) -> dict[str, Any]:
        """What a client needs to seal a value: the nodes' keys, and what is there under the name now."""
        name = _name(request)
        previous = self._secrets.last(name)
        state = self._observer.state
        found = candidates(state, self._policy)
        if not found:
            raise Unreachable("this node has only just started and knows no node's keys yet")
        return {
            "previous": None if previous is None else _without_contents(previous),
            "nodes": [
                {
                    "id": node,
                    "name": state.observed.nodes[node].name,
                    "seal_key": item.announcement,
                    "provider": item.provider,
                }
                for node, item in found.items()
                if item.announcement and self._policy.allows(node, item, name)
            ],
        }

    async def put(self, request: Fields) -> dict[str, Any]:
        """Store what a client has sealed."""
        record = await self._secrets.put(SecretRecord.from_dict(request.get("record"), "record"))
        self._announce("secret.put", {"name": record.name, "generation": record.generation})
        return {**self._shown(record), "changed": True}

    async def get(self, request: Fields) -> dict[str, Any]:
        """What may be said of a secret; never its value."""
        name = _name(request)
        record = self._secrets.record(name)
        if record is None:
            near = did_you_mean(name, [item.name for item in self._secrets.records()])
            raise NotFound(f"there is no secret {name!r}{near}")
        return {"secret": self._shown(record)}

    async def delete(self, request: Fields) -> dict[str, Any]:
        """Delete a secret; components that were granted it find none from then on."""
        name = _name(request)
        await self._secrets.delete(name)
        self._announce("secret.deleted", {"name": name})
        return {"name": name, "changed": True}

    async def get_all(self, request: Fields) -> dict[str, Any]:
        """All secrets, without their values: of the lattice, then those that nodes have of their own."""
        found = [self._shown(record) for record in self._secrets.records()]
        return {"secrets": [*found, *await self._all_local()]}

    async def own_secrets(self, request: Fields) -> dict[str, Any]:
        """The kinds of this node's own secrets, by name."""
        return {"secrets": dict(self._secrets.local_kinds())}

    async def _all_local(self) -> list[dict[str, Any]]:
        found: dict[tuple[str, str], list[str]] = {}

        async def ask(view: NodeView) -> None:
            subject = subjects.node_control(self._secrets.lattice, view.id, "own-secrets")
            try:
                reply = await self._bus.request(subject, wire.encode_message({}), timeout_seconds=ASK_SECONDS)
                for item in wire.decode_message(reply.data).get("secrets", {}).items():
                    found.setdefault(item, []).append(view.name)
            except LatticeError as error:
                log.debug("secrets.unanswered", of=view.id, reason=error.message)

        async with anyio.create_task_group() as tasks:
            for view in list(self._observer.state.observed.live()):
                tasks.start_soon(ask, view)
        return [
            {"name": name, "kind": kind, "nodes": sorted(nodes)}
            for (name, kind), nodes in sorted(found.items())
        ]

    def _shown(self, record: SecretRecord) -> dict[str, Any]:
        live = {view.id: view.name for view in self._observer.state.observed.live()}
        return {
            "name": record.name,
            "generation": record.generation,
            "kind": record.kind,
            "changed_at": record.changed_at / 1000,
            "readers": list(record.readers),
            "reader_providers": list(record.reader_providers),
            "nodes": sorted(live[node] for node in record.sealed if node in live),
        }


def _without_contents(record: SecretRecord) -> dict[str, Any]:
    return {**record.to_dict(), "box": "", "sealed": {}}


def _name(request: Fields) -> str:
    name = request.get("name")
    if not isinstance(name, str):
        raise Invalid("name is missing from the request")
    if is_local(name):
        raise Invalid(f"secret {name!r} is a node's own: its operator changes it there")
    return check_name(name, "secret name")
