"""Sealing a secret before it leaves this process: for which nodes, by the keys that they announce."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from lattice.errors import Invalid, Unreachable
from lattice.sealing import Secret, announced_keys
from lattice.secret_readers import OF_PROVIDER
from lattice.secrets import SecretRecord, sealed_record
from lattice.subjects import check_node


def seal(
    name: str, value: Secret, prepared: Mapping[str, Any], wanted: Sequence[str], *, lattice: str
) -> SecretRecord:
    """The record to store; `wanted` may read it: nodes by name or id, and `provider:NAME`.

    None of them means all, or who could read it before. Raises `Unreachable` when no node may be given it,
    and `Invalid` for a node that is not known by its name, or for providers without a node.
    """
    found = prepared.get("previous")
    previous = None if found is None else SecretRecord.from_dict(found, "previous")
    live = [node for node in prepared.get("nodes") or () if isinstance(node, Mapping)]
    readers, providers = _readers(wanted, live)
    if not wanted and previous and not previous.is_deleted:
        readers, providers = previous.readers, previous.reader_providers
    record = sealed_record(
        name,
        value,
        previous,
        time.time_ns() // 1_000_000,
        lattice=lattice,
        nodes=announced_keys({str(node.get("id")): str(node.get("seal_key")) for node in live}),
        readers=readers,
        reader_providers=providers,
        provider_of={str(node.get("id")): _provider(node) for node in live},
    )
    if not record.sealed:
        raise Unreachable(
            f"no node can be given secret {name!r}: "
            "none of its readers is up, or `--secrets-for` excludes them"
        )
    return record


def _provider(node: Mapping[str, Any]) -> str:
    return str(node.get("provider") or "")


def _readers(
    wanted: Sequence[str], live: Sequence[Mapping[str, Any]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ids of the nodes, and the names of the providers."""
    providers = tuple(item.removeprefix(OF_PROVIDER) for item in wanted if item.startswith(OF_PROVIDER))
    nodes = tuple(_id(item, live) for item in wanted if not item.startswith(OF_PROVIDER))
    if providers and not nodes:
        raise Invalid(
            f"`{OF_PROVIDER}{providers[0]}` needs a node beside it, which seals the secret to the provider's "
            "processes whenever they start: add `--for NODE`"
        )
    return nodes, providers


def _id(wanted: str, live: Sequence[Mapping[str, Any]]) -> str:
    found = [node for node in live if wanted in (node.get("name"), node.get("id"), _provider(node) or None)]
    for node in found:
        if not _provider(node):
            return str(node.get("id"))
    if found:
        provider = _provider(found[0])
        raise Invalid(
            f"{wanted!r} is no node but provider {provider!r}, or a process of it, whose id is new at "
            f"each start: use `{OF_PROVIDER}{provider}`"
        )
    if len(wanted) != 56 or not wanted.startswith("N"):
        raise Invalid(f"there is no node {wanted!r} that has a seal key; see `latticectl get nodes`")
    return check_node(wanted)
