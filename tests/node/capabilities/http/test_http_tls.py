"""The client and TLS: whom it trusts, and how failures are told."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from lattice.errors import Invalid
from lattice.http import HttpRequest, HttpResponse
from node.capabilities.http.client import HttpClient, RequestOptions
from node.capabilities.http.connector import HttpClientSettings
from node.capabilities.http.errors import HttpError
from node.capabilities.http.policy import OutgoingPolicy
from tests.node.capabilities.http.servers import Peer, Script, answering, ok, serving

POLICY = OutgoingPolicy.parse(["127.0.0.1", "localhost"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem",
         "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def tls(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def _get(client: HttpClient, authority: str) -> HttpResponse:
    request = HttpRequest(method="GET", scheme="https", authority=authority, path="/")
    return await client.send(request, RequestOptions(connect_timeout=5), POLICY)


async def _case(settings: HttpClientSettings, authority: str) -> str:
    async with HttpClient(settings) as client:
        with pytest.raises(HttpError) as caught:
            await _get(client, authority)
    return caught.value.case


def _answer_with(data: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(data)
        await peer.reader.read(1)

    return script


async def test_a_server_of_an_extra_authority_is_trusted(folder: Path, tls: ssl.SSLContext) -> None:
    settings = HttpClientSettings(ca_bundle=folder / "cert.pem")
    async with HttpClient(settings) as client, answering(ok(b"secret"), tls=tls) as server:
        for _ in range(2):
            assert (await _get(client, server.authority)).body == b"secret"

    assert server.connections == 1


async def test_a_server_of_an_unknown_authority_is_not_trusted(tls: ssl.SSLContext) -> None:
    async with answering(ok(), tls=tls) as server:
        assert await _case(HttpClientSettings(), server.authority) == "TLS-certificate-error"

    assert server.heads == []


async def test_a_certificate_must_be_for_the_host(folder: Path, tls: ssl.SSLContext) -> None:
    settings = HttpClientSettings(ca_bundle=folder / "cert.pem")
    async with answering(ok(), tls=tls) as server:
        assert await _case(settings, f"localhost:{server.port}") == "TLS-certificate-error"


async def test_a_server_without_tls_is_a_protocol_error() -> None:
    async with serving(_answer_with(ok())) as server:
        assert await _case(HttpClientSettings(), server.authority) == "TLS-protocol-error"


async def test_an_alert_is_told_with_its_number() -> None:
    alert = b"\x15\x03\x03\x00\x02\x02\x28"  # fatal, handshake failure
    async with serving(_answer_with(alert)) as server, HttpClient() as client:
        with pytest.raises(HttpError) as caught:
            await _get(client, server.authority)

    assert caught.value.error_code == {
        "TLS-alert-received": {"alert-id": 40, "alert-message": "handshake failure"}
    }


async def test_a_connection_that_ends_within_the_handshake_is_told() -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(1)

    async with serving(script) as server:
        assert await _case(HttpClientSettings(), server.authority) == "connection-terminated"


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])  # as nodes run
async def test_a_body_that_ends_with_its_connection_is_whole_only_if_tls_says_so(
    folder: Path, tls: ssl.SSLContext
) -> None:
    """Anybody on the way could end the connection, but nobody else can say that the server has."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\npart")
        peer.writer.transport.abort()

    async with (
        HttpClient(HttpClientSettings(ca_bundle=folder / "cert.pem")) as client,
        serving(script, tls=tls) as server,
    ):
        response = await _get(client, server.authority)
        assert not isinstance(response.body, bytes)
        with pytest.raises(HttpError, match="HTTP-response-incomplete"):
            async with response.body as body:
                [chunk async for chunk in body]


async def test_a_handshake_that_stands_still_times_out() -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.reader.read()
        await peer.reader.read()

    async with serving(script) as server, HttpClient() as client:
        request = HttpRequest(method="GET", scheme="https", authority=server.authority, path="/")
        with pytest.raises(HttpError) as caught:
            await client.send(request, RequestOptions(connect_timeout=0.1), POLICY)

    assert caught.value.case == "connection-timeout"


async def test_a_bundle_that_can_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")

    for name in ("bad.pem", "missing.pem"):
        with pytest.raises(Invalid, match="PEM certificates"):
            async with HttpClient(HttpClientSettings(ca_bundle=tmp_path / name)):
                pass
