"""One run of `latticectl`: its global options, its output and its connection to the lattice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeVar

from ctl.output import Output
from ctl.settings import DEFAULT_LATTICE, DEFAULT_TIMEOUT_SECONDS, ClientSettings

if TYPE_CHECKING:  # both take longer to import than most commands take to say what is wrong
    from ctl.client import ControlClient

    Connect = Callable[[ClientSettings], AbstractAsyncContextManager[ControlClient]]

T = TypeVar("T")


class Session:
    """What commands get: `run` for the lattice, `output` for the person or program that reads."""

    def __init__(self, *, connect: Connect | None = None) -> None:
        # The mutable state of a session is the options found so far: the root's, then the command's own.
        self.options: dict[str, Any] = {}
        self._connect = connect

    @property
    def settings(self) -> ClientSettings:
        """The connection settings that the options make; raises `Invalid`."""
        given = {name: self.options.get(name) for name in ("nats", "creds", "tls_ca", "tls_cert", "tls_key")}
        return ClientSettings(
            lattice=self.options.get("lattice", DEFAULT_LATTICE),
            timeout_seconds=self.timeout_or(DEFAULT_TIMEOUT_SECONDS),
            **given,
        )

    @property
    def output(self) -> Output:
        return Output(self.options.get("output", "table"))

    @property
    def is_verbose(self) -> bool:
        return bool(self.options.get("verbose"))

    def timeout_or(self, default_seconds: float) -> float:
        """The time given with --timeout, or the default of what is to be done."""
        return float(self.options.get("timeout", default_seconds))

    def run(self, operation: Callable[[ControlClient], Awaitable[T]]) -> T:
        """Connect, run the operation, disconnect; raises the first error of whatever ran side by side."""
        result: T = self.run_alone(self._connected, operation)
        return result

    def run_alone(self, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run a coroutine function that needs no lattice."""
        import anyio

        from lattice import logs

        logs.configure(level="debug" if self.is_verbose else "error")
        try:
            result: T = anyio.run(fn, *args)
            return result
        except BaseExceptionGroup as group:
            raise first_error(group) from group

    async def _connected(self, operation: Callable[[ControlClient], Awaitable[T]]) -> T:
        from ctl.client import ControlClient

        connect = self._connect or ControlClient.connect
        async with connect(self.settings) as client:
            return await operation(client)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error in the group that is no group."""
    found: Sequence[BaseException] = group.exceptions
    return first_error(found[0]) if isinstance(found[0], BaseExceptionGroup) else found[0]
