"""Routes as people write them, and the names of their triggers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.errors import Invalid
from lattice.names import check_name
from lattice.routes import parse_route, route_configuration, route_name, route_of, route_text


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


@given(
    st.from_regex(r"(\*\.)?[a-z0-9.-]{1,80}", fullmatch=True),
    st.from_regex(r"(/[!-~]{1,80})?", fullmatch=True),
)
def test_a_trigger_of_a_route_has_a_valid_name(host: str, prefix: str) -> None:
    check_name(route_name(host, prefix), "name")


def test_routes_that_look_alike_have_different_names() -> None:
    names = {route_name(*parse_route(text)) for text in ("/", "a/b", "a-b/", "/a/b", "a.b/", "/A/b")}

    assert len(names) == 6
