"""The flat interfaces `lattice:keyvalue/store`, `/atomics` and `/batch`: checked here, once for all backends.

A link's configuration chooses a *namespace* (`bucket`, by default the component's name); within it a guest
opens buckets by name, the empty name being the namespace's own. A backend implements `Store` for one bucket.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from lattice.errors import Invalid
from lattice.names import did_you_mean
from providers.provider import BoundLink, Provider, ProviderCall, ProviderFunction

STORE = "lattice:keyvalue/store"
ATOMICS = "lattice:keyvalue/atomics"
BATCH = "lattice:keyvalue/batch"

MAX_KEY_BYTES = 1024
MAX_BUCKET_BYTES = 256
MAX_KEYS = 1000
"""Of one batch, and of one page of a list."""
MAX_BATCH_BYTES = 4 * 2**20
"""Of the values of one batch, so that its answer fits into a call."""

_ERROR = "variant { no-such-store, access-denied, other(string) }"
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")

MIN_NUMBER, MAX_NUMBER = -(2**63), 2**63 - 1
_NUMBER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
"""One way to write each number, as Redis has it: what else Python's `int` takes is refused by all stores."""

TYPES: Mapping[str, Mapping[str, str]] = {
    STORE: {
        "open": f"func(bucket: string) -> result<_, {_ERROR}>",
        "get": f"func(bucket: string, key: string) -> result<option<list<u8>>, {_ERROR}>",
        "set": f"func(bucket: string, key: string, value: list<u8>) -> result<_, {_ERROR}>",
        "delete": f"func(bucket: string, key: string) -> result<_, {_ERROR}>",
        "exists": f"func(bucket: string, key: string) -> result<bool, {_ERROR}>",
        "list-keys": (
            "func(bucket: string, cursor: option<u64>) -> "
            f"result<record {{ keys: list<string>, cursor: option<u64> }}, {_ERROR}>"
        ),
    },
    ATOMICS: {
        "increment": f"func(bucket: string, key: string, delta: s64) -> result<s64, {_ERROR}>",
        "current": (
            "func(bucket: string, key: string) -> "
            f"result<record {{ value: option<list<u8>>, version: string }}, {_ERROR}>"
        ),
        "swap": (
            f"func(bucket: string, key: string, value: list<u8>, version: string) -> result<bool, {_ERROR}>"
        ),
    },
    BATCH: {
        "get-many": f"func(bucket: string, keys: list<string>) -> result<list<option<list<u8>>>, {_ERROR}>",
        "set-many": (f"func(bucket: string, items: list<tuple<string, list<u8>>>) -> result<_, {_ERROR}>"),
        "delete-many": f"func(bucket: string, keys: list<string>) -> result<_, {_ERROR}>",
    },
}

NOTHING: Mapping[str, Any] = {"ok": None}

Value = TypeVar("Value")


class Refused(Exception):
    """Raised by a store: the interface's `error::other`, with the reason for the component's log."""


