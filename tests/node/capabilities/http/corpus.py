"""Requests that every host answers alike: host functions, the shim, and `wasmtime serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lattice.http import Headers

ROOT = Path(__file__).parents[4]
ECHO = "examples/http-echo/c/http-echo.wasm"
HELLO = "examples/http-hello/c/http-hello.wasm"
LAB = "tests/node/capabilities/http/guest/lab.wasm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request to one component."""

    name: str
    guest: str
    method: str = "GET"
    path: str = "/"
    headers: Headers = ()
    body: bytes = b""
    is_cut_natively: bool = False
    """Whether `wasmtime serve` ends the body as if it were whole when its guest stops; here that fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, without what may differ: a failure is one, however a host words it."""

    status: int
    headers: Headers = ()
    body: bytes = b""


FAILED = Answer(status=500)
"""No response came, or one that broke off, or the host's own saying so."""


def answer(method: str, status: int, headers: Headers, body: bytes | None) -> Answer:
    """The answer without what the way to it adds, and with lines in one order; None is a body that broke."""
    if body is None or (status in (500, 502, 503, 504) and not body.startswith(b"error=")):
        return FAILED
    kept = tuple(sorted(item for item in headers if item[0] not in _OF_THE_WAY))
    lines = b"" if method == "HEAD" else b"\n".join(sorted(body.split(b"\n")))
    return Answer(status=status, headers=kept, body=lines)


_OF_THE_WAY = {"date", "connection", "transfer-encoding", "content-length"}

_SIZES = (0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1_000_000)
_FAULTS = (
    "trap", "nothing", "error", "drop-incoming", "unwritten", "mid-trap", "leak", "large", "unasked",
    "finish-early", "finish", "sized-finish", "drop", "drop-early",
    "watched", "answered-trap", "empty-trap",
)  # fmt: skip
_CUT = {"unwritten", "mid-trap", "leak", "large", "unasked", "drop-early", "watched"}
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PURGE", "a!b")
_PATHS = (
    "/describe",
    "/describe?",
    "/describe?a=b&c=%20d",
    "/describe/../x//y/./z",
    "/describe/%2F%zz",
    "/describe;v=1",
)
_HEADERS: tuple[Headers, ...] = (
    (("a", b"1"), ("b", b"2"), ("a", b"3")),
    (("x-bytes", bytes(range(0x80, 0x100))),),
    (("x-tab", b"a\tb"), ("x-empty", b""), ("x-long", b"x" * 8000)),
    (("accept", b"*/*"), ("user-agent", b"test"), ("cookie", b"a=1; b=2"), ("authorization", b"Basic eA==")),
    (("te", b"trailers"), ("keep-alive", b"5"), ("proxy-authorization", b"x"), ("http2-settings", b"x")),
)


def _binary(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


CASES: tuple[Case, ...] = (
    Case(name="hello", guest=HELLO, path="/you"),
    Case(name="fields", guest=LAB, path="/fields"),
    Case(name="once", guest=LAB, method="POST", path="/once", body=b"x"),
    Case(name="sizes", guest=LAB, path="/sizes"),
    Case(name="no-trailers", guest=LAB, method="POST", path="/trailers", body=b"abc"),
    Case(name="chunks", guest=LAB, path="/chunks/5"),
    Case(name="before", guest=LAB, path="/before/1"),
    Case(name="unknown", guest=LAB, path="/unknown"),
    Case(name="unwritten-head", guest=LAB, method="HEAD", path="/fault/unwritten"),
    *(Case(name=f"method-{name}", guest=LAB, method=name, path="/describe") for name in _METHODS),
    *(Case(name=f"path-{number}", guest=LAB, path=path) for number, path in enumerate(_PATHS)),
    *(
        Case(name=f"headers-{number}", guest=LAB, path="/describe", headers=headers)
        for number, headers in enumerate(_HEADERS)
    ),
    *(
        Case(name=f"fault-{fault}", guest=LAB, path=f"/fault/{fault}", is_cut_natively=fault in _CUT)
        for fault in _FAULTS
    ),
    *(
        Case(
            name=f"echo-{size}",
            guest=ECHO,
            method="POST",
            headers=(("content-type", b"application/octet-stream"),),
            body=_binary(size),
        )
        for size in _SIZES
    ),
)
