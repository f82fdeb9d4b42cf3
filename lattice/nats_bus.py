"""The bus on NATS: the only module that imports `nats`.

nats-py contributes the protocol parser, TLS and authentication, and one object per connection: `_Connection`.
All that happens over connections is ours: reconnecting for ever, subscriptions that outlive a connection,
one table of pending replies, errors. Messages reach their handlers from within the reading of the socket: no
queue of the library's and no task lies between, so nothing there can overflow. What we send is written once
per turn of the event loop, in order.

`_Connection` overrides private methods, so nats-py is pinned exactly and a test names what must be there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import re
import secrets
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.abc
import structlog
from anyio import AsyncContextManagerMixin
from nats import errors as nats_errors
from nats.aio.client import Client, RawCredentials
from nats.aio.subscription import Subscription as NatsSubscription

from lattice import jetstream
from lattice.bus import (
    NO_HEADERS,
    BusStatistics,
    ConnectionHandler,
    Disconnect,
    DisconnectHandler,
    Handler,
    KeyValue,
    Message,
    ObjectStore,
    Subscription,
    check_subject,
)
from lattice.connection import ConnectionSettings
from lattice.errors import Denied, Interrupted, Invalid, LatticeError, TimedOut, Unreachable
from lattice.key_value import JetStreamKeyValue
from lattice.object_store import JetStreamObjectStore
from lattice.tasks import open_tasks

MINIMUM_SERVER = (2, 12, 7)
"""Older servers let one account reach into another."""
CONNECT_TIMEOUT_SECONDS = 2
PING_INTERVAL_SECONDS = 2
"""A server that has vanished without a word is noticed after two to three of these."""
BACKOFF_SECONDS = (0.02, 1.0)
DENIALS = 10
"""A running bus whose credentials were refused so many times in a row gives up."""
FLUSH_TIMEOUT_SECONDS = 5.0
DRAIN_TIMEOUT_SECONDS = 2.0
RELEASE_TIMEOUT_SECONDS = 0.2
"""Freeing an aborted socket is local; it hangs only where a TLS handshake has failed."""
UNSENT_BYTES = 256 * 1024
"""Above this a publisher waits for the socket."""
NO_RESPONDERS = "503"

log = structlog.get_logger()

_BAD_HEADER_KEY = re.compile(r"[^!#$%&'*+\-.^_`|~0-9A-Za-z]|^$")
_LINE_ENDS = str.maketrans("\r\n", "  ")
_DENIED = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]*)\"")


class _Connection(Client):
    """One connection to one server, from CONNECT to its loss. Never reconnects."""

    def __init__(self, bus: NatsBus) -> None:
        super().__init__()
        self._bus = bus
        self._handlers: dict[int, Callable[[str, bytes, Mapping[str, str] | None, bytes], None]] = {}
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._is_write_scheduled = False
        self._pings: set[asyncio.Future[None]] = set()
        self.lost = anyio.Event()
        self.loss: Exception | None = None

    @property
    def info(self) -> dict[str, Any]:
        """What the server said of itself."""
        return self._server_info

    # What replaces the library's own way of doing it

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> None:
        # Returning no message ends the library's handling; an exception here would end its reading.
        if (handler := self._handlers.get(sid)) is not None:
            handler(subject.decode(), data, headers, reply)

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
            self._bus._on_denied(denied[1], denied[2])
        else:
            self.lose(nats_errors.Error(err_msg.strip("'")))

    # What the bus uses

    def send(self, command: bytes) -> None:
        """Write now, or at the end of this turn of the loop if something was already written in it."""
        self._unsent.append(command)
        self._unsent_bytes += len(command)
        if not self._is_write_scheduled:
            self._write()
            self._is_write_scheduled = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._is_write_scheduled = False
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

    async def attach(
        self,
        subject: str,
        queue: str | None,
        handler: Callable[[str, bytes, Mapping[str, str] | None, bytes], None],
    ) -> NatsSubscription:
        """Subscribe; messages are handed to `handler` as they are read."""
        sid = self._sid + 1
        self._handlers[sid] = handler
        return await self.subscribe(subject, queue=queue or "")

    async def detach(self, subscription: NatsSubscription) -> None:
        """Unsubscribe; nothing more is handed over."""
        self._handlers.pop(subscription._id, None)
        if not self.is_closed and not self.lost.is_set():
            await subscription.unsubscribe()

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
        self._bus._on_lost(self)

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


class _Subscribed:
    """A subscription of the bus; every connection gets it anew."""

    def __init__(self, bus: NatsBus, subject: str, queue: str | None, handler: Handler) -> None:
        self.bus = bus
        self.subject = subject
        self.queue = queue
        self.handler = handler
        self.connection: _Connection | None = None
        self.is_denied = False
        self._inner: NatsSubscription | None = None
        self._is_active = True

    async def attach(self, connection: _Connection) -> None:
        self.connection = connection
        self._inner = await connection.attach(self.subject, self.queue, self._receive)

    def _receive(self, subject: str, data: bytes, headers: Mapping[str, str] | None, reply: bytes) -> None:
        self.bus._received += 1
        try:
            self.handler(Message(subject, data, headers or NO_HEADERS, reply.decode() if reply else None))
        except Exception:
            self.bus._handler_errors += 1
            log.exception("bus.handler_failed", subject=subject)

    async def unsubscribe(self) -> None:
        self.bus._subscriptions.discard(self)
        connection, self.connection = self.connection, None
        if connection is not None and self._inner is not None:
            await connection.detach(self._inner)


class NatsBus(AsyncContextManagerMixin):
    """A `Bus` over one connection to NATS at a time; open it with `async with`.

    Entering raises `Unreachable` after `connect_seconds`, at once `Denied` for wrong credentials and
    `Invalid` for a server that is too old or settings that cannot work. Later losses are healed without end;
    only credentials that are refused again and again end the context, with `Denied`.
    """

    # The mutable state of a bus is its present connection, its subscriptions and its pending requests.

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._urls = list(settings.urls)
        self._prefix = f"{settings.inbox_prefix}.{secrets.token_hex(11)}"
        self._reply_start = len(self._prefix) + 3
        self._connection: _Connection | None = None
        self._server_id = ""
        self._client_id = 0
        self._max_payload = 1024 * 1024
        self._is_clustered = False
        self._subscriptions: set[_Subscribed] = set()
        self._pending: dict[str, tuple[asyncio.Future[Message], str]] = {}
        self._requests = 0
        self._changed = anyio.Event()
        self._connection_handlers: list[ConnectionHandler] = []
        self._system: NatsBus | None = None
        self._is_closed = False
        self._sent = self._received = self._reconnects = self._handler_errors = self._slow_consumers = 0

    def __repr__(self) -> str:
        state = f"connected to {self._server_id}" if self._connection else "not connected"
        return f"<NatsBus {state} | {len(self._subscriptions)} subscriptions, {len(self._pending)} pending>"

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[NatsBus]:
        connection = await self._first_connection()
        async with open_tasks() as self._tasks:
            self._tasks.start_soon(self._run, connection)
            try:
                yield self
            finally:
                with anyio.CancelScope(shield=True):
                    await self.aclose()
                self._tasks.cancel_scope.cancel()

    # Properties

    @property
    def max_payload(self) -> int:
        return self._max_payload

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    @property
    def server_id(self) -> str:
        return self._server_id

    @property
    def client_id(self) -> int:
        return self._client_id

    @property
    def is_clustered(self) -> bool:
        """Whether the server is one of several."""
        return self._is_clustered

    def statistics(self) -> BusStatistics:
        return BusStatistics(
            sent=self._sent,
            received=self._received,
            pending_requests=len(self._pending),
            reconnects=self._reconnects,
            slow_consumers=self._slow_consumers,
            handler_errors=self._handler_errors,
        )

    # Sending

    def new_inbox(self) -> str:
        return f"{self._prefix}.i.{secrets.token_hex(8)}"

    def publish_nowait(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        reply: str | None = None,
    ) -> None:
        """As `publish`, for handlers: does not wait for a full socket."""
        self._require_connection().send(self._command(subject, data, headers, reply))
        self._sent += 1

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        reply: str | None = None,
    ) -> None:
        connection = self._require_connection()
        connection.send(self._command(subject, data, headers, reply))
        self._sent += 1
        if connection.is_congested:
            await connection.wait_until_writable()

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float,
    ) -> Message:
        connection = self._require_connection()
        self._requests += 1
        token = f"{self._requests:x}{secrets.token_hex(4)}"
        command = self._command(subject, data, headers, f"{self._prefix}.r.{token}")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Message] = loop.create_future()
        self._pending[token] = future, subject
        timer = loop.call_later(timeout_seconds, _expire, future, subject, timeout_seconds)
        connection.send(command)
        self._sent += 1
        try:
            return await future
        finally:
            timer.cancel()
            del self._pending[token]
            _retrieve(future)

    def _require_connection(self) -> _Connection:
        if self._connection is None:
            raise Unreachable(f"not connected to NATS at {', '.join(self._urls)}")
        return self._connection

    def _command(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None, reply: str | None
    ) -> bytes:
        check_subject(subject)
        if reply:
            check_subject(reply)
        block = _header_block(headers) if headers else b""
        size = len(data) + len(block)
        if size > self._max_payload:
            raise Invalid(
                f"a message of {size} bytes is over the limit of {self._max_payload}: "
                "raise max_payload of the NATS server, or send less"
            )
        if block:
            head = f"HPUB {subject} {reply or ''} {len(block)} {size}\r\n".encode()
            return b"".join((head, block, data, b"\r\n"))
        return b"".join((f"PUB {subject} {reply or ''} {size}\r\n".encode(), data, b"\r\n"))

    def _on_reply(self, subject: str, data: bytes, headers: Mapping[str, str] | None, reply: bytes) -> None:
        self._received += 1
        future, asked = self._pending.get(subject[self._reply_start :], (None, ""))
        if future is None or future.done():
            return
        if headers and not data and headers.get("Status") == NO_RESPONDERS:
            future.set_exception(Unreachable(f"nobody answers to {asked}"))
        else:
            future.set_result(Message(subject, data, headers or NO_HEADERS, reply.decode() or None))

    # Receiving

    async def subscribe(self, subject: str, handler: Handler, *, queue: str | None = None) -> Subscription:
        check_subject(subject)
        if queue:
            check_subject(queue)
        subscribed = _Subscribed(self, subject, queue, handler)
        self._subscriptions.add(subscribed)
        try:
            await self._establish(subscribed)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await subscribed.unsubscribe()
            raise
        return subscribed

    async def _establish(self, subscribed: _Subscribed) -> None:
        while True:
            connection = await self.wait_until_connected()
            if subscribed.connection is not connection:
                await subscribed.attach(connection)
            try:
                await connection.ping()
                break
            except Interrupted:
                continue
        if subscribed.is_denied:
            raise Denied(
                f"the NATS server does not let this user subscribe to {subscribed.subject}: "
                "allow it in the user's permissions"
            )

    async def flush(self) -> None:
        await self._require_connection().ping()

    # The connection

    def on_connection_change(self, handler: ConnectionHandler) -> None:
        self._connection_handlers.append(handler)

    def forget_connection_handler(self, handler: ConnectionHandler) -> None:
        """Undo `on_connection_change`."""
        if handler in self._connection_handlers:
            self._connection_handlers.remove(handler)

    async def wait_until_connected(self) -> _Connection:
        """Return the present connection, or the next one; raises `Unreachable` when the bus is closed."""
        while self._connection is None:
            if self._is_closed:
                raise Unreachable("the connection to NATS is closed")
            await self._changed.wait()
        return self._connection

    async def _first_connection(self) -> _Connection:
        with anyio.move_on_after(self._settings.connect_seconds):
            return await self._connect_until_it_works(start=True)
        raise self._last_error

    async def _run(self, connection: _Connection) -> None:
        """Keep the bus connected until it is closed. Errors of a connection are logged and healed."""
        while True:
            try:
                await connection.lost.wait()
            finally:
                with anyio.CancelScope(shield=True):
                    await connection.aclose()
            if self._is_closed:
                return
            self._learn_servers(connection)
            log.warning("bus.disconnected", server=self._server_id, reason=str(connection.loss))
            connection = await self._connect_until_it_works(start=False)
            self._reconnects += 1
            log.info("bus.reconnected", server=self._server_id)

    async def _connect_until_it_works(self, *, start: bool) -> _Connection:
        self._last_error: LatticeError = Unreachable(f"cannot reach NATS at {', '.join(self._urls)}")
        least, most = BACKOFF_SECONDS
        denials = 0
        for attempt in range(10**9):
            try:
                return await self._connect_to_any()
            except (Denied, Invalid) as error:
                denials += 1
                if start or denials >= DENIALS:
                    raise
                self._last_error = error
            except LatticeError as error:
                denials = 0
                self._last_error = error
            log.debug("bus.unreachable", reason=self._last_error.message, attempt=attempt)
            await anyio.sleep(random.uniform(0.5, 1.0) * min(most, least * 2 ** min(attempt, 10)))
        raise self._last_error

    async def _connect_to_any(self) -> _Connection:
        errors: list[LatticeError] = []
        for url in random.sample(self._urls, len(self._urls)):
            connection = _Connection(self)
            try:
                await self._connect_to(connection, url)
                return connection
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await connection.aclose()
                if not isinstance(error, LatticeError):
                    raise
                errors.append(error)
        if all(isinstance(error, Denied | Invalid) for error in errors):
            raise errors[0]
        raise Unreachable("; ".join(error.message for error in errors))

    async def _connect_to(self, connection: _Connection, url: str) -> None:
        options = await anyio.to_thread.run_sync(_connect_options, self._settings)
        if (
            url not in self._settings.urls
        ):  # it was learnt as an address, for which no certificate is made out
            options["tls_hostname"] = urlsplit(self._settings.urls[0]).hostname
        with _translated(url, self._settings):
            await connection.connect(
                servers=[url],
                error_cb=self._on_library_error,
                allow_reconnect=False,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                ping_interval=PING_INTERVAL_SECONDS,
                max_outstanding_pings=2,
                **options,
            )
        _check_version(connection.info, url)
        self._learn_servers(connection)
        await self._take_up(connection)

    def _learn_servers(self, connection: _Connection) -> None:
        for discovered in connection.discovered_servers:
            if (found := discovered.geturl()) not in self._urls:
                self._urls.append(found)

    async def _take_up(self, connection: _Connection) -> None:
        """Give the connection all subscriptions, then make it the bus's."""
        await connection.attach(f"{self._prefix}.r.*", None, self._on_reply)
        while waiting := [item for item in self._subscriptions if item.connection is not connection]:
            for subscribed in waiting:
                await subscribed.attach(connection)
            await connection.ping()
        await connection.ping()
        self._server_id = str(connection.info.get("server_id", ""))
        self._client_id = int(connection.info.get("client_id", 0))
        self._max_payload = connection.max_payload
        self._is_clustered = bool(connection.info.get("cluster"))
        self._connection = connection
        self._notify(True)

    def _on_lost(self, connection: _Connection) -> None:
        if "slow consumer" in str(connection.loss).lower():
            self._slow_consumers += 1
        if connection is not self._connection:
            return
        self._connection = None
        for future, subject in self._pending.values():
            if not future.done():
                future.set_exception(
                    Interrupted(f"the connection to NATS was lost while {subject} was called")
                )
        self._notify(False)

    def _notify(self, is_connected: bool) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
        if self._is_closed:
            return
        for handler in list(self._connection_handlers):
            try:
                handler(is_connected)
            except Exception:
                self._handler_errors += 1
                log.exception("bus.handler_failed")

    def _on_denied(self, what: str, subject: str) -> None:
        # The server's text comes in lower case from the library.
        log.warning("bus.denied", what=what, subject=subject)
        if what == "subscription":
            for subscribed in self._subscriptions:
                subscribed.is_denied |= subscribed.subject.lower() == subject
            return
        for future, asked in self._pending.values():
            if asked.lower() == subject and not future.done():
                message = f"the NATS server does not let this user publish to {asked}"
                future.set_exception(Denied(f"{message}: allow it in the user's permissions"))

    async def _on_library_error(self, error: Exception) -> None:
        log.debug("bus.library_error", error=str(error) or type(error).__name__)

    # Stores and the system account

    async def key_value(self, bucket: str, *, history: int = 1, ttl_seconds: float | None = None) -> KeyValue:
        stream = jetstream.key_value_stream(bucket, history=history, ttl_seconds=ttl_seconds)
        opened = JetStreamKeyValue(self, self._tasks, bucket, stream, replicas=self._settings.replicas)
        await opened.open()
        return opened

    async def object_store(self, bucket: str) -> ObjectStore:
        opened = JetStreamObjectStore(
            self, bucket, jetstream.object_stream(bucket), replicas=self._settings.replicas
        )
        await opened.open()
        return opened

    async def watch_disconnects(self, handler: DisconnectHandler) -> bool:
        if self._settings.system_credentials is None:
            return False
        try:
            if self._system is None:
                self._system = await self._tasks.start(self._run_system)
            await self._system.subscribe("$SYS.ACCOUNT.*.DISCONNECT", _disconnect_handler(handler))
        except LatticeError as error:
            log.warning("bus.system_unavailable", reason=error.message)
            return False
        return True

    async def _run_system(self, *, task_status: anyio.abc.TaskStatus[NatsBus]) -> None:
        """Hold the connection of the system account; losing its permission ends it alone."""
        settings = dataclasses.replace(
            self._settings, credentials=self._settings.system_credentials, system_credentials=None
        )
        is_started = False
        try:
            async with NatsBus(settings) as system:
                is_started = True
                task_status.started(system)
                await anyio.sleep_forever()
        except LatticeError as error:
            if not is_started:
                raise
            log.warning("bus.system_unavailable", reason=error.message)

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._system is not None:
            await self._system.aclose()
        if (connection := self._connection) is not None:
            await connection.drain()
            connection.lose(Interrupted("closed"))
        self._notify(False)


