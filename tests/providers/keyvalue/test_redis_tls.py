"""Redis over TLS: the options of the URL, and what is said where they do not fit."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lattice.errors import Invalid, LatticeError
from providers.keyvalue.redis import RedisKeyValue, RedisSettings
from providers.keyvalue.redis_tls import tls_context
from providers.registry import ProviderContext, parse_settings
from tests.ports import own_port
from tests.redis_server import RedisServer, require_redis


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and the certificates of a server and a client that it has signed."""
    folder = tmp_path_factory.mktemp("redis-tls")
    _openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=authority", "-days", "2",
             "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        _openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                 "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                 "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", f"{name}.pem")  # fmt: skip
    return folder


def _openssl(folder: Path, *args: str) -> None:
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    """Of a server that wants a certificate of its clients."""
    require_redis()
    port = own_port()
    files = ("--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem")
    server = RedisServer(folder, "--tls-port", str(port), *files)
    server.start()
    yield port
    server.kill()


def _provider(url: str, timeout: str = "5s") -> RedisKeyValue:
    settings = parse_settings(RedisSettings, {"url": url, "timeout": timeout}, "keyvalue-redis")
    context = ProviderContext(lattice="test", name="cache", bus=None)  # type: ignore[arg-type]
    return RedisKeyValue(context, settings)


def _url(port: int, folder: Path, **options: str) -> str:
    query = "&".join(f"ssl_{option}={folder / file}" for option, file in options.items())
    return f"rediss://127.0.0.1:{port}?{query}"


async def test_values_are_stored_over_tls_with_an_authority_and_a_certificate(
    port: int, folder: Path
) -> None:
    provider = _provider(
        _url(port, folder, ca_certs="ca.pem", certfile="client.pem", keyfile="client.key") + "&db=2"
    )
    await provider.start()
    store = provider.store("shop", "prices")

    await store.set("a", b"1")

    assert await store.get("a") == b"1"
    await provider.aclose()


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({}, r"not trusted .*`\?ssl_ca_certs=FILE`"),
        ({"ca_certs": "ca.pem"}, "Redis closed the connection"),
        ({"ca_certs": "none.pem"}, "ssl_ca_certs: there is no file .*none.pem"),
        ({"ca_certs": "ca.key"}, "ssl_ca_certs=.*ca.key can't be used"),
        ({"ca_certs": "ca.pem", "certfile": "client.pem", "keyfile": "ca.key"}, "belong together"),
        (
            {"ca_certs": "ca.pem", "certfile": "client.pem", "keyfile": "no.key"},
            "ssl_keyfile: there is no",
        ),
    ],
)
async def test_what_keeps_tls_from_working_is_named(
    port: int, folder: Path, options: dict[str, str], cure: str
) -> None:
    with pytest.raises(LatticeError, match=cure):
        await _provider(_url(port, folder, **options)).start()


def test_an_authority_that_is_named_is_the_only_one(folder: Path) -> None:
    authorities: list[Any] = tls_context({"ssl_ca_certs": str(folder / "ca.pem")}).get_ca_certs()

    assert [dict(item[0] for item in found["subject"]) for found in authorities] == [
        {"commonName": "authority"}
    ]


async def test_a_server_that_is_silent_is_asked_for_tls(redis_server: RedisServer) -> None:
    with pytest.raises(LatticeError, match=r"no answer within 0.2 s; does it speak TLS"):
        await _provider(redis_server.url.replace("redis:", "rediss:"), "0.2s").start()


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("rediss://redis?ssl_ca_cert=x", "did you mean `ssl_ca_certs`"),
        ("redis://redis?max_connections=4", "no `max_connections`"),
        ("redis://redis?ssl_ca_certs=x", "rediss://"),
        ("rediss://redis?ssl_cert_reqs=none", "always checked: .*`ssl_ca_certs=FILE`"),
        ("rediss://redis?ssl_keyfile=x", "`ssl_keyfile` needs `ssl_certfile`"),
    ],
)
def test_options_that_would_do_nothing_are_refused(url: str, cure: str) -> None:
    with pytest.raises(Invalid, match=cure):
        _provider(url)


@pytest.mark.parametrize("url", ["rediss://:p@redis/2?ssl_cert_reqs=required", "unix:///run/redis?db=2"])
def test_options_that_count_are_taken(url: str) -> None:
    _provider(url)
