"""Requests through host functions into real components."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from lattice import streams
from lattice.errors import Interrupted, LatticeError, NotFound, TimedOut, Trapped
from lattice.http import HttpRequest
from node.capabilities.http.errors import HttpError
from node.capabilities.http.host_handler import HostHandler
from node.http.handler import response_of
from tests.node.capabilities.http.client_requests import check_echo_while_sending, whole_body
from tests.node.capabilities.http.conftest import Handlers, context
from tests.waiting import until

HELLO = "examples/http-hello/c/http-hello.wasm"
ECHO = "examples/http-echo/c/http-echo.wasm"
LAB = Path(__file__).parent / "guest" / "lab.wasm"
MEBIBYTE = 1024 * 1024


def _request(method: str = "GET", path: str = "/", **fields: Any) -> HttpRequest:
    return HttpRequest(method=method, scheme="http", authority="example.com", path=path, **fields)


@pytest.fixture
async def lab(handlers: Handlers) -> HostHandler:
    return await handlers.make(LAB)


async def _lines(lab: HostHandler, path: str, **fields: Any) -> dict[str, str]:
    body = await whole_body(await response_of(lab, _request(path=path, **fields), context()))
    return dict(line.split("=") for line in body.decode().splitlines() if "=" in line)


async def test_a_small_response_is_whole(handlers: Handlers) -> None:
    handler = await handlers.make(HELLO)

    for _ in range(5):  # a guest that is interrupted before it has finished gives a stream
        response = await response_of(handler, _request(path="/x"), context())
        assert response.status == 200
        if isinstance(response.body, bytes):
            break
        await response.body.aclose()

    assert isinstance(response.body, bytes)
    assert b"ello" in response.body


async def test_the_guest_sees_method_scheme_authority_path_and_headers(lab: HostHandler) -> None:
    headers = (("a", b"1"), ("b", b"\xe9"), ("a", b"2"), ("connection", b"close"), ("host", b"x"))

    response = await response_of(lab, _request("PATCH", "/describe?q=%20", headers=headers), context())

    assert await whole_body(response) == (
        b"method=8\nscheme=0\nexample.com\n/describe?q=%20\na: 1\na: 2\nb: \xe9\n"
    )


async def test_methods_without_a_case_keep_their_name(lab: HostHandler) -> None:
    response = await response_of(lab, _request("PURGE", "/describe"), context())

    assert (await whole_body(response)).startswith(b"method=9\nPURGE\n")


async def test_fields_are_checked_as_native_hosts_do(lab: HostHandler) -> None:
    found = await _lines(lab, "/fields")

    assert found == {
        "append": "0", "again": "0", "split": "1", "name": "1", "forbidden": "2", "immutable": "3",
        "get": "2", "entries": "2", "clone": "0", "set": "0", "set-invalid": "1", "delete": "0", "has": "0",
        "from-list": "0", "from-list-forbidden": "2",
    }  # fmt: skip


async def test_what_can_be_taken_once_can_be_taken_once(lab: HostHandler) -> None:
    found = await _lines(lab, "/once", body=b"x")

    assert found == {
        "consume": "1", "stream": "1", "body": "1", "write": "1", "status": "1", "headers": "3",
    }  # fmt: skip


async def test_a_length_that_is_no_number_has_no_body(lab: HostHandler) -> None:
    assert await _lines(lab, "/length") == {"length": "1"}


async def test_bodies_that_break_their_announced_length_are_refused(lab: HostHandler) -> None:
    found = await _lines(lab, "/sizes")

    body_size = "28"  # the case `HTTP-response-body-size`
    assert found == {"short": body_size, "long": "1", "long-code": body_size, "exact": "255"}


async def test_a_small_body_is_echoed(handlers: Handlers) -> None:
    handler = await handlers.make(ECHO)

    response = await response_of(handler, _request("POST", body=b"abc" * 100), context())

    assert response.body == b"abc" * 100


async def test_the_response_comes_before_the_requests_body_has_ended(handlers: Handlers) -> None:
    handler = await handlers.make(ECHO)
    sender, receiver = streams.pair()

    response = await response_of(handler, _request("POST", body=receiver), context())
    await check_echo_while_sending(sender, response)


async def test_a_guest_waits_while_nobody_takes_its_body(handlers: Handlers) -> None:
    handler = await handlers.make(LAB)

    response = await response_of(handler, _request(path="/chunks/100000"), context())
    assert not isinstance(response.body, bytes)
    async with response.body as body:
        total = 0
        while total < 4 * MEBIBYTE:
            total += len(await body.receive())

    await until(lambda: handlers.pools[0].statistics().in_flight == 0)  # closing the stream ended the guest


@pytest.mark.slow
async def test_much_passes_through_both_ways(handlers: Handlers) -> None:
    handler = await handlers.make(ECHO)
    sender, receiver = streams.pair()
    chunk = bytes(range(256)) * 256
    total = 0

    async with anyio.create_task_group() as tasks:

        async def send() -> None:
            for _ in range(1024):
                await sender.send(chunk)
            await sender.end()

        tasks.start_soon(send)
        response = await response_of(handler, _request("POST", body=receiver), context(60))
        assert not isinstance(response.body, bytes)
        async with response.body as body:
            async for part in body:
                total += len(part)

    assert total == 64 * MEBIBYTE


async def test_trailers_pass_in_both_directions(lab: HostHandler) -> None:
    sender, receiver = streams.pair()
    await sender.send(b"body that is not read")
    await sender.end({"x-sum": "7"})

    response = await response_of(lab, _request("POST", "/trailers", body=receiver), context())

    assert await whole_body(response) == b"again=1\ntrailers=1\n"
    assert dict(response.trailers) == {"x-sum": b"7"}


async def test_a_request_without_trailers_has_none(lab: HostHandler) -> None:
    assert await _lines(lab, "/trailers", body=b"abc") == {"again": "1", "trailers": "0"}


# Faults of guests


@pytest.mark.parametrize(
    "fault",
    ["trap", "drop-incoming", "large", "drop-early", "watched"],
)
async def test_faults_that_native_hosts_trap_end_the_call(lab: HostHandler, fault: str) -> None:
    with pytest.raises(Trapped):
        await whole_body(await response_of(lab, _request(path=f"/fault/{fault}"), context()))


async def test_a_body_is_whole_that_was_finished_with_its_stream_still_held(lab: HostHandler) -> None:
    response = await response_of(lab, _request(path="/fault/finish-early"), context())

    assert await whole_body(response) == b"early"


async def test_a_body_takes_what_there_is_room_for_though_its_guest_did_not_ask(lab: HostHandler) -> None:
    response = await response_of(lab, _request(path="/fault/unaskedfinish"), context())

    assert await whole_body(response) == b"early\0"


async def test_a_guest_that_hoards_fields_is_ended(lab: HostHandler) -> None:
    with pytest.raises(Trapped):
        await response_of(lab, _request(path="/fault/hoard"), context())


async def test_a_guest_that_sets_no_response_is_an_error(lab: HostHandler) -> None:
    with pytest.raises(Trapped, match="without setting a response"):
        await response_of(lab, _request(path="/fault/nothing"), context())


async def test_an_error_code_as_response_is_that_error(lab: HostHandler) -> None:
    with pytest.raises(HttpError) as caught:
        await response_of(lab, _request(path="/fault/error"), context())

    assert caught.value.error_code == {"configuration-error": None}


@pytest.mark.parametrize("fault", ["mid-trap", "leak", "drop", "sized-finish"])
async def test_a_body_that_was_not_finished_is_never_taken_for_whole(lab: HostHandler, fault: str) -> None:
    response = await response_of(lab, _request(path=f"/fault/{fault}"), context())

    assert not isinstance(response.body, bytes)
    assert await response.body.receive() == b"early"
    with pytest.raises(LatticeError):
        await response.body.receive()


async def test_a_length_that_was_announced_and_never_written_is_an_error(lab: HostHandler) -> None:
    with pytest.raises(HttpError, match="HTTP-response-body-size"):
        await response_of(lab, _request(path="/fault/unwritten"), context())


async def test_a_response_to_head_may_announce_what_it_does_not_send(lab: HostHandler) -> None:
    response = await response_of(lab, _request("HEAD", "/fault/unwritten"), context())

    assert ("content-length", b"100") in response.headers


async def test_a_request_body_that_breaks_ends_as_an_error_for_the_guest(handlers: Handlers) -> None:
    handler = await handlers.make(ECHO)
    sender, receiver = streams.pair()

    response = await response_of(handler, _request("POST", body=receiver), context())
    assert not isinstance(response.body, bytes)
    await sender.send(b"one")
    await sender.fail(Interrupted("the client went away"))

    assert await response.body.receive() == b"one"
    with pytest.raises(anyio.EndOfStream):
        await response.body.receive()


async def test_cancelling_a_request_ends_its_guest(handlers: Handlers) -> None:
    handler = await handlers.make(LAB)
    _, receiver = streams.pair()

    with anyio.move_on_after(0.05):
        await response_of(handler, _request("POST", "/trailers", body=receiver), context())

    await until(lambda: handlers.pools[0].statistics().in_flight == 0)


async def test_a_budget_that_ends_is_told(handlers: Handlers) -> None:
    handler = await handlers.make(LAB)
    _, receiver = streams.pair()

    with pytest.raises(TimedOut):
        await response_of(handler, _request("POST", "/trailers", body=receiver), context(0.05))


async def test_a_reused_guest_answers_after_each_fault(handlers: Handlers) -> None:
    handler = await handlers.make(LAB, reuse=100, slots=1)

    for fault in ("nothing", "trap", "error"):
        with pytest.raises(LatticeError):
            await response_of(handler, _request(path=f"/fault/{fault}"), context())
        assert (await response_of(handler, _request(path="/describe"), context())).status == 200


async def test_a_component_without_a_handler_is_told_so(handlers: Handlers) -> None:
    with pytest.raises(NotFound, match="incoming-handler"):
        await handlers.make("examples/calculator/calculator.wasm")