def _expire(future: asyncio.Future[Message], subject: str, seconds: float) -> None:
    if not future.done():
        future.set_exception(TimedOut(f"no answer from {subject} within {seconds:g} s"))


def _retrieve(future: asyncio.Future[Message]) -> None:
    # An error that came while the request was being cancelled has no reader; that is as it should be.
    if future.done() and not future.cancelled():
        future.exception()


def _header_block(headers: Mapping[str, str]) -> bytes:
    lines = ["NATS/1.0"]
    for key, value in headers.items():
        if _BAD_HEADER_KEY.search(key):
            raise Invalid(f"header {key!r} is not valid: use letters, digits and '-'")
        lines.append(f"{key}: {value.translate(_LINE_ENDS)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _disconnect_handler(handler: DisconnectHandler) -> Handler:
    def receive(message: Message) -> None:
        advisory = json.loads(message.data)
        handler(Disconnect(str(advisory["server"]["id"]), int(advisory["client"]["id"])))

    return receive


def _check_version(info: Mapping[str, Any], url: str) -> None:
    version = str(info.get("version", "0"))
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if numbers < MINIMUM_SERVER:
        least = ".".join(map(str, MINIMUM_SERVER))
        raise Invalid(
            f"the NATS server at {url} is version {version}; at least {least} is needed: upgrade it"
        )


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
                f"the NATS server at {url} refuses these credentials ({reason}): {_cure(settings)}"
            ) from error
        raise Unreachable(f"cannot connect to NATS at {url}: {reason}") from error


