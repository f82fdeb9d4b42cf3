"""The bus on NATS, over one connection after another.

A connection ends with its first fault (`nats_connection`); what outlives it is here: reconnecting for ever,
subscriptions, the table of pending replies, the stores, and a second connection to the system account.
"""

from __future__ import annotations

import dataclasses
import json
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.abc
import structlog
from anyio import AsyncContextManagerMixin, to_thread

from lattice import consumers, jetstream, object_store
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
    OwnedQueue,
    QueueSettings,
    Subscription,
    WorkQueue,
    check_subject,
)
from lattice.connection import ConnectionSettings, read_server_file
from lattice.errors import Denied, Interrupted, Invalid, LatticeError, NotFound, Unreachable
from lattice.key_value import JetStreamKeyValue
from lattice.nats_connection import NatsConnection
from lattice.nats_parser import text_of
from lattice.nats_protocol import publish_command, request_command
from lattice.object_store import JetStreamObjectStore
from lattice.outcome import failed
from lattice.replaced_objects import ReplacedObjects
from lattice.replies import Replies
from lattice.tasks import open_tasks
from lattice.work_queue import JetStreamWorkQueue

BACKOFF_SECONDS = (0.02, 1.0)
STEADY_SECONDS = 1.0
PAUSE_SECONDS = (0.05, 0.1)
"""A server that drops a connection sooner than that is not asked again at once."""
DENIALS = 10
"""A running bus whose credentials were refused so many times in a row gives up."""

log = structlog.get_logger()


