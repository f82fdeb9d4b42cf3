"""`wasi:logging/logging`: one function, with or without the draft's version in its name."""

from __future__ import annotations

from collections.abc import Mapping

from node.engine.host import GuestCall, HostInterface

CONTEXT_LENGTH = 128
"""Characters to which a context is cut: it is there to group messages."""

NAMES = ("wasi:logging/logging@0.1.0-draft", "wasi:logging/logging")

SUPPORT: Mapping[str, str] = {"wasi:logging/logging": "complete: 0.1.0-draft, and without a version"}


def is_builtin(interface: str) -> bool:
    """Whether an import of this full name is served without a link."""
    return interface in NAMES


def logging_interfaces() -> tuple[HostInterface, ...]:
    """The interface under each of its names."""
    return tuple(HostInterface(name=name, functions={"log": _log}) for name in NAMES)


def _log(call: GuestCall, level: str, context: str, message: str) -> None:
    # A message that says nothing is still one; without any byte it would count as no output.
    stream = f"{level} {context[:CONTEXT_LENGTH]}" if context else level
    call.log(stream, message.encode() or b" ")
