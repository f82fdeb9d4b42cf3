"""Names that become subject tokens and keys, and the nearest name to one that was mistyped."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from lattice.errors import Invalid

MAX_NAME_LENGTH = 63
"""As for a DNS label, so that a name can also be a host name."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_LABEL_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_./-]*[A-Za-z0-9])?")


def check_name(name: str, field: str) -> str:
    """Return `name`, or raise `Invalid` that names `field` and the rule."""
    if len(name) <= MAX_NAME_LENGTH and _NAME.fullmatch(name):
        return name
    raise Invalid(
        f"{field} {name!r} is not a valid name: use 1 to {MAX_NAME_LENGTH} of a-z, 0-9 and '-', "
        "neither first nor last a '-'"
    )


def check_label(key: str, value: str) -> tuple[str, str]:
    """Return the label, or raise `Invalid`; both halves have at most 63 characters."""
    if len(key) > MAX_NAME_LENGTH or not _LABEL_KEY.fullmatch(key):
        raise Invalid(f"label key {key!r} is not valid: use letters, digits, '-', '_', '.' and '/'")
    if len(value) > MAX_NAME_LENGTH or not value.isprintable():
        raise Invalid(f"label {key!r} has a value that is too long or not printable: {value!r}")
    return key, value


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like `name`, or None when none is similar enough to be a typing error."""
    matches = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """A clause to append to an error message; empty when nothing is similar."""
    match = nearest(name, candidates)
    return f"; did you mean `{match}`?" if match else ""
