"""Routes as people write them, and the names of their triggers."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.errors import Invalid
from lattice.names import check_name
from lattice.routes import normal_path, parse_route, route_configuration, route_name, route_of, route_text


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("/", ("", "")),
        ("", ("", "")),
        ("*", ("", "")),
        ("/api/", ("", "/api")),
        ("Shop.Example.org", ("shop.example.org", "")),
        ("shop/a/b", ("shop", "/a/b")),
        ("*.example.org/a", ("*.example.org", "/a")),
        ("[::1]/a", ("[::1]", "/a")),
        ("/café", ("", "/caf%C3%A9")),
        ("/caf%c3%a9/", ("", "/caf%C3%A9")),
        ("/%7Eann/a%2fb/100%", ("", "/~ann/a%2Fb/100%")),
    ],
)
def test_host_and_prefix_may_both_be_left_out(text: str, route: tuple[str, str]) -> None:
    assert parse_route(text) == route
    assert route_of(route_configuration(*route)) == route
    assert parse_route(route_text(*route)) == route


@pytest.mark.parametrize("text", ["a:80/", "a b/", "a*/", "/a?b", "/a#b", "/a b", "http://a/"])
def test_what_is_no_route_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_route(text)


@pytest.mark.parametrize(("text", "cure"), [("münchen.example/", "xn--"), ("/\ud800", "%XX")])
def test_what_is_not_ascii_is_refused_with_the_cure_where_it_can_not_be_encoded(text: str, cure: str) -> None:
    with pytest.raises(Invalid, match=cure):
        parse_route(text)


@given(st.text(st.characters(codec="utf-8")))
def test_a_path_is_the_same_however_it_is_escaped(text: str) -> None:
    everything = "".join(f"%{byte:02x}" for byte in text.encode())

    assert normal_path(everything.encode()) == quote(text, safe="")
    assert normal_path(quote(text).encode()) == quote(text)


@given(st.binary())
def test_a_normal_path_is_its_own(path: bytes) -> None:
    assert normal_path(normal_path(path).encode()) == normal_path(path)


@given(
    st.from_regex(r"(\*\.)?[a-z0-9.-]{1,80}", fullmatch=True),
    st.from_regex(r"(/[!-~]{1,80})?", fullmatch=True),
)
def test_a_trigger_of_a_route_has_a_valid_name(host: str, prefix: str) -> None:
    check_name(route_name(host, prefix), "name")


def test_routes_that_look_alike_have_different_names() -> None:
    names = {route_name(*parse_route(text)) for text in ("/", "a/b", "a-b/", "/a/b", "a.b/", "/A/b")}

    assert len(names) == 6
