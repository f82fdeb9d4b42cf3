"""The functions of a provider as its class declares them, and what each takes and gives."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lattice import values
from lattice.errors import Failed, Invalid
from lattice.model import unversioned
from lattice.names import did_you_mean
from providers.provider import Provider, ProviderFunction
from providers.signatures import function_type

Functions = Mapping[tuple[str, str], "Function"]
"""By interface, without its version, and name."""

_INTERFACE = re.compile(r"[a-z][a-z0-9-]*:[a-z][a-z0-9-]*/[a-z][a-z0-9-]*(@[0-9A-Za-z.+-]+)?")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_ANY_NUMBER = 1000


class Function:
    """One function, and what may be given to it."""

    __slots__ = ("least", "most", "name", "run", "type")

    def __init__(self, name: str, run: ProviderFunction, signature: str | None) -> None:
        self.name = name
        self.run = run
        self.type = function_type(signature) if signature else None
        parameters = list(inspect.signature(run).parameters.values())[1:]
        positional = [item for item in parameters if item.kind in _POSITIONAL]
        self.least = sum(item.default is item.empty for item in positional)
        is_open = any(item.kind is item.VAR_POSITIONAL for item in parameters)
        self.most = _ANY_NUMBER if is_open else len(positional)

    def arguments(self, args: Sequence[Any] | Mapping[str, Any]) -> Sequence[Any]:
        """In order; raises `Invalid` for what the function does not take."""
        if self.type is not None:
            return values.check_arguments(self.type, args)
        if isinstance(args, Mapping):
            raise Invalid("arguments: give them in order; their names are not known here")
        if not self.least <= len(args) <= self.most:
            raise Invalid(f"arguments: {self.least} wanted, {len(args)} given")
        return args

    def result(self, value: Any) -> Any:
        """The value that was returned; raises `Failed` if the function's type says otherwise."""
        if self.type is None:
            return value
        try:
            return values.check_result(self.type, value)
        except Invalid as error:
            raise Failed(
                f"the provider's {self.name} returned what its type does not say: {error.message}"
            ) from None


def functions_of(provider: Provider) -> Functions:
    """All functions; raises `Invalid` for a name that can't be one, or a signature of nothing."""
    declared = provider.interfaces
    if not declared:
        raise Invalid(
            "the provider has no interfaces: return functions by interface and name from `interfaces`"
        )
    for interface, functions in declared.items():
        _check_names(interface, functions)
    _check_types(declared, provider.types)
    return {
        (unversioned(interface), name): Function(
            f"{interface}.{name}", run, provider.types.get(interface, {}).get(name)
        )
        for interface, functions in declared.items()
        for name, run in functions.items()
    }


def _check_names(interface: str, functions: Mapping[str, ProviderFunction]) -> None:
    if not _INTERFACE.fullmatch(interface):
        raise Invalid(f"interface {interface!r}: write it as `namespace:package/interface`")
    for name in functions:
        if not _NAME.fullmatch(name):
            raise Invalid(
                f"function {name!r} of {interface}: use letters, digits and '-', the first a letter"
            )


def _check_types(
    declared: Mapping[str, Mapping[str, ProviderFunction]], types: Mapping[str, Mapping[str, str]]
) -> None:
    for interface, signatures in types.items():
        if interface not in declared:
            raise Invalid(
                f"`types` names {interface}, which is no interface here{did_you_mean(interface, declared)}"
            )
        for name in signatures:
            if name not in declared[interface]:
                near = did_you_mean(name, declared[interface])
                raise Invalid(f"`types` names {name!r}, which is no function of {interface}{near}")
