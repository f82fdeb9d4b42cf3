"""The resource `outgoing-value`: what a guest writes, on its way to a provider.

    write-data    begins the transfer: the provider receives while the guest writes, a window behind it
    finish        ends the stream, and returns once the provider has stored the object

A value that is dropped before `finish`, as all are when a call ends, breaks the stream: the provider keeps
nothing of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import structlog
from anyio.abc import TaskGroup

from lattice.errors import Interrupted
from lattice.streams import ByteReceiver
from lattice.tasks import own_task
from node.capabilities.blobstore.remote import Refused
from node.capabilities.http.allowance import Allowance
from node.capabilities.http.outgoing_body import BodyPipe
from node.capabilities.wasi.pollables import Disarm
from node.capabilities.wasi.streams import OutputStream, StreamClosed, StreamFailed

log = structlog.get_logger()

UNSENT_BYTES = 10 * 1024 * 1024
"""What a guest may write before `write-data`: wasmCloud takes that much, so guests rely on it."""

Store = Callable[[ByteReceiver], Awaitable[None]]
"""Stores what it receives; raises `Refused`."""


class OutgoingValue:
    """A value that a guest writes, once, to one object."""

    # The mutable state: whether the guest has the stream, and how the transfer goes.

    def __init__(self, tasks: TaskGroup, allowance: Allowance) -> None:
        """What waits here counts against `allowance`, that of the guest."""
        self._tasks = tasks
        self.pipe = BodyPipe(allowance, unsent_bytes=UNSENT_BYTES)
        self._has_streamed = False
        self._is_sent = False
        self._done = anyio.Event()
        self.failure: str | None = None

    @property
    def is_sent(self) -> bool:
        """Whether somebody receives what is written."""
        return self._is_sent

    def stream(self) -> BlobOutput | None:
        """The stream to write to, once."""
        if self._has_streamed:
            return None
        self._has_streamed = True
        return BlobOutput(self)

    def send(self, store: Store) -> None:
        """Begin the transfer; raises `Refused` the second time."""
        if self._is_sent:
            raise Refused("this value is being written to an object already: make another one")
        self._is_sent = True
        self._tasks.start_soon(self._send, store)

    async def _send(self, store: Store) -> None:
        try:
            await store(self.pipe)
        except Refused as error:
            self.failure = str(error)
        except Exception:
            self.failure = "the transfer broke inside the node; its log says why"
            log.exception("blob.not-stored")
        finally:
            self._done.set()
            self.pipe.close()

    async def finish(self) -> None:
        """Say that these were all bytes, and return when the object is there. Raises `Refused`.

        A stream that the guest still holds takes nothing any more, as on other hosts.
        """
        if not self._is_sent:
            raise Refused("finish found nowhere to store the value: call container.write-data before")
        self.pipe.finish()
        await own_task()
        await self._done.wait()
        if self.failure is not None:
            raise Refused(self.failure)

    def close(self) -> None:
        """The guest dropped it: what is not finished by then never will be."""
        self.pipe.fail(Interrupted("the component dropped a value that it had not finished"))


class BlobOutput(OutputStream):
    """The `output-stream` of a value."""

    def __init__(self, value: OutgoingValue) -> None:
        super().__init__()
        self._value = value

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._value.pipe.arm(wake)

    def _room(self) -> int:
        value = self._value
        if value.failure is not None:
            raise StreamFailed(value.failure)
        room = value.pipe.room()
        if not room and not value.is_sent:
            raise StreamFailed("nobody receives the value: call container.write-data before writing so much")
        return room

    def _write(self, contents: bytes) -> None:
        if self._value.pipe.is_over:
            raise StreamClosed
        self._value.pipe.write(contents)
