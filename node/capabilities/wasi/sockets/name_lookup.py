"""The resource `resolve-address-stream`: a lookup that goes on, on a thread, while the guest does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import ip_address

from node.capabilities.addresses import Address
from node.capabilities.wasi.network import canonical_name
from node.capabilities.wasi.pollables import Disarm, Signal, Watched
from node.capabilities.wasi.sockets.access import SocketAccess
from node.capabilities.wasi.sockets.socket_errors import SocketError, code_of

LOOKUP_THREADS = 8
MAX_ADDRESSES = 64

_REFUSED = "permanent-resolver-failure"
"""For names that were not granted: what native hosts answer where they look up none."""

Lookup = Callable[[str], list[str]]
"""Gives a name's addresses as text; may block, and raises `OSError`."""

_executor = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="name-lookup")


def system_lookup(name: str) -> list[str]:
    """What the host's resolver says."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class AddressStream(Watched):
    """One lookup; also the source that its pollables wait for."""

    def __init__(self, name: str, access: SocketAccess, lookup: Lookup) -> None:
        """Raises `SocketError` for what is no name and for a name that was not granted."""
        super().__init__()
        if not access.policy.grants:
            raise SocketError(_REFUSED)
        self._access = access
        self._changed = Signal()
        self._future: Future[list[str]] | None = None
        self._found: list[Address] = []
        self._name = name
        if (literal := _literal(name)) is not None:
            access.admit()
            self._found = [literal]
            return
        canonical = canonical_name(name)
        if canonical is None:
            raise SocketError("invalid-argument")
        if not access.policy.may_resolve(canonical):
            raise SocketError(_REFUSED)
        access.admit()
        self._name = canonical
        self._begin(lookup)

    def next(self) -> Address | None:
        """The next address, none at the end; raises `SocketError`, which is `would-block` while it lasts."""
        if self._future is not None:
            if not self._future.done():
                raise SocketError("would-block")
            self._finish(self._future)
        return self._found.pop(0) if self._found else None

    def is_ready(self) -> bool:
        return self._future is None or self._future.done()

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._changed.arm(wake)

    def close(self) -> None:
        """The guest dropped it; a lookup that runs ends unheard."""
        if self._future is not None:
            self._future.cancel()
        self._access.leave()
        self.check_unwatched("a resolve-address-stream")

    def _begin(self, lookup: Lookup) -> None:
        loop = asyncio.get_running_loop()

        def tell(_: Future[list[str]]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._changed.notify)

        self._future = _executor.submit(lookup, self._name)
        self._future.add_done_callback(tell)

    def _finish(self, future: Future[list[str]]) -> None:
        self._future = None
        try:
            texts = future.result()[:MAX_ADDRESSES]
        except OSError as error:
            raise SocketError(code_of(error)) from None
        addresses = [ip_address(text.partition("%")[0]) for text in texts]
        self._found = self._access.learn(self._name, addresses)
        if addresses and not self._found:
            raise SocketError(_REFUSED)


def _literal(name: str) -> Address | None:
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    try:
        return ip_address(bare)
    except ValueError:
        return None
