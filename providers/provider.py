"""What a provider is: Python functions behind flat interfaces, for whoever has a link to it.

The same class runs within a node or as a process of its own (`providers.sdk`); `providers.hosting` runs it
in both. A provider keeps no tasks that its owner did not start in `start`, and nothing of one link that
another link can see, unless their configurations say so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lattice.clock import now
from lattice.streams import ByteReceiver

ProviderFunction = Callable[..., Awaitable[Any]]
"""`async fn(call: ProviderCall, *args) -> value | Streamed`.

Arguments and values have the shapes of docs/wire-format.md; they come unchecked, as a client may send
anything. What the interface calls an error is returned as `{"err": ...}`. A failure of the backend is a
`LatticeError`: `Unreachable` only if the operation surely has not begun, `Interrupted` if it may have been
done, else `Failed`; anything else that it raises is logged and becomes `Failed`. It may be cancelled at any
time: the caller has given up.
"""


class Secret(Protocol):
    """A value that must not be printed: its `str` and `repr` hide it. Use what it reveals at once."""

    def reveal(self) -> str | bytes:
        """The value itself."""

    def text(self) -> str:
        """The value as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundLink:
    """A link as its provider sees it: who may call, under which name, and what was configured."""

    source: str
    """The component; empty for calls of clients, which have no link."""
    name: str
    interface: str
    """Of the link: an interface, or a whole package."""
    configuration: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class ProviderCall:
    """One call in progress; not to be changed (to be frozen would cost a microsecond of each call)."""

    link: BoundLink
    binding: Any
    """What `bind` returned for the link."""
    call_id: str
    deadline: float
    """By `lattice.clock.now`; the call is cancelled then."""
    traceparent: str | None = None
    body: ByteReceiver | None = None
    """The byte stream beside the arguments, if there is one; closed when the function has returned."""

    @property
    def seconds_left(self) -> float:
        """Until the deadline, 0 after it."""
        return max(0.0, self.deadline - now())


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """A value with a byte stream beside it; whoever takes the value closes the stream."""

    value: Any
    body: ByteReceiver


class Provider(Protocol):
    """A provider; derive from it to inherit what most providers need not say.

    `start` comes first and `aclose` last. A provider whose `start` or `check` fails is closed, and another
    one is made and started after a while.
    """

    # What does nothing says `return`: type checkers take a function of a protocol without code for one that
    # whoever derives from it must write.

    clients_may_call: bool = False
    """Whether clients of the lattice (`latticectl call`), which have no link, are served as well."""
    settings_type: type[Any] | None = None
    """A dataclass of `lattice.settings.setting` fields; the class is then made with such settings."""
    types: Mapping[str, Mapping[str, str]] = {}
    """Signatures in WIT by interface and function (`func(name: string) -> string`), where they are known.

    Arguments and results are then checked, and can be given and shown as JSON.
    """

    @property
    def interfaces(self) -> Mapping[str, Mapping[str, ProviderFunction]]:
        """The functions by interface (`lattice:keyvalue/store`) and name; the same at every look."""
        ...

    async def start(self) -> None:
        """Get ready; raises what is wrong."""
        return

    async def aclose(self) -> None:
        """Release everything; called also when `start` failed."""
        return

    async def check(self) -> None:
        """Called every few seconds: raises what is wrong with the backend."""
        return

    async def check_link(self, link: BoundLink) -> None:
        """Raise `Invalid` that names the key for a configuration that `bind` would refuse; do nothing else.

        Asked before a link is stored, so that whoever makes it is told; `secrets` are empty then.
        """
        return

    async def bind(self, link: BoundLink) -> Any:
        """What the calls over the link shall find in `ProviderCall.binding`.

        Called before the first call, and again when anything of the link has changed. Raises `Invalid` that
        names the key for a configuration that can't be; the link's calls end with it until it changes.
        """
        return None

    async def unbind(self, link: BoundLink, binding: Any) -> None:
        """Release a binding; none of its calls is in progress any more."""
        return
