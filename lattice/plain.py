"""Values that are made for every request, at a third of the price of a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=False)
def plain(cls: type[T]) -> type[T]:
    """A dataclass with slots that type checkers take for frozen; equal to itself only.

    A frozen dataclass sets each field through `object.__setattr__`, which shows where thousands are made in a
    second.
    """
    return dataclass(slots=True, kw_only=True, eq=False)(cls)
