"""A client of a TLS port before it has agreed on TLS: it counts as a connection from its first packet.

The event loop's own servers begin TLS before anybody is asked, and tell nobody of handshakes that fail: only
the process's file descriptors would bound how many are under way, each of which takes memory.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from lattice.tasks import PromptTask
from node.http.protocol import Connection
from node.http.site import Site


class Handshake(asyncio.Protocol):
    """The mutable state is what agrees on TLS, and what came with the end of it."""

    def __init__(self, site: Site, context: ssl.SSLContext) -> None:
        self._site = site
        self._context = context
        self._agreeing: PromptTask | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)  # as this is a protocol of streams
        if self._site.has_room:
            self._site.arriving.add(self)
            self._agreeing = self._site.prompt_tasks.start(self._agree(stream))
        else:
            stream.abort()  # who has not agreed on TLS can't be told why

    def data_received(self, data: bytes) -> None:
        """Keep what asyncio reads after the handshake before it tells that this is over."""
        self._early.append(data)

    def abort(self) -> None:
        """Close at once."""
        if self._agreeing is not None:
            self._agreeing.cancel()

    async def _agree(self, transport: asyncio.Transport) -> None:
        """Make a connection of it; a client that fails, leaves or takes too long is closed without a word."""
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._site.limits.header_seconds,
            )
        except OSError:  # those of TLS among them
            return
        finally:
            self._site.arriving.discard(self)
        if secured is None or secured.is_closing():
            return
        connection = Connection(self._site)
        secured.set_protocol(connection)
        connection.connection_made(secured)
        if self._early:
            connection.data_received(b"".join(self._early))
