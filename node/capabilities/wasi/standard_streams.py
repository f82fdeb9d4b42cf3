"""The standard streams of a sandbox. Guests get handles to them as often as they like: each has one of each.

Output goes as whole lines to the log of whichever call the sandbox is in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from node.capabilities.wasi.streams import BytesInput, InputStream, LineOutput, OutputStream
from node.engine.host import GuestCall


class StandardOutput(LineOutput):
    """One stream of one sandbox. Guests keep its handle from call to call, so it asks for the present one."""

    def __init__(self, name: str, first_call: GuestCall) -> None:
        super().__init__(self._log)
        self._name = name
        self._call = first_call
        self._ends_line_of: GuestCall | None = None

    def _write(self, contents: bytes) -> None:
        self._call = self._call.instance.call or self._call
        super()._write(contents)
        if self._ends_line_of is not self._call:
            self._ends_line_of = self._call
            self._call.at_end(self.end_line)

    def end_line(self) -> None:
        super().end_line()
        self._ends_line_of = None

    def _log(self, block: bytes) -> None:
        self._call.log(self._name, block)


def standard_output(call: GuestCall, name: str, sink: OutputStream | None) -> OutputStream:
    """`stdout` or `stderr` of the sandbox that the call is in: `sink`, or else its log."""
    stream = sink or _once(call, (StandardOutput, name), lambda: StandardOutput(name, call))
    return stream.share()


def standard_input(call: GuestCall, source: bytes | InputStream) -> InputStream:
    """`stdin` of the sandbox that the call is in: what one handle has read, another does not read again."""
    if isinstance(source, InputStream):
        return source.share()
    return _once(call, BytesInput, lambda: BytesInput(source)).share()


T = TypeVar("T")


def _once(call: GuestCall, key: object, make: Callable[[], T]) -> T:
    state = call.instance.state
    if key not in state:
        state[key] = make()
    stream: T = state[key]
    return stream
