"""Credentials files and TLS, with a server that demands them."""

from __future__ import annotations

import base64
import dataclasses
import json
import secrets
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nkeys
import pytest

from lattice.connection import Credentials, parse_urls
from lattice.errors import Denied, Invalid
from lattice.nats_bus import NatsBus
from tests.servers import NatsServer

MakeServer = Callable[..., NatsServer]
STORES = ("mem_storage", "disk_storage", "streams", "consumer")
UNLIMITED = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf", *STORES), -1)


def _key(prefix: int) -> Any:
    return nkeys.from_seed(nkeys.encode_seed(secrets.token_bytes(32), prefix))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _token(issuer: Any, subject: Any, **claims: Any) -> str:
    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    body = {
        "jti": secrets.token_hex(16),
        "iat": 1,
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": claims["type"],
        "nats": {"version": 2, **claims},
    }
    signed = ".".join(_base64(json.dumps(part).encode()) for part in (header, body))
    return f"{signed}.{_base64(issuer.sign(signed.encode()))}"


def _credentials(account: Any) -> str:
    user = _key(nkeys.PREFIX_BYTE_USER)
    token = _token(account, user, type="user", pub={}, sub={}, subs=-1, data=-1, payload=-1)
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )


@pytest.mark.fault
async def test_a_credentials_file_opens_its_account_and_no_other(
    make_nats_server: MakeServer, tmp_path: Path
) -> None:
    operator, stranger = _key(nkeys.PREFIX_BYTE_OPERATOR), _key(nkeys.PREFIX_BYTE_ACCOUNT)
    app, system = _key(nkeys.PREFIX_BYTE_ACCOUNT), _key(nkeys.PREFIX_BYTE_ACCOUNT)
    with_stores = {**UNLIMITED, "wildcards": True}
    without = {key: value for key, value in with_stores.items() if key not in STORES}
    tokens = {
        account.public_key.decode(): _token(operator, account, type="account", limits=limits)
        for account, limits in ((app, with_stores), (system, without))
    }
    good, system_good, bad = tmp_path / "app.creds", tmp_path / "system.creds", tmp_path / "bad.creds"
    good.write_text(_credentials(app))
    system_good.write_text(_credentials(system))
    bad.write_text(_credentials(stranger))
    server = make_nats_server(
        accounts={},
        operator=_token(operator, operator, type="operator"),
        system_account=system.public_key.decode(),
        resolver="MEMORY",
        resolver_preload=tokens,
    )
    settings = dataclasses.replace(
        server.settings(),
        credentials=Credentials(file=good),
        system_credentials=Credentials(file=system_good),
    )

    async with NatsBus(settings) as bus:
        await (await bus.key_value("b")).put("key", b"1")
        assert await bus.watch_disconnects(lambda _: None)
    with pytest.raises(Denied, match=r"bad\.creds"):
        async with NatsBus(dataclasses.replace(settings, credentials=Credentials(file=bad))):
            pass


@pytest.mark.fault
@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates with openssl")
async def test_tls_checks_both_sides(make_nats_server: MakeServer, tls_files: dict[str, str]) -> None:
    server = make_nats_server(
        tls={
            "cert_file": tls_files["server.crt"],
            "key_file": tls_files["server.key"],
            "ca_file": tls_files["ca.crt"],
            "verify": True,
        }
    )
    trusting = dataclasses.replace(server.settings(), tls_ca=Path(tls_files["ca.crt"]))
    settings = dataclasses.replace(
        trusting,
        tls_certificate=Path(tls_files["client.crt"]),
        tls_key=Path(tls_files["client.key"]),
    )

    async with NatsBus(settings) as bus:
        await (await bus.key_value("b")).put("key", b"1")
        assert await bus.watch_disconnects(lambda _: None)
    with pytest.raises(Invalid, match="--tls-ca"):
        async with NatsBus(dataclasses.replace(settings, tls_ca=None, tls_certificate=None)):
            pass


@pytest.fixture
def tls_files(tmp_path: Path) -> dict[str, str]:
    """An authority, and certificates of it for a server on the loopback interface and for a client."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")
    usage = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", "-x509", *key, *usage, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=Test")
    for name in ("server", "client"):
        names = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "keyUsage=digitalSignature")
        signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=CA:FALSE")
        files = ("-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}")
        openssl("req", "-x509", *key, *names, *signed, *files)
    return {path.name: str(path) for path in tmp_path.iterdir()}


def test_urls_are_taken_apart() -> None:
    urls, user = parse_urls("nats://me:secret@one, two:5222,tls://[::1]")
    assert urls == ("nats://one:4222", "nats://two:5222", "tls://[::1]:4222")
    assert user == Credentials(user="me", password="secret")
    assert "secret" not in repr(user)


@pytest.mark.parametrize("text", ["", "http://host", "nats://", "nats://host:port", "nats://host/path"])
def test_what_is_no_url_is_invalid(text: str) -> None:
    with pytest.raises(Invalid, match="--nats"):
        parse_urls(text)
