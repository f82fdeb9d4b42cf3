"""`wasi:keyvalue` in both drafts that are in use, as host functions over the links of a component.

The drafts differ in the types of a few functions and in nothing that they mean: which one a component was
built for is read from its imports.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from lattice import wit
from lattice.errors import Denied
from lattice.model import package_of, unversioned
from node.capabilities.bus.selection import DEFAULT, selected
from node.capabilities.keyvalue.buckets import PACKAGE, Bucket, Cas, Client, Links, Refusal
from node.engine.host import GuestCall, HostFunction, HostInterface

SUPPORT: Mapping[str, str] = {
    "wasi:keyvalue/store": "complete, 0.2.0-draft and 0.2.0-draft2; needs a link",
    "wasi:keyvalue/atomics": "complete, 0.2.0-draft and 0.2.0-draft2 (which adds cas); needs a link",
    "wasi:keyvalue/batch": "complete, 0.2.0-draft and 0.2.0-draft2; needs a link",
    "wasi:keyvalue/watcher": "called by a key-value trigger",
}
"""How far each interface goes, in words for a table."""

MAX_NAME_BYTES = 256
UNSIGNED = 2**63
"""Counters are signed at the provider: what the older draft calls u64 ends here."""


def keyvalue_interfaces(component: wit.ComponentType, links: Links) -> list[HostInterface]:
    """A host interface for each that the component imports of the package."""
    client = Client(links)
    make: Mapping[str, Callable[[wit.Interface], tuple[dict[str, HostFunction], tuple[str, ...]]]] = {
        f"{PACKAGE}/store": lambda imported: (_store(client, imported), ("bucket",)),
        f"{PACKAGE}/atomics": lambda imported: (_atomics(client, imported), ("cas",)),
        f"{PACKAGE}/batch": lambda imported: (_batch(client, imported), ()),
    }
    found = []
    for name, imported in component.imports.items():
        if package_of(name) == PACKAGE and unversioned(name) in make:
            functions, resources = make[unversioned(name)](imported)
            found.append(
                HostInterface(name=name, functions=functions, resources=dict.fromkeys(resources, _forget))
            )
    return found


def _forget(call: GuestCall, resource: Any) -> None:
    """Buckets and states hold nothing."""


def _answering(operation: Callable[..., Awaitable[Any]]) -> HostFunction:
    """A host function whose `Refusal` becomes the interface's error."""

    async def function(call: GuestCall, *args: Any) -> Any:
        try:
            return {"ok": await operation(call, *args)}
        except Refusal as refusal:
            return {"err": refusal.error}

    return function


def _store(client: Client, imported: wit.Interface) -> dict[str, HostFunction]:
    ask = client.ask
    convert_cursor = _cursor_type(imported)

    async def open_bucket(call: GuestCall, identifier: str) -> Bucket:
        return _opened(client.links, call, identifier)

    async def get(call: GuestCall, bucket: Bucket, key: str) -> Any:
        return await ask(call, bucket, "store.get", key, idempotent=True)

    async def put(call: GuestCall, bucket: Bucket, key: str, value: bytes) -> None:
        await ask(call, bucket, "store.set", key, value)

    async def delete(call: GuestCall, bucket: Bucket, key: str) -> None:
        await ask(call, bucket, "store.delete", key)

    async def exists(call: GuestCall, bucket: Bucket, key: str) -> Any:
        return await ask(call, bucket, "store.exists", key, idempotent=True)

    async def list_keys(call: GuestCall, bucket: Bucket, cursor: Any) -> Any:
        page = await ask(call, bucket, "store.list-keys", _cursor(cursor), idempotent=True)
        following = page["cursor"]
        return {"keys": page["keys"], "cursor": None if following is None else convert_cursor(following)}

    return {
        "open": _answering(open_bucket),
        "[method]bucket.get": _answering(get),
        "[method]bucket.set": _answering(put),
        "[method]bucket.delete": _answering(delete),
        "[method]bucket.exists": _answering(exists),
        "[method]bucket.list-keys": _answering(list_keys),
    }


