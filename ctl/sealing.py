"""Sealing a secret before it leaves this process: for which nodes, by the keys that they announce."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from lattice.errors import Invalid, Unreachable
from lattice.sealing import Secret, announced_keys
from lattice.secrets import SecretRecord, sealed_record
from lattice.subjects import check_node


def seal(
    name: str, value: Secret, prepared: Mapping[str, Any], nodes: Sequence[str], *, lattice: str
) -> SecretRecord:
    """The record to store; `nodes` are names or ids, none of them means all, or who could read it before.

    Raises `Unreachable` when no node may be given it, and `Invalid` for a node that is not known by its name.
    """
    found = prepared.get("previous")
    previous = None if found is None else SecretRecord.from_dict(found, "previous")
    live = [node for node in prepared.get("nodes") or () if isinstance(node, Mapping)]
    readers = _readers(nodes, live) or (previous.readers if previous and not previous.is_deleted else ())
    keys = announced_keys({str(node.get("id")): str(node.get("seal_key")) for node in live})
    record = sealed_record(
        name,
        value,
        previous,
        time.time_ns() // 1_000_000,
        lattice=lattice,
        nodes=keys,
        readers=readers,
    )
    if not record.sealed:
        raise Unreachable(
            f"no node can be given secret {name!r}: "
            "none of its readers is up, or `--secrets-for` excludes them"
        )
    return record


def _readers(nodes: Sequence[str], live: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    by_name = {str(node.get("name")): str(node.get("id")) for node in live}
    return tuple(by_name.get(node) or _id(node) for node in nodes)


def _id(node: str) -> str:
    if len(node) != 56 or not node.startswith("N"):
        raise Invalid(f"there is no node {node!r} that has a seal key; see `latticectl get nodes`")
    return check_node(node)
