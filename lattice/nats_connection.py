"""One connection to one NATS server: the only module that imports `nats`.

nats-py contributes the protocol parser, TLS and authentication. Messages reach their handlers from within the
reading of the socket: no queue of the library's and no task lies between, so nothing there can overflow. What
we send is written in order: at once, or where many are sent together with the rest of its turn of the event
loop, and of the turns right behind it.

Private methods are overridden, so nats-py is pinned exactly and a test names what must be there.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import anyio
import structlog
from anyio import to_thread
from nats import errors as nats_errors
from nats.aio.client import Client, RawCredentials
from nats.aio.subscription import Subscription as NatsSubscription
from nats.protocol import parser as library
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from lattice.clock import now
from lattice.connection import ConnectionSettings
from lattice.errors import Denied, Interrupted, Invalid, LatticeError, TimedOut, Unreachable
from lattice.headers import HeaderBlock
from lattice.nats_options import check_server, connect_options, credentials_cure
from lattice.nats_parser import LIBRARY_MESSAGE, LIBRARY_WITH_HEADERS, HandOver, Messages, text_of

CONNECT_TIMEOUT_SECONDS = 2
PING_INTERVAL_SECONDS = 2
"""A server that has vanished without a word is noticed after two to three of these."""
FLUSH_TIMEOUT_SECONDS = 5.0
DRAIN_TIMEOUT_SECONDS = 2.0
RELEASE_TIMEOUT_SECONDS = 0.2
"""Freeing an aborted socket is local; it hangs only where a TLS handshake has failed."""
HELD_SECONDS = 0.001
"""So long a message may wait for others of its turn of the loop, and of those right behind it."""
HELD_MESSAGES = 16
"""So many are written without waiting for more: else those who send and those who answer take turns."""
UNSENT_BYTES = 256 * 1024
"""Above this a publisher waits for the socket."""

RawHandler = Callable[[str, bytes, Mapping[str, str] | None, bytes], None]
"""Takes subject, data, headers and reply subject of a message."""

log = structlog.get_logger()

_DENIED = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]*)\"")


library.MSG_RE = LIBRARY_MESSAGE
library.HMSG_RE = LIBRARY_WITH_HEADERS


class MessageParser(Parser):
    """The library's parser, but for messages. The mutable state, beside the library's, is theirs."""

    def __init__(self, client: object, hand_over: HandOver) -> None:
        self._messages = Messages(hand_over)
        super().__init__(client)

    def reset(self) -> None:
        super().reset()
        self._messages.reset()

    async def parse(self, data: bytes = b"") -> None:
        """Take what was read from the socket; hands over, in order, what has come whole."""
        if not self.buf and self.state == AWAITING_CONTROL_LINE:
            data = self._messages.take(data)
        if data:
            await super().parse(data)


class NatsConnection(Client):
    """One connection to one server, from CONNECT to its loss. Never reconnects."""

    # The mutable state, beyond the library's: who receives, what is unsent, who waits for a PONG, the loss.

    def __init__(
        self, *, on_lost: Callable[[NatsConnection], None], on_denied: Callable[[str, str], None]
    ) -> None:
        super().__init__()
        self._on_lost = on_lost
        self._on_denied = on_denied
        self._ps = MessageParser(self, self._hand_over)
        self._handlers: dict[int, RawHandler] = {}
        self._attached: dict[int, NatsSubscription] = {}
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._sent_in_turn = 0
        self._sent_in_run = 0
        self._written_at = 0.0
        self._is_busy = False
        self._pings: set[asyncio.Future[None]] = set()
        self.lost = anyio.Event()
        self.loss: Exception | None = None

    @property
    def info(self) -> dict[str, Any]:
        """What the server said of itself."""
        return self._server_info

    # What replaces the library's own way of doing it

    async def _process_headers(  # type: ignore[override]  # a mapping that is read when somebody asks
        self, headers: bytes | None
    ) -> Mapping[str, str] | None:
        return HeaderBlock(headers) if headers else None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Mapping[str, str] | None
    ) -> None:
        # Returning no message ends the library's handling; an exception here would end its reading.
        if (handler := self._handlers.get(sid)) is not None:
            handler(text_of(subject), data, headers, reply)

    def _hand_over(self, sid: int, subject: str, reply: bytes, block: bytes, data: bytes) -> None:
        if (handler := self._handlers.get(sid)) is not None:
            handler(subject, data, HeaderBlock(block) if block else None, reply)

    async def _select_next_server(self) -> None:
        server = self._server_pool[0]
        await self._connect_to_server(server)
        self._current_server = server

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        self.send(cmd)

    async def _flush_pending(self, force_flush: bool = False) -> None:
        self._write()

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        self._pongs.append(future or asyncio.Future())
        self.send(b"PING\r\n")

    async def _process_op_err(self, e: Exception) -> None:
        self.lose(e)

    async def _process_err(self, err_msg: str) -> None:
        if denied := _DENIED.search(err_msg):
            self._on_denied(denied[1], denied[2])
        else:
            self.lose(nats_errors.Error(err_msg.strip("'")))

    # What the bus uses

    async def open(self, url: str, settings: ConnectionSettings) -> None:
        """Connect and log in; raises `Unreachable`, `Denied` or `Invalid`. Close it also when that fails."""
        options = await to_thread.run_sync(connect_options, settings)
        if "user_credentials" in options:
            options["user_credentials"] = RawCredentials(options["user_credentials"])
        if url not in settings.urls:  # learnt as an address, for which no certificate is made out
            options["tls_hostname"] = urlsplit(settings.urls[0]).hostname
        with _translated(url, settings):
            await self.connect(
                servers=[url],
                error_cb=_log_library_error,
                allow_reconnect=False,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                ping_interval=PING_INTERVAL_SECONDS,
                max_outstanding_pings=2,
                **options,
            )
        check_server(self.info, url)

    def send(self, command: bytes) -> None:
        """Write at once if this may be alone, else with what its turn of the loop and the next ones bring."""
        self._unsent.append(command)
        self._unsent_bytes += len(command)
        self._sent_in_turn += 1
        if not self._sent_in_run:
            asyncio.get_running_loop().call_soon(self._end_turn)
            self._written_at = now()
            if not self._is_busy:
                self._write()
        elif len(self._unsent) >= HELD_MESSAGES or now() - self._written_at > HELD_SECONDS:
            self._written_at = now()
            self._write()
        self._sent_in_run += 1

    def _end_turn(self) -> None:
        # Each write wakes the server, which interrupts whoever has the core: where many messages are sent,
        # they are held as long as every turn, which does not wait for its input, brings more of them.
        if self._is_busy and self._sent_in_turn:
            self._sent_in_turn = 0
            asyncio.get_running_loop().call_soon(self._end_turn)
            return
        # A run of one message is followed by such ones, one of many by others of many.
        self._is_busy = self._sent_in_run > 1
        self._sent_in_turn = self._sent_in_run = 0
        self._write()

    def _write(self) -> None:
        if self._unsent and self._transport is not None and not self.lost.is_set():
            self._transport.write(b"".join(self._unsent) if len(self._unsent) > 1 else self._unsent[0])
            self._unsent = []
            self._unsent_bytes = 0

    @property
    def _writer(self) -> asyncio.StreamWriter | None:
        return getattr(self._transport, "_io_writer", None)

    @property
    def is_congested(self) -> bool:
        """Whether so much is unsent that a publisher should wait."""
        writer = self._writer
        buffered = writer.transport.get_write_buffer_size() if writer else 0
        return self._unsent_bytes + buffered > UNSENT_BYTES

    async def wait_until_writable(self) -> None:
        """Return when the socket takes more, or the connection is lost."""
        self._write()
        if (writer := self._writer) is not None:
            with suppress(OSError):  # whoever reads from the socket finds out, too
                await writer.drain()

    async def drain(self) -> None:
        """End all subscriptions and return when what was received before has been handed over."""
        for sid in self._handlers:
            self.send(f"UNSUB {sid}\r\n".encode())
        with suppress(LatticeError), anyio.move_on_after(DRAIN_TIMEOUT_SECONDS):
            await self.ping()

    async def attach(self, subject: str, queue: str | None, handler: RawHandler) -> int:
        """Subscribe and return the subscription's number; `handler` gets messages as they are read."""
        sid = self._sid + 1
        self._handlers[sid] = handler
        self._attached[sid] = await self.subscribe(subject, queue=queue or "")
        return sid

    async def detach(self, sid: int, *, drains: bool = False) -> None:
        """Unsubscribe; nothing more is handed over. `drains` waits for what is on its way."""
        attached = self._attached.pop(sid, None)
        if drains and attached is not None and not self.lost.is_set():
            with suppress(LatticeError), anyio.move_on_after(DRAIN_TIMEOUT_SECONDS):
                self.send(f"UNSUB {sid}\r\n".encode())
                await self.ping()
        self._handlers.pop(sid, None)
        if attached is not None and not self.lost.is_set():
            await attached.unsubscribe()

    async def ping(self) -> None:
        """Return when the server has processed all that was sent; raises `Interrupted` when it is lost."""
        pong: asyncio.Future[bool] = asyncio.Future()
        done: asyncio.Future[None] = asyncio.Future()
        # The library's future must never be cancelled, or its reading ends when the answer comes.
        pong.add_done_callback(lambda _: None if done.done() else done.set_result(None))
        self._pings.add(done)
        await self._send_ping(pong)
        try:
            with anyio.fail_after(FLUSH_TIMEOUT_SECONDS):
                await done
        except TimeoutError:
            raise TimedOut(f"the NATS server did not answer within {FLUSH_TIMEOUT_SECONDS:g} s") from None
        finally:
            self._pings.discard(done)

    def lose(self, error: Exception) -> None:
        """Take the connection for lost: from here on nothing is sent or handed over."""
        if self.lost.is_set():
            return
        self._write()
        self.loss = error
        self.lost.set()
        self._handlers.clear()
        for waiting in self._pings:
            if not waiting.done():
                waiting.set_exception(Interrupted("the connection to NATS was lost"))
        self._on_lost(self)

    async def aclose(self) -> None:
        """Free the socket and end the library's tasks; never waits for the peer."""
        self.lose(Interrupted("the connection was closed"))
        writer = self._writer
        if writer is not None:
            writer.transport.abort()
        with anyio.move_on_after(RELEASE_TIMEOUT_SECONDS, shield=True) as scope:
            with suppress(OSError):
                await self.close()
        if scope.cancelled_caught and writer is not None:
            writer.transport.abort()


async def _log_library_error(error: Exception) -> None:
    log.debug("bus.library_error", error=str(error) or type(error).__name__)


@contextmanager
def _translated(url: str, settings: ConnectionSettings) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise Invalid(
            f"TLS with the NATS server at {url} failed ({error}): check --tls-ca, --tls-cert and --tls-key"
        ) from error
    except (OSError, TimeoutError) as error:
        reason = str(error) or "no answer"
        raise Unreachable(f"cannot reach NATS at {url} ({reason}): start it, or correct --nats") from error
    except nats_errors.Error as error:
        reason = str(error).removeprefix("nats: ").strip("'")
        if "auth" in reason.lower():
            raise Denied(
                f"the NATS server at {url} refuses these credentials ({reason}): {credentials_cure(settings)}"
            ) from error
        raise Unreachable(f"cannot connect to NATS at {url}: {reason}") from error
