"""To which subjects a link lets its component send; pure.

Nothing is granted by default. What belongs to the lattice, to the server, or to somebody's private replies
can't be granted at all; only to whom a message asked to reply, its handler may.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lattice.errors import Denied, Invalid
from lattice.names import did_you_mean
from lattice.patterns import matches, parse_pattern, parse_subject, takes_replies

KEYS = ("publish", "stored")
YES_OR_NO = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishGrant:
    """A link's configuration, checked."""

    patterns: tuple[tuple[str, ...], ...] = ()
    is_stored: bool = False
    """Whether a message counts as published only once a stream has stored it."""

    @staticmethod
    def parse(configuration: Mapping[str, str]) -> PublishGrant:
        """Raises `Invalid` that names the key."""
        for key in configuration:
            if key not in KEYS:
                near = did_you_mean(key, KEYS) or f": use {', '.join(KEYS)}"
                raise Invalid(f"messaging has no configuration key `{key}`{near}")
        stored = configuration.get("stored", "false")
        if stored not in YES_OR_NO:
            raise Invalid(f"configuration key `stored`: {stored!r} is neither true nor false")
        listed = [item.strip() for item in configuration.get("publish", "").split(",")]
        try:
            patterns = tuple(parse_pattern(item) for item in listed if item)
        except Invalid as error:
            raise Invalid(f"configuration key `publish`: {error.message}") from None
        return PublishGrant(patterns=patterns, is_stored=YES_OR_NO[stored])

    def check(self, subject: str, replies: Collection[str] = ()) -> None:
        """Raise `Denied` unless the subject is granted, or is where a reply was asked for.

        Raises `Invalid` for what is no subject.
        """
        if subject in replies and takes_replies(subject):  # what the calling node says is not taken on trust
            return
        tokens = parse_subject(subject)
        if not any(matches(pattern, tokens) for pattern in self.patterns):
            granted = ", ".join(".".join(pattern) for pattern in self.patterns) or "nothing"
            raise Denied(
                f"the link does not grant publishing to {subject!r} (it grants {granted}): "
                f"configure it with `publish={subject}`"
            )