def _cure(settings: ConnectionSettings) -> str:
    if settings.credentials is None:
        return "give --creds FILE, or a user and a password in --nats nats://USER:PASSWORD@HOST"
    if settings.credentials.file is not None:
        return f"check the credentials file {settings.credentials.file}"
    return "check the user and the password in --nats"


def _connect_options(settings: ConnectionSettings) -> dict[str, Any]:
    """What the library's `connect` takes for these settings. Reads files."""
    options: dict[str, Any] = {"name": settings.name}
    credentials = settings.credentials
    if credentials is not None and credentials.file is not None:
        options["user_credentials"] = RawCredentials(_read_credentials(credentials.file))
    elif credentials is not None and credentials.password is None:
        options["token"] = credentials.user
    elif credentials is not None:
        options["user"], options["password"] = credentials.user, credentials.password
    if settings.tls_ca or settings.tls_certificate:
        options["tls"] = _tls_context(settings)
    return options


def _read_credentials(file: Path) -> str:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read the credentials file {file}: {error}") from error
    for part in ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED"):
        if part not in text:
            raise Invalid(f"{file} is not a NATS credentials file: it has no line `{part}`")
    return text


def _tls_context(settings: ConnectionSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
        if settings.tls_certificate is not None:
            context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"cannot use the TLS files (--tls-ca, --tls-cert, --tls-key): {error}") from error
    return context
