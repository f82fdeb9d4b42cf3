"""Which component answers: by host, then by the longest prefix on a segment's border, then by age."""

from __future__ import annotations

import pytest

from lattice.errors import Invalid
from lattice.model import Trigger, TriggerKind
from node.http.routes import RouteTable, check_trigger, route_table


def table(*routes: tuple[str, str, str]) -> RouteTable:
    """Of (host, prefix, component), each older than the next."""
    triggers = [
        (trigger(component, f"r{age}", host=host, prefix=prefix), f"app-{component}", age)
        for age, (host, prefix, component) in enumerate(routes)
    ]
    found, broken = route_table(triggers)
    assert not broken
    return found


def trigger(component: str, name: str = "default", **configuration: str) -> Trigger:
    """A trigger of kind `http`."""
    return Trigger(component=component, kind=TriggerKind.HTTP, name=name, configuration=configuration)


def test_an_exact_host_wins_over_a_wildcard_and_that_over_none() -> None:
    routes = table(("", "", "any"), ("*.example.org", "", "wild"), ("a.example.org", "", "exact"))

    assert routes.find("a.example.org", "/") == "exact"
    assert routes.find("b.example.org", "/") == routes.find("c.b.example.org", "/") == "wild"
    assert routes.find("example.org", "/") == routes.find("other", "/") == "any"


def test_the_nearest_wildcard_wins() -> None:
    routes = table(("*.org", "", "far"), ("*.example.org", "", "near"))

    assert routes.find("a.example.org", "/") == "near" and routes.find("b.org", "/") == "far"


def test_a_host_without_a_fitting_prefix_leaves_the_request_to_the_next() -> None:
    routes = table(("a", "/api", "api"), ("", "", "any"))

    assert routes.find("a", "/api/x") == "api" and routes.find("a", "/web") == "any"


@pytest.mark.parametrize("authority", ["A.Example.ORG", "a.example.org:8080", "a.example.org."])
def test_case_port_and_final_dot_of_a_host_do_not_matter(authority: str) -> None:
    assert table(("a.EXAMPLE.org", "", "it")).find(authority, "/") == "it"


def test_ipv6_hosts_have_brackets() -> None:
    assert table(("[::1]", "", "it")).find("[::1]:80", "/") == "it"


def test_the_longest_prefix_wins_on_borders_of_segments_only() -> None:
    routes = table(("", "/a", "short"), ("", "/a/b/", "long"))

    found = {
        path: routes.find("x", path)
        for path in ("/a", "/a?q", "/a/", "/a/b", "/a/b/c?/d", "/a/bc", "/ab", "/")
    }
    assert found == {
        "/a": "short", "/a?q": "short", "/a/": "short", "/a/b": "long", "/a/b/c?/d": "long", "/a/bc": "short",
        "/ab": None, "/": None,
    }  # fmt: skip


@pytest.mark.parametrize("written", ["/café", "/caf%C3%A9", "/caf%c3%a9", "/%63afé"])
@pytest.mark.parametrize(
    "sent", [b"/caf%C3%A9", b"/caf%c3%a9/a?b", b"/%63af%C3%A9", "/café".encode()], ids=ascii
)
def test_a_prefix_matches_however_it_and_the_path_are_escaped(written: str, sent: bytes) -> None:
    assert table(("", written, "it")).find("a", sent.decode("latin-1")) == "it"


def test_an_escaped_slash_is_no_border_of_segments() -> None:
    routes = table(("", "/a", "outer"), ("", "/a%2Fb", "escaped"), ("", "/a/b", "inner"))

    found = [routes.find("x", path) for path in ("/a/b", "/a%2fb", "/a%2Fb/c", "/a%2Fc")]

    assert found == ["inner", "escaped", "escaped", None]


def test_of_two_the_older_application_has_the_route_and_the_other_is_shown() -> None:
    routes = table(("a", "/x", "older"), ("A", "/x/", "younger"))

    assert routes.find("a", "/x") == "older"
    assert [route.component for route in routes.shadowed] == ["younger"]
    assert [(route.text, route.component) for route in routes.routes] == [("a/x", "older")]


def test_a_lookup_is_remembered_but_not_those_of_long_paths() -> None:
    routes = table(("", "", "it"))
    for number in range(10_000):
        assert routes.find("a", f"/{number}") == routes.find("a", "/" + "x" * 1000) == "it"

    assert len(routes._cache) <= 4096 and max(len(path) for _, path in routes._cache) <= 256


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        ({"hots": "a"}, "hots"),
        ({"host": "a b"}, "host"),
        ({"host": "a:80"}, "host"),
        ({"host": "a.*.b"}, "host"),
        ({"host": "a/b"}, "host"),
        ({"prefix": "a"}, "prefix"),
        ({"prefix": "/a?b"}, "prefix"),
        ({"prefix": "/a b"}, "prefix"),
    ],
)
def test_what_is_no_route_is_refused_by_name(configuration: dict[str, str], named: str) -> None:
    with pytest.raises(Invalid, match=named):
        check_trigger(trigger("a", **configuration))


def test_a_broken_route_does_not_harm_the_others() -> None:
    found, broken = route_table([(trigger("bad", prefix="x"), "a", 1), (trigger("good"), "b", 2)])

    assert found.find("h", "/") == "good" and list(broken) == ["bad/default"]
