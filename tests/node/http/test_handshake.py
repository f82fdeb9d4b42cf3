"""Clients of a TLS port count as connections before they have agreed on TLS, and until that fails."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from node.http.limits import HttpLimits
from node.http.tls import server_context
from tests.node.http.sites import GET, Client, Listening, listening
from tests.waiting import until

pytestmark = pytest.mark.parametrize(
    "anyio_backend", ["asyncio", pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")]
)

ONE = HttpLimits(connections=1)


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return server_context(*certificate)


class Secured:
    """A client that speaks TLS by hand, so that a test says what is sent when."""

    def __init__(self, client: Client, certificate: tuple[Path, Path]) -> None:
        self._client = client
        self._received, self._unsent = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=certificate[0])
        self._tls = context.wrap_bio(self._received, self._unsent, server_hostname="127.0.0.1")

    async def agree(self) -> None:
        """Agree on TLS, but for the last message, which is not sent yet."""
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self.send()
                await self._receive()

    async def send(self, data: bytes = b"") -> None:
        """Send that, and what was not sent yet, at once."""
        if data:
            self._tls.write(data)
        await self._client.send(self._unsent.read())

    async def read_all(self) -> bytes:
        """Until the server ends TLS."""
        data = b""
        while True:
            try:
                part = self._tls.read(65536)
            except ssl.SSLWantReadError:
                await self._receive()
            except ssl.SSLZeroReturnError:
                return data
            else:
                if not part:
                    return data
                data += part

    async def _receive(self) -> None:
        with anyio.fail_after(5):
            self._received.write(await self._client.reader.read(65536))


async def _settled(site: Listening) -> None:
    """Return when nobody is connected any more."""
    await until(lambda: not site.site.connections and not site.site.arriving)


LAST = GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(
    tls: ssl.SSLContext, certificate: tuple[Path, Path]
) -> None:
    async with listening(tls=tls) as site, site.client() as client:
        secured = Secured(client, certificate)
        await secured.agree()
        await secured.send(LAST)
        answer = await secured.read_all()

    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"hello\n")
    assert [request.scheme for request in site.responder.requests] == ["https"]


async def test_who_has_not_agreed_on_tls_counts_as_a_connection(
    tls: ssl.SSLContext, certificate: tuple[Path, Path]
) -> None:
    async with listening(limits=ONE, tls=tls) as site, site.client() as client:
        await until(lambda: site.site.arriving)
        async with site.client() as refused:
            assert await refused.read_all() == b""
        secured = Secured(client, certificate)
        await secured.agree()
        await secured.send(LAST)
        answer = await secured.read_all()

    assert answer.startswith(b"HTTP/1.1 200 ")


async def _leave(client: Client) -> None:
    await client.close()


async def _break_off(client: Client) -> None:
    client.writer.transport.abort()


async def _speak_plain(client: Client) -> None:
    await client.send(GET)
    assert b"200" not in await client.read_all()


async def _wait(client: Client) -> None:
    assert await client.read_all() == b""


@pytest.mark.parametrize("end", [_leave, _break_off, _speak_plain, _wait])
async def test_the_place_of_who_does_not_agree_is_free_again(
    tls: ssl.SSLContext, end: Callable[[Client], object]
) -> None:
    limits = HttpLimits(connections=1, header_seconds=0.3 if end is _wait else 10)
    async with listening(limits=limits, tls=tls) as site:
        for _ in range(2):
            async with site.client() as client:
                await until(lambda: site.site.arriving)
                await end(client)  # type: ignore[misc]
            await _settled(site)

    assert site.responder.requests == []


async def test_handshakes_end_with_their_site(tls: ssl.SSLContext) -> None:
    async with listening(tls=tls) as site, site.client() as client:
        await until(lambda: site.site.arriving)
        site.site.abort()
        assert await client.read_all() == b""
        await _settled(site)


async def test_who_agrees_while_the_site_drains_is_told_so(
    tls: ssl.SSLContext, certificate: tuple[Path, Path]
) -> None:
    async with listening(tls=tls) as site, site.client() as client:
        secured = Secured(client, certificate)
        await secured.agree()
        with anyio.fail_after(5):
            await site.site.drain()
        await secured.send(GET)
        answer = await secured.read_all()

    assert answer.startswith(b"HTTP/1.1 503 ") and b"this node is leaving" in answer
