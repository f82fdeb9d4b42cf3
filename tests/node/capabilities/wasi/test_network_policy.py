"""What a grant opens and what it leaves closed."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.errors import Invalid
from node.capabilities.addresses import effective, special_range
from node.capabilities.wasi import parse_grant, parse_grants
from node.capabilities.wasi.network import NetworkPolicy, canonical_name

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
PORTS = st.integers(1, 65535)


def allows(grant: str, address: str, port: int = 443, *names: str, protocol: str = "tcp") -> bool:
    return parse_grants([grant]).allows(protocol, ip_address(address), port, names)


@pytest.mark.parametrize(
    ("grant", "address", "port"),
    [
        ("tcp:93.184.216.34:443", "93.184.216.34", 443),
        ("tcp:93.184.216.0/24:443", "93.184.216.99", 443),
        ("tcp:93.184.216.34:1-500", "93.184.216.34", 443),
        ("tcp:93.184.216.34:80,443", "93.184.216.34", 443),
        ("tcp:93.184.216.34:*", "93.184.216.34", 1),
        ("tcp:[2001:db8::1]:443", "2001:db8::1", 443),
        ("tcp:[2001:db8::/32]:443", "2001:db8::9", 443),
        ("tcp:*:443", "93.184.216.34", 443),
        ("tcp:127.0.0.1:443", "127.0.0.1", 443),
        ("tcp:127.0.0.0/8:443", "127.9.9.9", 443),
        ("tcp:10.0.0.0/8:443", "10.1.2.3", 443),
        ("tcp:169.254.169.254:80", "169.254.169.254", 80),
    ],
)
def test_an_address_is_opened_by_what_names_it(grant: str, address: str, port: int) -> None:
    assert allows(grant, address, port)


@pytest.mark.parametrize(
    ("grant", "address", "port"),
    [
        ("tcp:93.184.216.34:443", "93.184.216.34", 444),
        ("tcp:93.184.216.34:443", "93.184.216.35", 443),
        ("udp:93.184.216.34:443", "93.184.216.34", 443),
        ("listen:tcp:443", "93.184.216.34", 443),
        ("tcp:example.com:443", "93.184.216.34", 443),
        ("tcp:*:443", "127.0.0.1", 443),
        ("tcp:*:443", "10.0.0.1", 443),
        ("tcp:*:443", "192.168.1.1", 443),
        ("tcp:*:443", "169.254.169.254", 443),
        ("tcp:*:443", "100.100.100.200", 443),
        ("tcp:*:443", "0.0.0.0", 443),
        ("tcp:*:443", "224.0.0.1", 443),
        ("tcp:*:443", "255.255.255.255", 443),
        ("tcp:*:443", "::1", 443),
        ("tcp:*:443", "::", 443),
        ("tcp:*:443", "fe80::1", 443),
        ("tcp:*:443", "fd00:ec2::254", 443),
        ("tcp:*:443", "::ffff:127.0.0.1", 443),
        ("tcp:*:443", "::127.0.0.1", 443),
        ("tcp:*:443", "64:ff9b::7f00:1", 443),
        ("tcp:*:443", "2002:7f00:1::", 443),
        ("tcp:0.0.0.0/0:443", "127.0.0.1", 443),
        ("tcp:0.0.0.0/0:443", "10.0.0.1", 443),
        ("tcp:[::/0]:443", "::1", 443),
        ("tcp:10.0.0.0/7:443", "10.0.0.1", 443),
        ("tcp:[fc00::/7]:80", "fd00:ec2::254", 80),
    ],
)
def test_everything_else_stays_closed(grant: str, address: str, port: int) -> None:
    assert not allows(grant, address, port)


@pytest.mark.parametrize(
    ("grant", "name", "address", "expected"),
    [
        ("tcp:db.internal:443", "db.internal", "10.0.0.5", True),
        ("tcp:*.internal:443", "db.internal", "10.0.0.5", True),
        ("tcp:*.internal:443", "internal", "93.184.216.34", False),
        ("tcp:*:443", "db.internal", "10.0.0.5", False),
        ("tcp:*:443", "example.com", "93.184.216.34", True),
        ("tcp:evil.com:443", "evil.com", "127.0.0.1", False),
        ("tcp:evil.com:443", "evil.com", "169.254.169.254", False),
        ("tcp:evil.com:443", "evil.com", "::ffff:127.0.0.1", False),
        ("tcp:localhost:443", "localhost", "127.0.0.1", True),
        ("tcp:localhost:443", "localhost", "::1", True),
        ("tcp:localhost:443", "localhost", "93.184.216.34", False),
        ("tcp:*:443", "localhost", "127.0.0.1", False),
        ("tcp:example.com:443", "other.com", "93.184.216.34", False),
    ],
)
def test_a_granted_name_means_only_what_such_a_name_may(
    grant: str, name: str, address: str, expected: bool
) -> None:
    policy = parse_grants([grant])

    assert policy.allows("tcp", ip_address(address), 443, {name}) is expected
    assert policy.may_reveal(name, ip_address(address)) is expected


def test_names_are_looked_up_only_if_granted() -> None:
    policy = parse_grants(["tcp:Example.com.:443", "udp:*.example.org:53", "listen:tcp:80"])

    assert policy.may_resolve("example.com")
    assert policy.may_resolve("a.b.example.org")
    assert not policy.may_resolve("www.example.com")
    assert not policy.may_resolve("example.org")
    assert not policy.may_resolve("notexample.org")


@pytest.mark.parametrize(
    ("grant", "address", "port", "expected"),
    [
        ("listen:tcp:80", "0.0.0.0", 80, True), ("listen:tcp:80", "::", 80, True),
        ("listen:tcp:80", "0.0.0.0", 81, False), ("listen:tcp:127.0.0.1:80", "127.0.0.1", 80, True),
        ("listen:tcp:127.0.0.1:80", "0.0.0.0", 80, False), ("listen:udp:80", "0.0.0.0", 80, False),
        ("listen:tcp:0", "0.0.0.0", 0, True), ("listen:tcp:*", "0.0.0.0", 0, True),
        ("tcp:*:80", "0.0.0.0", 80, False),
    ],
)  # fmt: skip
def test_listening_takes_a_grant_of_its_own(grant: str, address: str, port: int, expected: bool) -> None:
    assert parse_grants([grant]).may_listen("tcp", ip_address(address), port) is expected


@pytest.mark.parametrize(
    "text",
    [
        "", "tcp", "tcp:", "tcp:host", "tcp:host:", "tcp:host:0", "tcp:host:65536", "tcp:host:9-8",
        "tcp:host:8x", "tcp:host:٣", "http:host:80", "sctp:host:80", "tcp::80", "tcp:-x:80", "tcp:a..b:80",
        "tcp:10.0.0.1/8:80", "tcp:10.0.0.300:80", "tcp:2001:db8::1:80", "tcp:[10.0.0.1:80", "tcp:*.*.com:80",
        "tcp:a b:80", "tcp:a/b:80", "listen:80", "listen:tcp", "listen:tcp:", "listen:tcp:host:80",
        "listen:http:80", "tcp:" + "a" * 64 + ".com:80", "tcp:host:80,", "tcp:user@host:80",
    ],
)  # fmt: skip
def test_what_cant_be_read_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(Invalid) as raised:
        parse_grant(text)

    assert repr(text) in str(raised.value)


@given(address=ADDRESSES, port=PORTS)
def test_nothing_is_open_without_a_grant(address: IPv4Address | IPv6Address, port: int) -> None:
    policy = NetworkPolicy()

    assert not policy.allows("tcp", address, port, {"localhost"})
    assert not policy.may_listen("udp", address, port)
    assert not policy.allows_any("tcp")


@given(address=ADDRESSES, port=PORTS)
def test_the_widest_grants_never_open_a_special_address(
    address: IPv4Address | IPv6Address, port: int
) -> None:
    policy = parse_grants(["tcp:*:*", "tcp:0.0.0.0/0:*", "tcp:[::/0]:*", "tcp:*.com:*"])

    assert policy.allows("tcp", address, port) == (special_range(address) is None)


@given(address=ADDRESSES, port=PORTS)
def test_naming_an_address_opens_it_alone(address: IPv4Address | IPv6Address, port: int) -> None:
    text = f"[{address}]" if address.version == 6 else str(address)
    policy = parse_grants([f"tcp:{text}:{port}"])

    if effective(address) == address:
        assert policy.allows("tcp", address, port)
    assert not policy.allows("tcp", address, port % 65535 + 1)
    assert not policy.allows("udp", address, port)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(Invalid):
        parse_grant(text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Example.COM", "example.com"), ("example.com.", "example.com"), ("münchen.de", "xn--mnchen-3ya.de"),
        ("a_b.com", "a_b.com"), ("", None), (".", None), ("a..b", None), ("a b", None), ("a" * 254, None),
        ("-a.com", None), ("a\0.com", None), ("é" * 200, None),
    ],
)  # fmt: skip
def test_names_have_one_form(name: str, expected: str | None) -> None:
    assert canonical_name(name) == expected
