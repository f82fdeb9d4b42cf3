"""Requests to those servers, and what tests want to know of their responses."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from lattice.http import HttpRequest, HttpResponse
from lattice.streams import ByteSender
from node.capabilities.http.client import HttpClient, RequestOptions
from node.capabilities.http.errors import HttpError
from node.capabilities.http.policy import OutgoingPolicy
from tests.node.capabilities.http.servers import Server

LOOPBACK = OutgoingPolicy.parse(["127.0.0.1", "localhost"])
MEBIBYTE = 1024 * 1024


def request_to(server: Server, method: str = "GET", path: str = "/", **fields: Any) -> HttpRequest:
    """A request to one of the tests' servers."""
    return HttpRequest(method=method, scheme="http", authority=server.authority, path=path, **fields)


def request_of(authority: str, scheme: str = "http") -> HttpRequest:
    """A request to whatever is there."""
    return HttpRequest(method="GET", scheme=scheme, authority=authority, path="/")


async def send(client: HttpClient, request: HttpRequest, **options: float) -> HttpResponse:
    """What a request of somebody is answered who may reach this machine."""
    return await client.send(request, RequestOptions(**options), LOOPBACK)


async def error_case(client: HttpClient, request: HttpRequest, **options: float) -> str:
    """The error code that the request, or the body of its response, ends with."""
    with pytest.raises(HttpError) as caught:
        await whole_body(await send(client, request, **options))
    return caught.value.case


async def whole_body(response: HttpResponse) -> bytes:
    """The body of a response, to its end."""
    if isinstance(response.body, bytes):
        return response.body
    async with response.body as body:
        return b"".join([chunk async for chunk in body])


async def check_echo_while_sending(sender: ByteSender, response: HttpResponse) -> None:
    """Each part that is sent of a request comes back before the next, and the end after the last."""
    assert not isinstance(response.body, bytes)
    for part in (b"one", b"two"):
        await sender.send(part)
        assert await response.body.receive() == part
    await sender.end()
    with pytest.raises(anyio.EndOfStream):
        await response.body.receive()