class Store(Protocol):
    """One bucket.

    Failures are `LatticeError`s; `Refused` is for what this store can't do with what it was given.
    """

    @abstractmethod
    async def get(self, key: str) -> bytes | None:
        """The present value."""

    @abstractmethod
    async def set(self, key: str, value: bytes) -> None:
        """Store whatever was there."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Delete; nothing if there is none."""

    async def exists(self, key: str) -> bool:
        """Whether there is a value."""
        return await self.get(key) is not None

    @abstractmethod
    async def keys(self, cursor: int, limit: int) -> tuple[list[str], int | None]:
        """A page of about `limit` keys from the cursor on (0: the first), and the next page's cursor.

        A key that is there all the while is on at least one page.
        """

    @abstractmethod
    async def increment(self, key: str, delta: int) -> int:
        """Add to the number, which is decimal text (0 if there is none), and return the sum."""

    @abstractmethod
    async def current(self, key: str) -> tuple[bytes | None, str]:
        """The value, and what names this state of it for `swap`."""

    @abstractmethod
    async def swap(self, key: str, value: bytes, version: str) -> bool:
        """Store if the state is still that one; whether it was."""

    @abstractmethod
    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The value of each."""

    @abstractmethod
    async def set_many(self, items: Mapping[str, bytes]) -> None:
        """Store all; what fails half way stays half done."""

    @abstractmethod
    async def delete_many(self, keys: Sequence[str]) -> None:
        """Delete all; what fails half way stays half done."""


class Namespace:
    """What is bound for a link: its buckets, as far as they were used."""

    __slots__ = ("name", "stores")

    def __init__(self, name: str) -> None:
        self.name = name
        self.stores: dict[str, Store] = {}


class KeyValueProvider(Provider):
    """Base of the backends, which say what a bucket is."""

    types = TYPES
    max_value_bytes = 2**20
    limit_reason = ""
    """Why it is no more, where that is not the store's own setting."""

    @abstractmethod
    def store(self, namespace: str, bucket: str) -> Store:
        """One bucket, as an object that is cheap to make; never waits."""

    @property
    def interfaces(self) -> Mapping[str, Mapping[str, ProviderFunction]]:
        return {
            STORE: {
                "open": self._open,
                "get": self._get,
                "set": self._set,
                "delete": self._delete,
                "exists": self._exists,
                "list-keys": self._list_keys,
            },
            ATOMICS: {"increment": self._increment, "current": self._current, "swap": self._swap},
            BATCH: {
                "get-many": self._get_many,
                "set-many": self._set_many,
                "delete-many": self._delete_many,
            },
        }

    async def check_link(self, link: BoundLink) -> None:
        await self.bind(link)  # which holds nothing

    async def bind(self, link: BoundLink) -> Namespace:
        for key in link.configuration:
            if key != "bucket":
                near = did_you_mean(key, ["bucket"])
                raise Invalid(
                    f"a link to a key-value store has no configuration {key!r}{near}; it has `bucket`"
                )
        name = link.configuration.get("bucket", link.source)
        if not _NAMESPACE.fullmatch(name):
            raise Invalid(
                f"configuration `bucket` is {name[:80]!r}: use 1 to 63 letters, digits, '-' and '_', "
                "the first a letter or digit"
            )
        return Namespace(name)

    # Functions

    async def _open(self, call: ProviderCall, bucket: str) -> Any:
        return NOTHING if len(bucket.encode()) <= MAX_BUCKET_BYTES else {"err": {"no-such-store": None}}

    async def _get(self, call: ProviderCall, bucket: str, key: str) -> Any:
        return await self._do(call, bucket, (key,), lambda store: store.get(key))

    async def _set(self, call: ProviderCall, bucket: str, key: str, value: bytes) -> Any:
        if len(value) > self.max_value_bytes:
            return self._too_large(key, value)
        return await self._do(call, bucket, (key,), lambda store: store.set(key, value))

    async def _delete(self, call: ProviderCall, bucket: str, key: str) -> Any:
        return await self._do(call, bucket, (key,), lambda store: store.delete(key))

    async def _exists(self, call: ProviderCall, bucket: str, key: str) -> Any:
        return await self._do(call, bucket, (key,), lambda store: store.exists(key))

    async def _list_keys(self, call: ProviderCall, bucket: str, cursor: int | None) -> Any:
        async def page(store: Store) -> Any:
            keys, following = await store.keys(cursor or 0, MAX_KEYS)
            return {"keys": keys, "cursor": following}

        return await self._do(call, bucket, (), page)

    async def _increment(self, call: ProviderCall, bucket: str, key: str, delta: int) -> Any:
        return await self._do(call, bucket, (key,), lambda store: store.increment(key, delta))

    async def _current(self, call: ProviderCall, bucket: str, key: str) -> Any:
        async def read(store: Store) -> Any:
            value, version = await store.current(key)
            return {"value": value, "version": version}

        return await self._do(call, bucket, (key,), read)

    async def _swap(self, call: ProviderCall, bucket: str, key: str, value: bytes, version: str) -> Any:
        if len(value) > self.max_value_bytes:
            return self._too_large(key, value)
        return await self._do(call, bucket, (key,), lambda store: store.swap(key, value, version))

    async def _get_many(self, call: ProviderCall, bucket: str, keys: Sequence[str]) -> Any:
        async def read(store: Store) -> Any:
            found = await store.get_many(keys)
            if sum(len(value) for value in found if value) > MAX_BATCH_BYTES:
                raise Refused(f"the values have more than {MAX_BATCH_BYTES} bytes: ask for fewer at a time")
            return found

        return await self._do(call, bucket, keys, read)

    async def _set_many(self, call: ProviderCall, bucket: str, items: Sequence[tuple[str, bytes]]) -> Any:
        for key, value in items:
            if len(value) > self.max_value_bytes:
                return self._too_large(key, value)
        given = dict(items)
        return await self._do(call, bucket, list(given), lambda store: store.set_many(given))

    async def _delete_many(self, call: ProviderCall, bucket: str, keys: Sequence[str]) -> Any:
        return await self._do(call, bucket, keys, lambda store: store.delete_many(keys))

    async def _do(
        self,
        call: ProviderCall,
        bucket: str,
        keys: Sequence[str],
        operation: Callable[[Store], Awaitable[Any]],
    ) -> Any:
        refusal = _refusal(keys)
        if refusal is not None:
            return _other(refusal)
        store = call.binding.stores.get(bucket)
        if store is None:
            if len(bucket.encode()) > MAX_BUCKET_BYTES:
                return {"err": {"no-such-store": None}}
            if len(call.binding.stores) >= MAX_KEYS:
                call.binding.stores.clear()
            store = call.binding.stores[bucket] = self.store(call.binding.name, bucket)
        try:
            return {"ok": await operation(store)}
        except Refused as error:
            return _other(str(error))

    def _too_large(self, key: str, value: bytes) -> Any:
        return _other(
            f"the value of {key[:80]!r} has {len(value)} bytes, this store takes at most "
            f"{self.max_value_bytes}{self.limit_reason}: keep what is larger as a blob (wasi:blobstore)"
        )


def parse_number(value: bytes, key: str) -> int:
    """The number of an increment; raises `Refused` if the value is none that fits into 64 bits."""
    number = int(value) if _NUMBER.fullmatch(value) else None
    if number is None or not MIN_NUMBER <= number <= MAX_NUMBER:
        raise Refused(f"the value of {key!r} is not a whole number of 64 bits, so it can't be incremented")
    return number


def check_sum(number: int) -> int:
    """Return it, or raise `Refused` if it does not fit into 64 bits."""
    if MIN_NUMBER <= number <= MAX_NUMBER:
        return number
    raise Refused("the sum does not fit into 64 bits")


def _refusal(keys: Sequence[str]) -> str | None:
    if len(keys) > MAX_KEYS:
        return f"{len(keys)} keys at once, at most {MAX_KEYS} are taken"
    for key in keys:
        if len(key) * 4 > MAX_KEY_BYTES and len(key.encode()) > MAX_KEY_BYTES:
            return f"the key has {len(key.encode())} bytes, at most {MAX_KEY_BYTES} are taken"
    return None


def _other(reason: str) -> Any:
    return {"err": {"other": reason}}
