"""From the head of a request as it came to the request that a component gets. Pure.

The parser (llhttp, strict) has refused what is malformed: bare line ends, folded lines, blanks before a
colon, conflicting or doubled lengths, bad chunk sizes. Here the rest is refused that two servers in a row
could read in two ways: two hosts, a target that contradicts its host, codings that are not understood.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from lattice.http import HOP_BY_HOP, Headers, is_authority
from node.http.failures import Refusal

Fields: TypeAlias = list[tuple[bytes, bytes]]
"""As the parser gives them."""

FORWARDED = frozenset(
    {"forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-real-ip"}
)
"""What proxies say of the client: anybody can send it, so it is dropped unless the operator trusts it."""

_APART = HOP_BY_HOP | FORWARDED | {"host", "content-length", "expect", "traceparent"}
_MAX_KNOWN_NAMES = 1024
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is at the other end of a connection, and what is said of it to components."""

    address: str
    local: str
    """The listener's own address: the authority of a request that brings none."""
    scheme: str
    trusts_forwarded: bool = False


class Head:
    """The head of one request, read once. Made for each request, so it has no more than it needs."""

    __slots__ = (
        "authority",
        "content_length",
        "expects_continue",
        "headers",
        "is_chunked",
        "method",
        "path",
        "scheme",
        "traceparent",
    )

    def __init__(self, method: str, target: bytes, version: str, fields: Fields, peer: Peer) -> None:
        """Raises `Refusal` for a request that must not be passed on."""
        self.method = method
        self.scheme = peer.scheme
        self.content_length = 0
        self.is_chunked = False
        self.expects_continue = False
        self.traceparent: str | None = None
        hosts: list[bytes] = []
        forwarded: list[tuple[str, bytes]] = []
        headers: list[tuple[str, bytes]] = []
        dropped: set[str] = set()
        for raw, value in fields:
            name = _known_names.get(raw) or _learn(raw)
            if value and value[-1] in b" \t":
                value = value.rstrip(b" \t")
            if name not in _APART:
                headers.append((name, value))
            elif name == "host":
                hosts.append(value)
            elif name in FORWARDED:
                forwarded.append((name, value))
            else:
                self._take(name, value, version, headers, dropped)
        if dropped:
            headers = [item for item in headers if item[0] not in dropped]
        self._locate(target, version, hosts, peer)
        self._forward(headers, forwarded, peer)
        self.headers: Headers = tuple(headers)

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return self.is_chunked or self.content_length > 0

    def _take(
        self, name: str, value: bytes, version: str, headers: list[tuple[str, bytes]], dropped: set[str]
    ) -> None:
        if name == "content-length":
            self.content_length = int(value)  # the parser has seen to it that these are digits
            headers.append((name, value))
        elif name == "transfer-encoding":
            if value.lower() != b"chunked":
                raise Refusal(501, "the only transfer-encoding that is understood is `chunked`")
            if version != "1.1":
                raise Refusal(400, "HTTP/1.0 has no transfer-encoding")
            self.is_chunked = True
        elif name == "expect":
            if value.lower() != b"100-continue":
                raise Refusal(417, "the only expectation that is understood is `100-continue`")
            self.expects_continue = version == "1.1"
        elif name == "traceparent":
            if _TRACEPARENT.fullmatch(value):
                self.traceparent = value.decode("ascii")
                headers.append((name, value))
        elif name == "connection":
            options = value.decode("latin-1").lower().split(",")
            dropped.update(option.strip() for option in options)

    def _locate(self, target: bytes, version: str, hosts: list[bytes], peer: Peer) -> None:
        if len(hosts) > 1:
            raise Refusal(400, "there is more than one `host`")
        if not hosts and version == "1.1":
            raise Refusal(400, "there is no `host`")
        host = hosts[0].decode("latin-1") if hosts else ""
        path = target.decode("latin-1")
        if path[:1] != "/" and not (path == "*" and self.method == "OPTIONS"):
            path, host = _from_absolute(path, host, bool(hosts))
        if host:
            if host not in _known_hosts:
                _check_host(host)
            self.authority = host
        elif hosts and version == "1.1":
            raise Refusal(400, "`host` is empty")
        else:
            self.authority = peer.local
        if "#" in path:
            raise Refusal(400, "the target has a fragment, which is never sent")
        self.path = path

    def _forward(
        self, headers: list[tuple[str, bytes]], forwarded: list[tuple[str, bytes]], peer: Peer
    ) -> None:
        chain = [peer.address.encode()]
        if peer.trusts_forwarded and forwarded:
            chain = [value for name, value in forwarded if name == "x-forwarded-for"] + chain
            headers += [item for item in forwarded if item[0] != "x-forwarded-for"]
        said = {name for name, _ in forwarded} if peer.trusts_forwarded else ()
        headers.append(("x-forwarded-for", b", ".join(chain)))
        if "x-forwarded-proto" not in said:
            headers.append(("x-forwarded-proto", peer.scheme.encode()))
        if "x-forwarded-host" not in said:
            headers.append(("x-forwarded-host", self.authority.encode("latin-1")))


_known_names: dict[bytes, str] = {}
_known_hosts: set[str] = set()


def _learn(raw: bytes) -> str:
    """The name in lower case. Few names are in use, so each is converted once; bounded, for the others."""
    if len(_known_names) >= _MAX_KNOWN_NAMES:
        _known_names.clear()
    name = _known_names[raw] = raw.decode("latin-1").lower()
    return name


def _check_host(host: str) -> None:
    if not is_authority(host):
        raise Refusal(400, "`host` is not a host and a port")
    if len(_known_hosts) >= _MAX_KNOWN_NAMES:
        _known_hosts.clear()
    _known_hosts.add(host)


def _from_absolute(target: str, host: str, has_host: bool) -> tuple[str, str]:
    """Path and authority of `http://host/path`; such targets are sent to proxies, and to be taken by all."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise Refusal(400, "the target must be a path or a whole http address")
    for index, character in enumerate(rest):
        if character in "/?":
            authority, path = rest[:index], rest[index:]
            break
    else:
        authority, path = rest, "/"
    if "@" in authority or not authority:
        raise Refusal(400, "the target's host must be a host and a port")
    if has_host and authority.lower() != host.lower():
        raise Refusal(400, "the target and `host` name different hosts")
    return (path if path[0] == "/" else "/" + path), authority