class _Subscribed:
    """A subscription of the bus; every connection gets it anew."""

    def __init__(self, bus: NatsBus, subject: str, queue: str | None, handler: Handler) -> None:
        self.bus = bus
        self.subject = subject
        self.queue = queue
        self.handler = handler
        self.connection: NatsConnection | None = None
        self.is_denied = False
        self._sid: int | None = None

    async def attach(self, connection: NatsConnection) -> None:
        self.connection = connection
        self._sid = await connection.attach(self.subject, self.queue, self._receive)

    def _receive(self, subject: str, data: bytes, headers: Mapping[str, str] | None, reply: bytes) -> None:
        self.bus._received += 1
        try:
            self.handler(
                Message(
                    subject,
                    data,
                    NO_HEADERS if headers is None else headers,
                    text_of(reply) if reply else None,
                )
            )
        except LatticeError as error:
            self.bus._handler_errors += 1
            log.warning("bus.handler_failed", subject=subject, code=error.code, reason=error.message)
        except Exception:
            self.bus._handler_errors += 1
            log.exception("bus.handler_failed", subject=subject)

    async def unsubscribe(self) -> None:
        self.bus._subscriptions.discard(self)
        connection, self.connection = self.connection, None
        if connection is not None and self._sid is not None:
            # What the server gave to this member of a queue group, it gives to no other.
            await connection.detach(self._sid, drains=self.queue is not None)


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
        self._connection: NatsConnection | None = None
        self._server_id = ""
        self._client_id = 0
        self._max_payload = 1024 * 1024
        self._is_clustered = False
        self._subscriptions: set[_Subscribed] = set()
        self._replies = Replies()
        self._changed = anyio.Event()
        self._supervision = anyio.CancelScope()
        self._connection_handlers: list[ConnectionHandler] = []
        self._system: NatsBus | None = None
        self._is_closed = False
        self._sent = self._received = self._reconnects = self._handler_errors = self._slow_consumers = 0

    def __repr__(self) -> str:
        state = f"connected to {self._server_id}" if self._connection else "not connected"
        return f"<NatsBus {state} | {len(self._subscriptions)} subscriptions, {len(self._replies)} pending>"

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[NatsBus]:
        connection = await self._first_connection()
        async with open_tasks() as self._tasks:
            self._replaced_objects = ReplacedObjects(self._tasks, partial(object_store.purge, self))
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
            pending_requests=len(self._replies),
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

    def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float,
    ) -> Awaitable[Message]:
        waiting = self._replies.expect(subject, timeout_seconds)
        inbox = f"{self._prefix}.r.{waiting.token}"
        try:
            connection = self._require_connection()
            connection.send(request_command(subject, data, headers, inbox, max_payload=self._max_payload))
        except LatticeError as error:
            self._replies.forget(waiting)
            return failed(error)
        self._sent += 1
        return waiting

    def interrupt(self, prefix: str, reason: str) -> None:
        self._replies.interrupt(prefix, reason)

    def _require_connection(self) -> NatsConnection:
        if self._connection is None:
            raise Unreachable(f"not connected to NATS at {', '.join(self._urls)}")
        return self._connection

    def _command(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None, reply: str | None
    ) -> bytes:
        return publish_command(subject, data, headers, reply, max_payload=self._max_payload)

    def _on_reply(self, subject: str, data: bytes, headers: Mapping[str, str] | None, reply: bytes) -> None:
        self._received += 1
        to = text_of(reply) if reply else None
        message = Message(subject, data, NO_HEADERS if headers is None else headers, to)
        self._replies.settle(subject[self._reply_start :], message)

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
            raise _denied("subscribe", subscribed.subject)

    async def flush(self) -> None:
        await self._require_connection().ping()

    # The connection

    def on_connection_change(self, handler: ConnectionHandler) -> None:
        self._connection_handlers.append(handler)

    def forget_connection_handler(self, handler: ConnectionHandler) -> None:
        """Undo `on_connection_change`."""
        if handler in self._connection_handlers:
            self._connection_handlers.remove(handler)

    async def wait_until_connected(self) -> NatsConnection:
        """Return the present connection, or the next one; raises `Unreachable` when the bus is closed."""
        while self._connection is None:
            if self._is_closed:
                raise Unreachable("the connection to NATS is closed")
            await self._changed.wait()
        return self._connection

    async def _first_connection(self) -> NatsConnection:
        with anyio.move_on_after(self._settings.connect_seconds):
            return await self._connect_until_it_works(start=True)
        raise self._last_error

    async def _run(self, connection: NatsConnection) -> None:
        """Keep the bus connected until it is closed. Errors of a connection are logged and healed."""
        with self._supervision:
            while True:
                started = anyio.current_time()
                try:
                    await connection.lost.wait()
                finally:
                    with anyio.CancelScope(shield=True):
                        await connection.aclose()
                if self._is_closed:
                    return
                self._learn_servers(connection)
                log.warning("bus.disconnected", server=self._server_id, reason=str(connection.loss))
                if anyio.current_time() - started < STEADY_SECONDS:
                    await anyio.sleep(random.uniform(*PAUSE_SECONDS))
                connection = await self._connect_until_it_works(start=False)
                self._reconnects += 1
                log.info("bus.reconnected", server=self._server_id)

    async def _connect_until_it_works(self, *, start: bool) -> NatsConnection:
        self._last_error: LatticeError = Unreachable(f"cannot reach NATS at {', '.join(self._urls)}")
        least, most = BACKOFF_SECONDS
        denials = 0
        for attempt in range(10**9):
            if await self._has_moved():
                denials = 0
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

    async def _has_moved(self) -> bool:
        """Whether the embedded server was started again at another address, which is used from now on."""
        if (folder := self._settings.embedded_in) is None:
            return False
        try:
            found = await to_thread.run_sync(read_server_file, folder)
        except Invalid:
            return False
        if found is None or found.url in self._urls:
            return False
        self._urls = [found.url]
        return True

    async def _connect_to_any(self) -> NatsConnection:
        errors: list[LatticeError] = []
        for url in random.sample(self._urls, len(self._urls)):
            connection = NatsConnection(on_lost=self._on_lost, on_denied=self._on_denied)
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

    async def _connect_to(self, connection: NatsConnection, url: str) -> None:
        await connection.open(url, self._settings)
        self._learn_servers(connection)
        await self._take_up(connection)

    def _learn_servers(self, connection: NatsConnection) -> None:
        for discovered in connection.discovered_servers:
            if (found := discovered.geturl()) not in self._urls:
                self._urls.append(found)

    async def _take_up(self, connection: NatsConnection) -> None:
        """Give the connection all subscriptions, then make it the bus's."""
        await connection.attach(f"{self._prefix}.r.*", None, self._on_reply)
        while waiting := [item for item in self._subscriptions if item.connection is not connection]:
            for subscribed in waiting:
                await subscribed.attach(connection)
            await connection.ping()
        await connection.ping()
        if connection.lost.is_set():
            raise Interrupted("the connection was lost again at once")
        self._server_id = str(connection.info.get("server_id", ""))
        self._client_id = int(connection.info.get("client_id", 0))
        self._max_payload = connection.max_payload
        self._is_clustered = bool(connection.info.get("cluster"))
        self._connection = connection
        self._notify(True)

    def _on_lost(self, connection: NatsConnection) -> None:
        if "slow consumer" in str(connection.loss).lower():
            self._slow_consumers += 1
        if connection is not self._connection:
            return
        self._connection = None
        self._replies.fail(
            lambda subject: Interrupted(f"the connection to NATS was lost while {subject} was called")
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
        self._replies.fail(lambda asked: _denied("publish", asked), subject=subject)

    # Stores and the system account

    async def key_value(self, bucket: str, *, history: int = 1, ttl_seconds: float | None = None) -> KeyValue:
        stream = jetstream.key_value_stream(bucket, history=history, ttl_seconds=ttl_seconds)
        opened = JetStreamKeyValue(self, self._tasks, bucket, stream, replicas=self._settings.replicas)
        await opened.open()
        return opened

    async def object_store(self, bucket: str, *, make: bool = True) -> ObjectStore:
        stream = jetstream.object_stream(bucket)
        opened = JetStreamObjectStore(
            self,
            bucket,
            stream,
            replicas=self._settings.replicas,
            replaced=self._replaced_objects,
            makes=make,
        )
        if make:
            await opened.open()
        return opened

    async def object_stores(self, prefix: str) -> list[str]:
        return await object_store.stores(self, prefix)

    async def delete_object_store(self, bucket: str) -> None:
        try:
            await jetstream.call(self, f"STREAM.DELETE.{jetstream.object_stream(bucket)['name']}")
        except jetstream.StreamLost:
            raise NotFound(f"there is no object store {bucket!r}") from None

    async def work_queue(self, settings: QueueSettings) -> WorkQueue:
        opened = JetStreamWorkQueue(self, settings, replicas=self._settings.replicas)
        await opened.open()
        return opened

    async def owned_queues(self, owner: str) -> list[OwnedQueue]:
        return await consumers.owned(self, owner)

    async def retire_queue(self, queue: OwnedQueue, *, idle_seconds: float) -> None:
        await consumers.retire(self, queue, idle_seconds)

    async def make_stream(self, name: str, subject: str) -> None:
        found = await jetstream.call(self, "STREAM.NAMES", {"subject": subject})
        if not found.get("streams"):
            stream = jetstream.work_stream(name, subject)
            await jetstream.open_stream(self, stream, replicas=self._settings.replicas)

    async def publish_stored(
        self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None, timeout_seconds: float
    ) -> int:
        return await jetstream.publish_stored(
            self, subject, data, headers=headers, timeout_seconds=timeout_seconds
        )

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
        self._supervision.cancel()
        self._notify(False)


def _denied(what: str, subject: str) -> Denied:
    return Denied(
        f"the NATS server does not let this user {what} to {subject}: allow it in the user's permissions"
    )


def _disconnect_handler(handler: DisconnectHandler) -> Handler:
    def receive(message: Message) -> None:
        advisory = json.loads(message.data)
        handler(Disconnect(str(advisory["server"]["id"]), int(advisory["client"]["id"])))

    return receive
