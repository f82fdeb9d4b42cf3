"""What a provider declares is read before it is offered, and what it returns before it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lattice import wire
from lattice.errors import Failed, Invalid
from providers.functions import functions_of
from providers.hosted import OfferSettings
from providers.provider import Provider, ProviderCall, ProviderFunction
from tests.providers.fakes import Host, open_host, request

STORE = "acme:store/store"


class Store(Provider):
    """Returns what it was made with, whatever its types say."""

    clients_may_call = True

    def __init__(
        self, value: Any = "", *, interface: str = STORE, name: str = "get", types: Any = None
    ) -> None:
        self.value = value
        self.types: Mapping[str, Mapping[str, str]] = types or {}
        self._declared = {interface: {name: self._get}} if interface else {}

    @property
    def interfaces(self) -> Mapping[str, Mapping[str, ProviderFunction]]:
        return self._declared

    async def _get(self, call: ProviderCall) -> Any:
        return self.value


GET = {STORE: {"get": "func() -> string"}}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"interface": ""}, "has no interfaces"),
        ({"interface": "A Store"}, "namespace:package/interface"),
        ({"interface": "acme:store"}, "namespace:package/interface"),
        ({"name": "get_it"}, "function 'get_it' of acme:store/store"),
        ({"types": {"acme:store/stor": GET[STORE]}}, "did you mean `acme:store/store`"),
        ({"types": {STORE: {"gett": "func()"}}}, "'gett', which is no function .* did you mean `get`"),
        ({"types": {STORE: {"get": "func( -> string"}}}, "signature 'func"),
    ],
)
def test_what_can_not_be_is_refused_by_name(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        functions_of(Store(**declared))


def host_of(make: Any) -> Host:
    return Host([OfferSettings(name="greeter", kind="store", make=make)], ())


def get(**changes: Any) -> Any:
    return request("get", interface=STORE, caller=None, link=None, **changes)


async def test_a_value_of_another_type_is_the_providers_failure() -> None:
    async with open_host(host_of(lambda: Store(5, types=GET))) as host:
        with pytest.raises(Failed, match=r"acme:store/store.get returned .* expected a string, got 5"):
            await host.providers.call(get(), ())
        with pytest.raises(Failed, match="expected a string, got 5"):
            await host.providers.exchange(get(), (), None)
        with pytest.raises(Failed, match="expected a string, got 5"):
            await host.providers.call_encoded(get(), b"[]", wire.JSON)


async def test_a_value_that_can_not_be_sent_is_the_providers_failure() -> None:
    async with open_host(host_of(lambda: Store(object()))) as host:
        with pytest.raises(Failed, match=r"returned what can't be sent"):
            await host.providers.call_encoded(get(), b"", wire.MSGPACK)


async def test_a_class_that_can_not_be_made_is_tried_again() -> None:
    failures = [ValueError("broken"), Failed("not yet")]

    def make() -> Store:
        if failures:
            raise failures.pop(0)
        return Store("made")

    async with open_host(host_of(make)) as host:
        assert not host.providers.offers()[0].is_healthy
        await host.until(healthy=True)
        assert await host.providers.call(get(), ()) == "made"
