"""Providers are configured by flags and by tables; what is wrong names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from lattice.errors import Invalid
from lattice.settings import load
from node.settings import NodeSettings
from providers.kinds import KINDS
from providers.registry import (
    ProviderContext,
    ProviderSpec,
    offer_of,
    parse_settings,
    parse_spec,
    with_defaults,
)
from providers.sdk.settings import MemberSettings, offer_of_target


def _context(name: str) -> ProviderContext:
    return ProviderContext(name=name, lattice="default", bus=None)  # type: ignore[arg-type]


def _offer(text: str) -> object:
    return offer_of(parse_spec(text, "--provider"), KINDS, _context)


def test_flag_has_name_kind_and_settings() -> None:
    spec = parse_spec("cache=keyvalue-redis,url=redis://h:1/2,max-value=1KiB", "--provider")

    assert spec == ProviderSpec(
        name="cache", kind="keyvalue-redis", values={"url": "redis://h:1/2", "max-value": "1KiB"}
    )
    assert offer_of(spec, KINDS, _context).kind == "keyvalue-redis"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cache", "NAME=KIND"),
        ("Cache=keyvalue-memory", "valid name"),
        ("cache=keyvalue-redi", "did you mean `keyvalue-redis`"),
        ("cache=keyvalue-redis,ulr=x", "provider 'cache' has no setting `ulr`; did you mean `url`"),
        ("cache=keyvalue-redis,url=http://x", "url of provider 'cache': use redis://"),
        ("cache=keyvalue-memory,max-bytes=lots", "max-bytes of provider 'cache'"),
        ("cache=keyvalue-memory,max-bytes", "key=value"),
        ("cache=keyvalue-redis,url=redis://a,url=redis://b", "url of provider 'cache' is given 2 times"),
    ],
)
def test_what_is_wrong_names_the_key(text: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        _offer(text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_configured(kind: str) -> None:
    spec = ProviderSpec(name="own", kind=kind, values={})

    assert offer_of(spec, KINDS, _context).kind == kind
    make = offer_of_target(kind, load(MemberSettings, flags={"name": "own"}))
    assert make(_context("own")).kind == kind


def test_a_key_that_is_given_again_is_a_list() -> None:
    spec = parse_spec("own=blobstore-filesystem,root=/srv,bucket=a,bucket=b", "--provider")
    kind = KINDS[spec.kind]

    assert parse_settings(kind.settings, spec.values, "own").bucket == ("a", "b")


@pytest.mark.parametrize(
    ("kind", "values"),
    [("blobstore-s3", {"secret_key": "hunter2"}), ("keyvalue-redis", {"url": "redis://:hunter2@h"})],
)
def test_no_secret_of_the_settings_is_printed(kind: str, values: dict[str, str]) -> None:
    assert "hunter2" not in repr(parse_settings(KINDS[kind].settings, values, "own"))


def test_tables_of_the_file_and_flags_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[providers.cache]\nkind = "keyvalue-redis"\nurl = "redis://h"\nmax-value = 3\n')

    (spec,) = load(NodeSettings, file=file).provider
    assert (spec.name, spec.kind) == ("cache", "keyvalue-redis")
    assert spec.values == {"url": "redis://h", "max-value": 3}
    flags = {"provider": ("a=keyvalue-memory,max-bytes=1MiB", "b=keyvalue-memory")}
    assert [item.name for item in load(NodeSettings, flags=flags).provider] == ["a", "b"]
    environ = {"LATTICE_PROVIDER": "a=keyvalue-memory,max-bytes=1MiB;b=keyvalue-memory"}
    assert [item.name for item in load(NodeSettings, environ=environ).provider] == ["a", "b"]


def test_flags_add_providers_to_those_of_the_file_or_take_the_place_of_one(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[providers.cache]\nkind = "keyvalue-redis"\n[providers.a]\nkind = "keyvalue-redis"\n')

    found = load(NodeSettings, file=file, flags={"provider": ("a=keyvalue-memory", "b=keyvalue-memory")})

    assert [(item.name, item.kind) for item in found.provider] == [
        ("cache", "keyvalue-redis"),
        ("a", "keyvalue-memory"),
        ("b", "keyvalue-memory"),
    ]


def test_every_node_offers_the_defaults_unless_they_are_configured() -> None:
    own = ProviderSpec(name="keyvalue-memory", kind="keyvalue-memory", values={"max_bytes": "1MiB"})

    specs = with_defaults([own], KINDS)

    assert own in specs
    assert [spec.name for spec in specs].count("keyvalue-memory") == 1
    assert "keyvalue-nats" in [spec.name for spec in specs]
    with pytest.raises(Invalid, match="twice"):
        with_defaults([own, own], KINDS)
