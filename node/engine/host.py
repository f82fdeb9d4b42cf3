"""What a host offers to guests: interfaces made of Python functions, and the call that a guest is in.

Nothing here knows wasm. A capability is written against this module only; `node.engine.linker` binds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from lattice.context import CallContext as CallContext
from node.engine.byte_store import ByteStore

HostFunction: TypeAlias = Callable[..., Any]
"""`fn(call: GuestCall, *args) -> value | Awaitable[value]`; it runs on the event loop, never on a thread.

The guest is suspended until it has returned. Whatever it raises ends the guest's call: a `LatticeError` as
it is, anything else as `Failed`. It must not be a generator, and one that may wait must be a coroutine.
"""

DropFunction: TypeAlias = Callable[["GuestCall", Any], None]
"""Called on the event loop with the object whose owned handle the guest dropped.

It raises `Trapped` where dropping is a fault of the guest, such as a parent before its child.
"""

LogSink: TypeAlias = Callable[["GuestCall", str, bytes], None]
"""Takes what a guest wrote: the call, the stream's name and the bytes.

A stream is `stdout`, `stderr`, or a level of `wasi:logging`, after which a space and a context may come.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostInterface:
    """Python functions behind one WIT interface.

    `name` carries the version (`wasi:io/streams@0.2.0`) and serves every import that is compatible with it by
    semver. Functions of resources have their WIT names: `[method]output-stream.write`.
    """

    name: str
    functions: Mapping[str, HostFunction]
    resources: Mapping[str, DropFunction] = field(default_factory=dict)
    """Resources that this interface defines, each with what to do when the guest drops an owned handle.

    Objects that a guest still holds when its instance ends are dropped then.
    """
    channelled: frozenset[str] = frozenset()
    """Functions from text to text that ask about channels: the driver answers what it can, they the rest."""


class Returned(Exception):
    """Raised by a host function to end the guest's call as if the guest had returned `value`.

    The sandbox serves no other call. Allowed only in a call of an exported function with such a result.
    """

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = value


class _Pause:
    """The one value of this type is `PAUSE`."""

    __slots__ = ()


PAUSE = _Pause()
"""Returned by a host function to stop the guest there, in a call by `ComponentPool.ask` only.

Whoever called gets a `PausedCall`, and gives the function's result when the guest is to go on.
"""


class GuestInstance(Protocol):
    """One sandbox."""

    @property
    def state(self) -> MutableMapping[Any, Any]:
        """What capabilities keep for this sandbox; it lives as long as the sandbox does."""

    def new_store(self, number: int, window: int, *, is_input: bool) -> ByteStore:
        """Bytes for the guest to read, or to write: a channel where there are any, until `part_stores`.

        A channel has room while fewer than `window` bytes wait.
        """

    def part_stores(self) -> None:
        """The guest has no channels any more."""

    def answer_early(self, text: bytes) -> None:
        """The guest has given its answer in a call by `ComponentPool.ask`, once, before that is over."""

    @property
    def call(self) -> GuestCall | None:
        """The call that the sandbox is in; none while it starts, waits for one or ends."""


@dataclass(slots=True, eq=False)
class GuestCall:
    """One call in progress, handed to every host function that the guest calls in it."""

    component: str
    context: CallContext
    instance: GuestInstance
    sink: LogSink
    function: str = ""
    """The exported function, as in `demo:greeter/greet#hello`; empty while the sandbox starts."""
    _endings: list[Callable[[], None]] = field(default_factory=list, repr=False)

    @property
    def call_id(self) -> str:
        return self.context.call_id

    def log(self, stream: str, data: bytes) -> None:
        """Record output of the guest; what exceeds its rate is dropped and counted."""
        self.sink(self, stream, data)

    def at_end(self, action: Callable[[], None]) -> None:
        """Have `action` called once the guest has stopped running; it must neither wait nor raise."""
        self._endings.append(action)

    def end(self) -> None:
        """Run and forget these actions; the engine's part, on the event loop, however the guest ended."""
        if self._endings:
            endings, self._endings = self._endings, []
            for action in endings:
                action()
