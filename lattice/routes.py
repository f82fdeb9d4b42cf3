"""Routes as people write them: `HOST/PREFIX`, both of which may be left out. Pure."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping

from lattice.errors import Invalid
from lattice.http import is_authority, is_target

KEYS = ("host", "prefix")
"""What the configuration of a trigger of kind `http` may have."""

_MAX_NAME = 40
_ESCAPED_OR_FOREIGN = re.compile(rb"%([0-9A-Fa-f]{2})|[^\x21-\x7e]")
_UNRESERVED = frozenset((string.ascii_letters + string.digits + "-._~").encode())
"""What means the same escaped and as it is (RFC 3986, 2.3)."""


def check_host(host: str) -> str:
    """The host in lower case, empty for any; raises `Invalid`."""
    host = host.strip().lower().rstrip(".")
    if host in ("", "*"):
        return ""
    bare = host.removeprefix("*.")
    if "*" in bare or not is_authority(bare) or (":" in bare and not bare.startswith("[")) or "]:" in bare:
        cure = "use `example.org`, `*.example.org` or nothing, without a scheme and a port"
        if not host.isascii():
            cure = "write it as browsers send it, `xn--...`"
        raise Invalid(f"host {host!r} is not a host name: {cure}")
    return host


def check_prefix(prefix: str) -> str:
    """The prefix as paths are compared, without a slash at its end, empty for all; raises `Invalid`."""
    if prefix in ("", "/"):
        return ""
    if not prefix.startswith("/") or not is_target(prefix) or "?" in prefix or "#" in prefix:
        raise Invalid(f"prefix {prefix!r} is not a path: begin it with `/`, without `?`, `#` and blanks")
    try:
        return normal_path(prefix.encode()).rstrip("/")
    except UnicodeEncodeError:
        raise Invalid(f"prefix {prefix!r} is not UTF-8: write its bytes as %XX") from None


def normal_path(path: bytes) -> str:
    """The one form of all paths that are the same one by RFC 3986 (6.2.2), in ASCII.

    `%XX` is in capitals, and only where it has to be: `/%7ea` is `/~a`, and `/caf%c3%a9` what `/café` is in
    UTF-8. An escaped slash stays, as it separates nothing.
    """
    return _ESCAPED_OR_FOREIGN.sub(_normal_byte, path).decode("ascii")


def _normal_byte(found: re.Match[bytes]) -> bytes:
    byte = int(found[1], 16) if found[1] else found[0][0]
    return bytes([byte]) if byte in _UNRESERVED else b"%%%02X" % byte


def parse_route(text: str) -> tuple[str, str]:
    """Host and prefix of `HOST/PREFIX`; `/` is everything. Raises `Invalid`."""
    host, slash, prefix = text.partition("/")
    return check_host(host), check_prefix(slash + prefix)


def route_text(host: str, prefix: str) -> str:
    """As people write it."""
    return (host or "*") + (prefix or "/")


def route_configuration(host: str, prefix: str) -> dict[str, str]:
    """The configuration of the trigger."""
    return {key: value for key, value in (("host", host), ("prefix", prefix)) if value}


def route_of(configuration: Mapping[str, str]) -> tuple[str, str]:
    """Host and prefix of a trigger's configuration; raises `Invalid` that names the key and the cure."""
    for key in configuration:
        if key not in KEYS:
            raise Invalid(f"the configuration of a route has no key {key!r}: use `host` and `prefix`")
    return check_host(configuration.get("host", "")), check_prefix(configuration.get("prefix", ""))


def route_name(host: str, prefix: str) -> str:
    """The name of the route's trigger, so that a component may have several: the same for the same route."""
    if not host and not prefix:
        return "default"
    text = route_text(host, prefix)
    readable = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_MAX_NAME].strip("-")
    mark = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{readable}-{mark}" if readable else mark
