"""`wasi:blobstore` 0.2.0-draft: types, container and blobstore, as host functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from lattice.errors import Failed
from node.capabilities.blobstore.containers import Container, ObjectNames, copy, move
from node.capabilities.blobstore.incoming import IncomingValue
from node.capabilities.blobstore.outgoing import OutgoingValue
from node.capabilities.blobstore.remote import PACKAGE, Blobs, LinkedCalls, Refused
from node.capabilities.http.allowance import allowance_of
from node.engine.host import GuestCall, HostFunction, HostInterface

VERSION = "0.2.0-draft"

SUPPORT: Mapping[str, str] = {
    "wasi:blobstore/types": "0.2.0-draft: all; the streams have backpressure both ways",
    "wasi:blobstore/container": "0.2.0-draft: all",
    "wasi:blobstore/blobstore": "0.2.0-draft: all; `create-container` of one that exists opens it",
}
"""How far each interface goes, in words for a table."""


class Blobstore:
    """The guest's half of a node: its interfaces, and the tasks that move bytes beside the guests."""

    # The mutable state is the task group, while `run` runs.

    def __init__(self, links: LinkedCalls) -> None:
        self._blobs = Blobs(links)
        self._tasks: TaskGroup | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own the transfers until cancelled, which breaks them off."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await anyio.sleep_forever()

    @property
    def tasks(self) -> TaskGroup:
        if self._tasks is None:
            raise Failed("the node does not move blobs (yet): its blobstore is not running")
        return self._tasks

    def interfaces(self) -> tuple[HostInterface, ...]:
        """All that a guest may import of the package, if it has a link."""
        return self._types(), self._container(), self._blobstore()

    def _types(self) -> HostInterface:
        value, body = "[static]outgoing-value", "[method]outgoing-value"
        incoming = "[static]incoming-value"
        return HostInterface(
            name=f"{PACKAGE}/types@{VERSION}",
            functions={
                f"{value}.new-outgoing-value": self._new_value,
                f"{body}.outgoing-value-write-body": _write_body,
                f"{value}.finish": _result(_finish),
                f"{incoming}.incoming-value-consume-sync": _result(_consume_sync),
                f"{incoming}.incoming-value-consume-async": _consume_async,
                "[method]incoming-value.size": lambda call, value: value.size,
            },
            resources={"outgoing-value": _close, "incoming-value": _close},
        )

    def _new_value(self, call: GuestCall) -> OutgoingValue:
        return OutgoingValue(self.tasks, allowance_of(call.instance))

    def _container(self) -> HostInterface:
        functions: dict[str, HostFunction] = {
            "name": lambda call, container: {"ok": container.name},
            "info": _result(_swapped(Container.info)),
            "get-data": _result(_swapped(Container.get_data)),
            "write-data": _write_data,
            "list-objects": lambda call, container: {"ok": container.list_objects()},
            "delete-object": _result(_delete_object),
            "delete-objects": _result(_swapped(Container.delete_objects)),
            "has-object": _result(_swapped(Container.has_object)),
            "object-info": _result(_swapped(Container.object_info)),
            "clear": _result(_swapped(Container.clear)),
        }
        names = "[method]stream-object-names"
        return HostInterface(
            name=f"{PACKAGE}/container@{VERSION}",
            functions={
                **{f"[method]container.{name}": function for name, function in functions.items()},
                f"{names}.read-stream-object-names": _result(_swapped(ObjectNames.read)),
                f"{names}.skip-stream-object-names": _result(_swapped(ObjectNames.skip)),
            },
            resources={"container": _forget, "stream-object-names": _forget},
        )

    def _blobstore(self) -> HostInterface:
        return HostInterface(
            name=f"{PACKAGE}/blobstore@{VERSION}",
            functions={
                "create-container": _result(self._create),
                "get-container": _result(self._get),
                "delete-container": _result(self._delete),
                "container-exists": _result(self._exists),
                "copy-object": _result(self._copy),
                "move-object": _result(self._move),
            },
        )

    async def _create(self, call: GuestCall, name: str) -> Container:
        return await self._opened(call, name, "create")

    async def _get(self, call: GuestCall, name: str) -> Container:
        return await self._opened(call, name, "info")

    async def _opened(self, call: GuestCall, name: str, function: str) -> Container:
        place = self._blobs.place(call, name)
        await self._blobs.ask(call, place.link, function, name)
        return Container(self._blobs, self.tasks, place)

    async def _delete(self, call: GuestCall, name: str) -> None:
        await self._blobs.ask(call, self._blobs.place(call, name).link, "delete", name)

    async def _exists(self, call: GuestCall, name: str) -> bool:
        return await self._blobs.exists(call, self._blobs.place(call, name))

    async def _copy(self, call: GuestCall, source: Mapping[str, str], target: Mapping[str, str]) -> None:
        await copy(self._blobs, call, self._object(call, source), self._object(call, target))

    async def _move(self, call: GuestCall, source: Mapping[str, str], target: Mapping[str, str]) -> None:
        await move(self._blobs, call, self._object(call, source), self._object(call, target))

    def _object(self, call: GuestCall, given: Mapping[str, str]) -> Any:
        return self._blobs.place(call, given["container"]), given["object"]


def _result(operation: Callable[..., Awaitable[Any]]) -> HostFunction:
    """A host function whose refusals are errors of the interface."""

    @wraps(operation)
    async def function(call: GuestCall, *args: Any) -> Any:
        try:
            return {"ok": await operation(call, *args)}
        except Refused as error:
            return {"err": str(error)}

    return function


def _swapped(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A method that takes the call first, as host functions do."""

    async def function(call: GuestCall, resource: Any, *args: Any) -> Any:
        return await method(resource, call, *args)

    return function


def _write_body(call: GuestCall, value: OutgoingValue) -> Any:
    stream = value.stream()
    return {"err": None} if stream is None else {"ok": stream}


def _write_data(call: GuestCall, container: Container, name: str, value: OutgoingValue) -> Any:
    try:
        container.write_data(call, name, value)
    except Refused as error:
        return {"err": str(error)}
    return {"ok": None}


async def _finish(call: GuestCall, value: OutgoingValue) -> None:
    await value.finish()


async def _consume_sync(call: GuestCall, value: IncomingValue) -> bytes:
    return await value.take_all()


def _consume_async(call: GuestCall, value: IncomingValue) -> Any:
    return {"ok": value.stream()}


async def _delete_object(call: GuestCall, container: Container, name: str) -> None:
    await container.delete_objects(call, [name])


def _close(call: GuestCall, value: OutgoingValue | IncomingValue) -> None:
    value.close()


def _forget(call: GuestCall, resource: Any) -> None:
    """Nothing is held for it."""
