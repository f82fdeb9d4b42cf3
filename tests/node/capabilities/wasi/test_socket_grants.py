"""What guests may do with sockets and names: what was granted to them."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from tests.node.capabilities.wasi.bare_guest import plain
from tests.node.capabilities.wasi.networked_guest import LOOPBACK, Networked, at, echo, serving

DENIED = "access-denied"
NOT_RESOLVED = "permanent-resolver-failure"


async def test_without_a_grant_nothing_is_opened_or_looked_up() -> None:
    guest = Networked()

    assert await guest.open("tcp") == await guest.open("udp", "ipv6") == DENIED
    for name in ("localhost", "example.com", "127.0.0.1"):
        assert await guest.look_up(name) == NOT_RESOLVED


async def test_a_name_that_was_not_granted_is_one_that_the_resolver_never_finds() -> None:
    guest = Networked("tcp:example.com:443", lookup=lambda name: ["93.184.216.34"])

    assert await guest.look_up("example.org") == NOT_RESOLVED
    assert await guest.look_up("example.com") == [{"ipv4": (93, 184, 216, 34)}]


@pytest.mark.parametrize(
    ("grants", "method", "address"),
    [
        (["tcp:127.0.0.1:1"], "start-connect", at(2)),
        (["tcp:127.0.0.2:*"], "start-connect", at(2)),
        (["tcp:*:*"], "start-connect", at(2)),
        (["tcp:*:*"], "start-connect", at(80, (169, 254, 169, 254))),
        (["listen:tcp:*"], "start-connect", at(2)),
        (["tcp:example.com:*"], "start-connect", at(443, (93, 184, 216, 34))),
        (["tcp:127.0.0.1:8080"], "start-bind", at(8080)),
        (["listen:tcp:8081"], "start-bind", at(8080)),
    ],
)
async def test_what_was_not_granted_is_denied(grants: list[str], method: str, address: Any) -> None:
    guest = Networked(*grants)

    assert await guest.tcp(method, await guest.open(), None, address) == DENIED


async def test_listening_is_denied_to_who_may_only_connect() -> None:
    guest = Networked("tcp:127.0.0.1:*")
    found = await guest.bound("tcp")

    assert await guest.tcp("start-listen", found) == DENIED


async def test_datagrams_are_denied_to_whom_was_not_granted() -> None:
    guest = Networked("udp:127.0.0.1:53")
    found = await guest.bound("udp")
    _, sends = await guest.udp("stream", found, None)
    await guest.outgoing("check-send", sends)

    assert await guest.outgoing("send", sends, [{"data": b"x", "remote-address": at(54)}]) == DENIED
    assert (
        await (other := Networked("udp:127.0.0.1:53")).udp("stream", await other.bound("udp"), at(54))
        == DENIED
    )


async def test_a_name_opens_what_it_was_looked_up_as_and_nothing_before() -> None:
    async with serving(echo) as port:
        guest = Networked(f"tcp:localhost:{port}", lookup=lambda name: ["127.0.0.1"])
        found = await guest.open()

        assert await guest.tcp("start-connect", found, None, at(port)) == DENIED
        assert await guest.look_up("LOCALHOST") == [{"ipv4": LOOPBACK}]
        assert await guest.tcp("start-connect", found, None, at(port)) is None
        assert await guest.tcp("start-connect", await guest.open(), None, at(port + 1)) == DENIED


async def test_a_name_that_is_made_to_mean_a_special_address_opens_nothing() -> None:
    answers = iter([["127.0.0.1"], ["169.254.169.254", "93.184.216.34"], ["10.0.0.1"]])
    guest = Networked("tcp:rebound.example:*", lookup=lambda name: next(answers))

    assert await guest.look_up("rebound.example") == NOT_RESOLVED
    assert await guest.look_up("rebound.example") == [{"ipv4": (93, 184, 216, 34)}]
    assert await guest.look_up("rebound.example") == [{"ipv4": (10, 0, 0, 1)}]
    for address in (LOOPBACK, (169, 254, 169, 254)):
        assert await guest.tcp("start-connect", await guest.open(), None, at(80, address)) == DENIED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (socket.gaierror(socket.EAI_NONAME, ""), "name-unresolvable"),
        (socket.gaierror(socket.EAI_AGAIN, ""), "temporary-resolver-failure"),
        (socket.gaierror(socket.EAI_FAIL, ""), "permanent-resolver-failure"),
    ],
)
async def test_a_lookup_that_fails_says_how(error: OSError, code: str) -> None:
    def fail(name: str) -> list[str]:
        raise error

    assert await Networked("tcp:example.com:443", lookup=fail).look_up("example.com") == code


async def test_names_that_are_none_are_invalid_and_addresses_are_themselves() -> None:
    guest = Networked("tcp:*:443", lookup=lambda name: [])

    for name in ("", " ", "a..b", "a b", "x" * 300, "a\0b"):
        assert await guest.look_up(name) == "invalid-argument", name
    assert await guest.look_up("10.1.2.3") == [{"ipv4": (10, 1, 2, 3)}]
    assert await guest.look_up("[::1]") == [{"ipv6": (0, 0, 0, 0, 0, 0, 0, 1)}]
    assert await guest.look_up("nothing.example") == []


async def test_a_lookup_does_not_hold_up_its_guest_and_may_be_dropped() -> None:
    release = threading.Event()

    def slow(name: str) -> list[str]:
        release.wait(5)
        return ["93.184.216.34"]

    guest = Networked("tcp:*:443", lookup=slow)
    stream = plain(await guest("sockets/ip-name-lookup", "resolve-addresses", None, "slow.example"))
    method = "[method]resolve-address-stream.resolve-next-address"

    assert plain(await guest("sockets/ip-name-lookup", method, stream)) == "would-block"
    guest.drop("sockets/ip-name-lookup", "resolve-address-stream", stream)
    release.set()
    assert guest.open_sockets == 0