def _opened(links: Links, call: GuestCall, identifier: str) -> Bucket:
    """The link of that name, or a bucket of that name over the link that the guest chose.

    Every guest opens `default`: that names no link, else it would undo the guest's choice.
    """
    interface = f"{PACKAGE}/store"
    is_link = identifier != DEFAULT and identifier in links.names(call.component, interface)
    name = identifier if is_link else selected(call, interface)
    try:
        link = links.find(call.component, interface, name)
    except Denied:
        raise Refusal({"access-denied": None}) from None
    if len(identifier.encode()) > MAX_NAME_BYTES:
        raise Refusal({"no-such-store": None})
    return Bucket(link.name, "" if is_link or identifier == DEFAULT else identifier)


def _atomics(client: Client, imported: wit.Interface) -> dict[str, HostFunction]:
    is_unsigned = _is_unsigned(imported)

    async def increment(call: GuestCall, bucket: Bucket, key: str, delta: int) -> int:
        if delta >= UNSIGNED:
            raise Refusal({"other": f"the delta {delta} is too large: counters have 63 bits"})
        total = int(await client.ask(call, bucket, "atomics.increment", key, delta))
        if is_unsigned and total < 0:
            raise Refusal({"other": f"the counter is {total}, which this interface can't return"})
        return total

    async def new(call: GuestCall, bucket: Bucket, key: str) -> Cas:
        return await client.state(call, bucket, key)

    async def current(call: GuestCall, cas: Cas) -> bytes | None:
        return cas.value

    async def swap(call: GuestCall, cas: Cas, value: bytes) -> Any:
        try:
            if await client.ask(call, cas.bucket, "atomics.swap", cas.key, value, cas.version):
                return {"ok": None}
            return {"err": {"cas-failed": await client.state(call, cas.bucket, cas.key)}}
        except Refusal as refusal:
            return {"err": {"store-error": refusal.error}}

    return {
        "increment": _answering(increment),
        "[static]cas.new": _answering(new),
        "[method]cas.current": _answering(current),
        "swap": swap,
    }


def _batch(client: Client, imported: wit.Interface) -> dict[str, HostFunction]:
    is_paired = _pairs_keys(imported)

    async def get_many(call: GuestCall, bucket: Bucket, keys: Sequence[str]) -> Any:
        values = await client.ask(call, bucket, "batch.get-many", list(keys), idempotent=True)
        pairs = zip(keys, values, strict=True)
        if is_paired:
            return list(pairs)
        return [None if value is None else (key, value) for key, value in pairs]

    async def set_many(call: GuestCall, bucket: Bucket, items: Sequence[tuple[str, bytes]]) -> None:
        await client.ask(call, bucket, "batch.set-many", [list(item) for item in items])

    async def delete_many(call: GuestCall, bucket: Bucket, keys: Sequence[str]) -> None:
        await client.ask(call, bucket, "batch.delete-many", list(keys))

    return {
        "get-many": _answering(get_many),
        "set-many": _answering(set_many),
        "delete-many": _answering(delete_many),
    }


# What tells the drafts apart


def _cursor_type(imported: wit.Interface) -> Callable[[int], int | str]:
    function = imported.functions.get("[method]bucket.list-keys")
    is_text = function is not None and function.params[1][1] == wit.Option(wit.STRING)
    return str if is_text else int


def _cursor(cursor: int | str | None) -> int | None:
    if cursor is None or isinstance(cursor, int):
        return cursor
    if not cursor.isdecimal() or len(cursor) > 20:
        raise Refusal({"other": f"{cursor[:40]!r} is not a cursor that this store gave out"})
    return int(cursor)


def _is_unsigned(imported: wit.Interface) -> bool:
    function = imported.functions.get("increment")
    return function is not None and function.params[2][1] == wit.Primitive("u64")


def _pairs_keys(imported: wit.Interface) -> bool:
    """Whether `get-many` gives a pair for each key, and not an option of a pair."""
    function = imported.functions.get("get-many")
    if function is None or not isinstance(function.result, wit.Result):
        return False
    values = function.result.ok
    return isinstance(values, wit.List) and isinstance(values.element, wit.Tuple)
