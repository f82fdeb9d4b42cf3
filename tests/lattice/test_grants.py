"""What `describe` says of imports: where each goes, and what was granted."""

from __future__ import annotations

from lattice.grants import import_routes
from lattice.model import Link
from tests.lattice.lattices import spec


def shown(imports: list[str], *links: Link, **fields: object) -> list[tuple[str, str, str]]:
    routes = import_routes(
        spec("shop", **fields),
        imports,
        links,
        is_builtin=lambda name: name.startswith("wasi:") and not name.startswith("wasi:keyvalue"),
        route=lambda link: "unresolved" if link.target == "gone" else "remote",
        why_unresolved=lambda target: f"{target} is away",
    )
    return [(route.route, route.target, route.granted or route.reason) for route in routes]


def test_what_needs_no_grant_is_built_in() -> None:
    assert shown(["wasi:io/poll@0.2.3"]) == [("built-in", "", "")]


def test_a_capability_without_a_grant_is_denied_and_says_what_would_grant_it() -> None:
    assert shown(["wasi:http/outgoing-handler@0.2.0"]) == [
        ("denied", "", "`latticectl deploy ... --allow-host HOST`")
    ]


def test_grants_are_listed() -> None:
    folder = {"folder": "photos", "path": "/data"}

    assert shown(["wasi:filesystem/types@0.2.0"], folders=[folder]) == [
        ("built-in", "", "photos at /data (read-only)")
    ]


def test_each_link_of_an_import_is_shown_with_its_configuration_and_no_secret() -> None:
    first = Link(source="shop", interface="wasi:keyvalue", target="cache", configuration={"bucket": "a"})
    second = Link(
        source="shop",
        interface="wasi:keyvalue/store",
        target="redis",
        name="slow",
        secrets={"password": "pw"},
    )

    assert shown(["wasi:keyvalue/store@0.2.0-draft"], first, second) == [
        ("remote", "cache", "bucket=a"),
        ("remote", "redis", "secret pw as password"),
    ]


def test_a_link_that_leads_nowhere_is_shown_with_the_reason() -> None:
    link = Link(source="shop", interface="wasi:keyvalue", target="gone")

    assert shown(["wasi:keyvalue/store@0.2.0-draft"], link) == [("unresolved", "gone", "gone is away")]


def test_an_import_that_nothing_covers_is_denied_with_its_line() -> None:
    assert shown(["wasi:keyvalue/store@0.2.0-draft"]) == [
        ("denied", "", "latticectl link put shop wasi:keyvalue keyvalue-nats")
    ]
