"""What an outgoing policy allows, and which addresses are special."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.errors import Invalid
from node.capabilities.addresses import parse_address, special_range
from node.capabilities.http.policy import DENY_ALL, OutgoingPolicy, split_authority


def _allows(grants: Sequence[str], host: str, port: int = 443) -> bool:
    return OutgoingPolicy.parse(grants).allows_host(host, port)


def _leads(grants: Sequence[str], host: str, address: str, port: int = 443) -> bool:
    found = parse_address(address)
    assert found
    policy = OutgoingPolicy.parse(grants)
    return policy.allows_host(host, port) and policy.allows_address(host, port, found)


@pytest.mark.parametrize(
    ("grant", "host", "port", "is_allowed"),
    [
        ("api.example.com", "api.example.com", 443, True),
        ("API.example.com", "api.example.com", 8443, True),
        ("api.example.com:443", "api.example.com", 443, True),
        ("api.example.com:443", "api.example.com", 80, False),
        ("api.example.com", "example.com", 443, False),
        ("api.example.com", "xapi.example.com", 443, False),
        ("*.example.com", "a.example.com", 443, True),
        ("*.example.com", "a.b.example.com", 443, True),
        ("*.example.com", "example.com", 443, False),
        ("*.example.com", "badexample.com", 443, False),
        ("*", "anything.test", 443, True),
        ("*:443", "anything.test", 80, False),
        ("*", "8.8.8.8", 443, True),
        ("*", "127.0.0.1", 443, False),
        ("*", "169.254.169.254", 80, False),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "inner.test", 443, False),
        ("10.1.2.3:80", "10.1.2.3", 443, False),
        ("0.0.0.0/0", "8.8.8.8", 443, True),
        ("0.0.0.0/0", "10.1.2.3", 443, False),
        ("::1", "::1", 443, True),
        ("[::1]:80", "::1", 443, False),
        ("127.0.0.1", "::ffff:127.0.0.1", 443, True),
        ("169.254.169.254", "169.254.169.254", 80, True),
    ],
)
def test_hosts_are_allowed_as_granted(grant: str, host: str, port: int, is_allowed: bool) -> None:
    assert _allows([grant], host, port) == is_allowed
    assert not DENY_ALL.allows_host(host, port)


@pytest.mark.parametrize(
    ("grants", "host", "address", "is_allowed"),
    [
        (["*"], "a.test", "8.8.8.8", True),
        (["*"], "a.test", "127.0.0.1", False),
        (["*.test"], "a.test", "10.0.0.1", False),
        (["*.test"], "a.test", "169.254.169.254", False),
        (["localhost"], "localhost", "127.0.0.1", True),
        (["localhost"], "localhost", "::1", True),
        (["a.localhost"], "a.localhost", "127.0.0.1", True),
        (["db.inner"], "db.inner", "127.0.0.1", False),
        (["db.inner"], "db.inner", "::1", False),
        (["db.inner"], "db.inner", "100.100.100.200", False),
        (["db.inner", "127.0.0.1"], "db.inner", "127.0.0.1", True),
        (["db.inner"], "db.inner", "10.0.0.1", True),
        (["db.inner:5432"], "db.inner", "10.0.0.1", False),
        (["db.inner"], "db.inner", "169.254.169.254", False),
        (["db.inner"], "db.inner", "0.0.0.0", False),
        (["db.inner"], "db.inner", "224.0.0.1", False),
        (["db.inner"], "db.inner", "fe80::1", False),
        (["db.inner", "169.254.0.0/16"], "db.inner", "169.254.169.254", True),
        (["*", "10.0.0.0/8"], "a.test", "10.0.0.1", True),
        (["*", "0.0.0.0/0", "::/0"], "a.test", "10.0.0.1", False),
        (["*", "8.0.0.0/5"], "a.test", "10.0.0.1", False),
    ],
)
def test_names_lead_only_where_that_is_granted(
    grants: list[str], host: str, address: str, is_allowed: bool
) -> None:
    assert _leads(grants, host, address) == is_allowed


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.8.8.8", "loopback"),
        ("10.0.0.1", "private"),
        ("172.31.255.255", "private"),
        ("172.32.0.0", None),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "shared (CGNAT)"),
        ("169.254.169.254", "link-local"),
        ("0.0.0.0", "unspecified"),
        ("255.255.255.255", "reserved"),
        ("239.1.1.1", "multicast"),
        ("1.1.1.1", None),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fe80::1", "link-local"),
        ("fd00::1", "private"),
        ("ff02::1", "multicast"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:8.8.8.8", None),
        ("::127.0.0.1", "loopback"),
        ("64:ff9b::169.254.169.254", "link-local"),
        ("64:ff9b::8.8.8.8", None),
        ("2002:7f00:1::1", "loopback"),
        ("2001:0:1::1", "reserved"),
        ("2606:4700::1111", None),
    ],
)
def test_special_ranges_are_known_behind_all_their_notations(address: str, kind: str | None) -> None:
    found = special_range(ipaddress.ip_address(address))

    assert (found[1] if found else None) == kind


@given(st.ip_addresses())
def test_what_the_standard_library_calls_private_is_special(address: ipaddress.IPv4Address) -> None:
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast:
        assert special_range(address) is not None


@pytest.mark.parametrize(
    "entry",
    ["", " ", "a b", "http://a", "a/b", "a:0x1", "a:99999", "a:", "*.", "*a.com", "a.*", "[::1", "[a]",
     "::1/200", "10.0.0.1/8", "a..b", "-a", "a" * 254, "user@a"],
)  # fmt: skip
def test_what_is_no_grant_is_refused_with_examples(entry: str) -> None:
    with pytest.raises(Invalid, match=r"in allow-hosts: .*write `api\.example\.com`"):
        OutgoingPolicy.parse([entry])


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("Example.COM", ("example.com", 443)),
        ("example.com.:80", ("example.com", 80)),
        ("[::1]:80", ("::1", 80)),
        ("[0:0::1]", ("::1", 443)),
        ("1.2.3.4", ("1.2.3.4", 443)),
    ],
)
def test_authorities_are_split(authority: str, expected: tuple[str, int]) -> None:
    assert split_authority(authority, 443) == expected


@pytest.mark.parametrize(
    "authority",
    ["", "::1", "[1.2.3.4]", "a:b", "a:65536", "a:0", "a@b", "a/b", "[fe80::1%eth0]", "a b", "ä.test"],
)
def test_what_is_no_authority_is_refused(authority: str) -> None:
    with pytest.raises(Invalid):
        split_authority(authority, 443)


@given(st.text(max_size=30))
def test_an_authority_never_means_another_host_than_it_says(authority: str) -> None:
    try:
        host, port = split_authority(authority, 443)
    except Invalid:
        return

    assert host.isascii()
    assert 0 < port < 65536
    assert host in authority.lower() or parse_address(host) is not None
