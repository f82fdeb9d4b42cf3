"""Where the client connects to: what a policy allows, and what names lead to."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import anyio
import pytest
from structlog.testing import capture_logs

from lattice.http import HttpRequest
from node.capabilities.http.client import HttpClient, RequestOptions
from node.capabilities.http.connector import HttpClientSettings
from node.capabilities.http.errors import HttpError
from node.capabilities.http.policy import OutgoingPolicy
from tests.node.capabilities.http.client_requests import LOOPBACK, request_of
from tests.node.capabilities.http.servers import answering, ok


def _resolving(*addresses: str) -> HttpClientSettings:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return HttpClientSettings(resolve=resolve)


async def test_what_is_not_granted_is_denied_and_logged_with_the_cure(client: HttpClient) -> None:
    request = request_of("api.example.com", "https")

    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(HttpError) as caught:
                await client.send(request, component="greeter")

    assert caught.value.error_code == {"HTTP-request-denied": None}
    assert len(logs) == 1
    assert logs[0]["component"] == "greeter"
    assert "`--allow-host api.example.com`" in logs[0]["reason"]


async def test_a_name_that_leads_inside_is_denied_after_it_was_resolved() -> None:
    policy = OutgoingPolicy.parse(["*"])
    async with answering(ok()) as server, HttpClient(_resolving("127.0.0.1")) as client:
        request = HttpRequest(
            method="GET", scheme="http", authority=f"rebound.example:{server.port}", path="/"
        )
        with capture_logs() as logs, pytest.raises(HttpError) as caught:
            await client.send(request, policy=policy)

    assert caught.value.case == "destination-IP-prohibited"
    assert server.connections == 0
    assert "`--allow-host 127.0.0.1`" in logs[0]["reason"]


async def test_of_several_addresses_only_those_allowed_are_connected_to() -> None:
    policy = OutgoingPolicy.parse(["mixed.example", "127.0.0.0/8"])
    async with answering(ok()) as server, HttpClient(_resolving("169.254.169.254", "127.0.0.1")) as client:
        request = request_of(f"mixed.example:{server.port}")
        response = await client.send(request, policy=policy)

    assert response.status == 200


async def test_a_kept_connection_serves_only_those_who_may_reach_its_address() -> None:
    async with answering(ok()) as server, HttpClient(_resolving("127.0.0.1")) as client:
        request = request_of(f"inner.example:{server.port}")
        await client.send(request, policy=OutgoingPolicy.parse(["inner.example", "127.0.0.1"]))
        with capture_logs(), pytest.raises(HttpError, match="destination-IP-prohibited"):
            await client.send(request, policy=OutgoingPolicy.parse(["*.example"]))


async def test_the_next_address_is_tried() -> None:
    policy = OutgoingPolicy.parse(["two.example", "127.0.0.0/8"])
    async with answering(ok()) as server, HttpClient(_resolving("127.0.0.9", "127.0.0.1")) as client:
        request = request_of(f"two.example:{server.port}")

        assert (await client.send(request, policy=policy)).status == 200


@pytest.mark.parametrize(
    ("error", "case"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no"), {"DNS-error": {"rcode": "NXDOMAIN", "info-code": None}}),
        (socket.gaierror(socket.EAI_AGAIN, "no"), {"DNS-error": {"rcode": "SERVFAIL", "info-code": None}}),
    ],
)
async def test_names_that_can_not_be_resolved_are_told(error: OSError, case: object) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise error

    async with HttpClient(HttpClientSettings(resolve=resolve)) as client:
        request = request_of("no.example")
        with pytest.raises(HttpError) as caught:
            await client.send(request, policy=OutgoingPolicy.parse(["*"]))

    assert caught.value.error_code == case


async def test_looking_up_a_name_times_out() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        await anyio.sleep_forever()
        return ()

    async with HttpClient(HttpClientSettings(resolve=resolve)) as client:
        request = request_of("slow.example")
        with pytest.raises(HttpError) as caught:
            await client.send(request, RequestOptions(connect_timeout=0.02), OutgoingPolicy.parse(["*"]))

    assert caught.value.case == "DNS-timeout"


async def test_localhost_is_resolved_by_the_system(client: HttpClient) -> None:
    async with answering(ok()) as server:
        request = request_of(f"localhost:{server.port}")

        assert (await client.send(request, policy=LOOPBACK)).status == 200
