"""The conversions of one function type, in both directions: arguments and result, lowered and lifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lattice import wit
from lattice.errors import Invalid
from node.engine.capi import VALUE_SIZE, Lender, read
from node.engine.lifting import Data, Reader, compile_lift
from node.engine.lowering import Mismatch, compile_lower, shown


class Converter:
    """Made once per function; `resources` numbers the host's resource types by `interface#name`.

    Where an adapter stands around the guest, `list<u8>` crosses as a latin-1 string.
    """

    __slots__ = (
        "_lift_result",
        "_lifts",
        "_lower_result",
        "_lowers",
        "_names",
        "count",
        "function",
        "results",
    )

    def __init__(
        self, function: wit.Function, *, is_adapted: bool, resources: Mapping[str, int] | None = None
    ) -> None:
        self.function = function
        types = [type_ for _, type_ in function.params]
        result = function.result
        self._names = tuple(name for name, _ in function.params)
        self._lowers = [compile_lower(type_, is_adapted, resources) for type_ in types]
        self._lifts = [compile_lift(type_, is_adapted) for type_ in types]
        self._lower_result = None if result is None else compile_lower(result, is_adapted, resources)
        self._lift_result = None if result is None else compile_lift(result, is_adapted)
        self.count = len(types)
        self.results = 0 if result is None else 1

    def lower_arguments(self, arguments: Sequence[Any] | Mapping[str, Any], lender: Lender) -> bytes:
        """The arguments as an array of C values; raises `Invalid` with the path of what does not fit."""
        if not isinstance(arguments, (list, tuple)):
            arguments = self._by_position(arguments)
        count = len(arguments)
        if count != self.count:
            raise Invalid(f"{self._expectation()}, got {count}")
        lowered: list[bytes] = []
        try:
            if count == 1:
                return self._lowers[0](arguments[0], lender)
            for lower, argument in zip(self._lowers, arguments, strict=True):
                lowered.append(lower(argument, lender))
        except Mismatch as mismatch:
            path = f"argument '{self._names[len(lowered)]}'{mismatch.path}"
            raise Invalid(f"{path}: {mismatch.problem}") from None
        return b"".join(lowered)

    def lift_arguments(self, address: int, reader: Reader) -> tuple[Any, ...]:
        """The arguments that a guest gave."""
        if not self.count:
            return ()
        data = read(address, self.count * VALUE_SIZE)
        return tuple([lift(data, index * VALUE_SIZE, reader) for index, lift in enumerate(self._lifts)])

    def lower_result(self, value: Any, lender: Lender) -> bytes | None:
        """A host function's result; raises `Mismatch`."""
        if self._lower_result is not None:
            return self._lower_result(value, lender)
        if value is not None:
            raise Mismatch(f"{shown(value)} was returned by a function without a result")
        return None

    def lift_result(self, data: Data, reader: Reader, at: int = 0) -> Any:
        """The result that a guest gave as a C value, or None for a function without one."""
        return None if self._lift_result is None else self._lift_result(data, at, reader)

    def _by_position(self, arguments: Any) -> list[Any]:
        if not isinstance(arguments, Mapping):
            raise Invalid(f"arguments must be an array, or a map by name; got {shown(arguments)}")
        problems = [f"`{name}` is missing" for name in self._names if name not in arguments]
        problems += [f"`{name}` is unknown" for name in arguments if name not in self._names]
        if problems:
            raise Invalid(f"{self._expectation()}; {', '.join(problems)}")
        return [arguments[name] for name in self._names]

    def _expectation(self) -> str:
        if not self.count:
            return "the function takes no arguments"
        params = ", ".join(f"{name}: {wit.type_text(type_)}" for name, type_ in self.function.params)
        return f"the function takes {self.count} argument{'s' * (self.count > 1)} ({params})"
