"""Subjects with wildcards: `*` stands for one token, a last `>` for one or more."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lattice.errors import Invalid

MAX_SUBJECT_LENGTH = 1024
RESERVED = ("lattice", "_INBOX")
"""First tokens of what belongs to the lattice and to private replies; `$` begins those of the server."""

_TOKEN = re.compile(r"[^\s\x00-\x1f\x7f.*>]+")


def matches(pattern: Sequence[str], subject: Sequence[str]) -> bool:
    """Whether a subject's tokens match a pattern's."""
    if pattern[-1] == ">":
        if len(subject) < len(pattern):
            return False
        return all(p in ("*", s) for p, s in zip(pattern[:-1], subject, strict=False))
    return len(pattern) == len(subject) and all(p in ("*", s) for p, s in zip(pattern, subject, strict=True))


def parse_pattern(text: str) -> tuple[str, ...]:
    """The tokens of a subject, with or without wildcards, that an application may use. Raises `Invalid`."""
    tokens = tuple(text.split("."))
    if len(text.encode()) > MAX_SUBJECT_LENGTH:
        raise Invalid(f"subject {text[:40]!r}... has more than {MAX_SUBJECT_LENGTH} bytes")
    for place, token in enumerate(tokens):
        is_wildcard = token == "*" or (token == ">" and place == len(tokens) - 1)
        if not is_wildcard and not _TOKEN.fullmatch(token):
            raise Invalid(f"{text!r} is not a subject: use tokens without spaces, separated by single dots")
    if is_reserved(tokens):
        raise Invalid(
            f"subject {text!r} is not open to applications: it may not begin with a wildcard, `$`, "
            f"{' or '.join(f'`{name}`' for name in RESERVED)}"
        )
    return tokens


def parse_subject(text: str) -> tuple[str, ...]:
    """The tokens of a subject without wildcards that an application may use. Raises `Invalid`."""
    tokens = parse_pattern(text)
    if "*" in tokens or tokens[-1] == ">":
        raise Invalid(f"{text!r} has a wildcard: a message goes to one subject")
    return tokens


def is_reserved(tokens: Sequence[str]) -> bool:
    """Whether a subject could be the lattice's, the server's, or somebody's private replies."""
    first = tokens[0]
    return first in RESERVED or first in ("*", ">") or first.startswith(("$", "_INBOX"))


def takes_replies(subject: str) -> bool:
    """Whether what a message asks for may be sent there: never to the lattice's or the server's subjects.

    Whoever sends a message chooses where its answer goes, and NATS checks no permission for that. Nodes may
    publish nearly everywhere, so their answers must not become somebody else's way to do so.
    """
    return subject.startswith("_INBOX") or not is_reserved(subject.split("."))
