"""Exported functions, and calls of them whose arguments have been converted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lattice.errors import Invalid
from node.engine.batches import Yield
from node.engine.capi import Lender
from node.engine.converter import Converter
from node.engine.lowering import Heavy
from node.engine.pace import Pace


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """An exported function, ready to be called."""

    name: str
    index: int
    converter: Converter
    pace: Pace
    has_objects: bool = False
    """Whether resources occur in its type."""
    service: int = 0
    """By which the component's shelf serves it, if there is one."""
    batches: Yield = field(default_factory=Yield)


@dataclass(slots=True, eq=False)
class LoweredCall:
    """A call whose arguments have been converted; close it after the fiber has ended."""

    export: Export
    values: bytes
    lender: Lender

    def close(self) -> None:
        self.lender.close()


def lower_call(
    export: Export,
    arguments: Sequence[Any] | Mapping[str, Any],
    max_bytes: int,
    *,
    may_be_heavy: bool,
    owner: object = None,
) -> LoweredCall:
    """Convert a call's arguments; raises `Invalid`, or `Heavy` where a thread should do it.

    Objects of the host among them become handles of the instance `owner`.
    """
    lender = Lender(owner, may_be_heavy)
    try:
        values = export.converter.lower_arguments(arguments, lender)
    except BaseException:
        lender.close()
        raise
    if lender.lent_bytes > max_bytes:
        raise Invalid(
            f"the arguments hold {lender.lent_bytes} bytes, more than the component's payload limit "
            f"of {max_bytes}: send less at a time, or raise the limit"
        )
    return LoweredCall(export, values, lender)


def lower_batch(
    export: Export, size: int, args: Callable[[int], Sequence[Any]], max_bytes: int, lender: Lender
) -> list[bytes]:
    """The arguments of the first of these calls, up to one that needs a thread, or will be refused."""
    lowered: list[bytes] = []
    lent_bytes = 0
    with suppress(Heavy, Invalid):
        for nth in range(size):
            values = export.converter.lower_arguments(args(nth), lender)
            if lender.lent_bytes - lent_bytes > max_bytes:
                break
            lent_bytes = lender.lent_bytes
            lowered.append(values)
    return lowered
