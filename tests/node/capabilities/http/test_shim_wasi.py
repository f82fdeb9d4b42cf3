"""What the shim gives of WASI beside HTTP, and how guests inside it end."""

from __future__ import annotations

import time

import anyio
import pytest

from lattice import streams
from lattice.clock import now
from lattice.errors import LatticeError, TimedOut, Trapped
from lattice.http import HttpResponse
from node.capabilities.http.handler import make_handler
from node.capabilities.http.host_handler import HostHandler
from node.capabilities.http.shim_handler import ShimHandler
from node.engine.compiled import Form
from node.engine.compiler import Compiler
from node.engine.host import GuestCall, HostInterface
from node.http.handler import response_of
from tests.node.capabilities.http.conftest import Handlers, context
from tests.node.capabilities.http.shims import Shims, request

GUEST = "tests/node/capabilities/http/shim_guest/guest.wasm"
HELLO = "examples/http-hello/c/http-hello.wasm"


def _get(call: GuestCall, key: str) -> str | None:
    return f"value of {key}" if key == "known" else None


STORE = HostInterface(name="demo:kv/store", functions={"get": _get})


async def _answer(shims: Shims, path: str, *, reuse: int = 1) -> bytes:
    handler = await shims.make(GUEST, imports=(STORE,), reuse=reuse)
    return _whole(await response_of(handler, request(path=path), context()))


def _whole(response: HttpResponse) -> bytes:
    assert isinstance(response.body, bytes)
    return response.body


async def test_sleeping_takes_its_time_and_no_longer(shims: Shims) -> None:
    assert 29 <= int(await _answer(shims, "/sleep")) < 10_000


async def test_the_first_of_several_timers_ends_the_wait(shims: Shims) -> None:
    assert await _answer(shims, "/timers") == b"1:1"


async def test_the_time_of_day_is_real(shims: Shims) -> None:
    assert abs(int(await _answer(shims, "/now")) - time.time()) < 60


async def test_no_two_requests_see_the_same_random_numbers(shims: Shims) -> None:
    handler = await shims.make(GUEST, imports=(STORE,), reuse=10)

    answers = {_whole(await response_of(handler, request(path="/random"), context())) for _ in range(3)}

    assert len(answers) == 3
    assert {len(answer) for answer in answers} == {2 * 124}


async def test_the_environment_is_that_of_the_settings(shims: Shims) -> None:
    shims.environment = {"NAME": "välue", "LINES": "a\nb", "EMPTY": ""}

    assert (await _answer(shims, "/environment")).decode() == "NAME=välue;LINES=a\nb;EMPTY=;-guest"


async def test_what_a_guest_prints_goes_to_the_log(shims: Shims) -> None:
    assert await _answer(shims, "/print") == b"printed"

    assert shims.printed == [("stdout", "to the öutput\n".encode()), ("stderr", b"\xff\xfe")]


async def test_standard_input_is_empty_and_no_folder_is_open(shims: Shims) -> None:
    assert await _answer(shims, "/input") == b"closed"
    assert await _answer(shims, "/folders") == b"0"


async def test_imports_that_are_not_wasis_come_from_the_host(shims: Shims) -> None:
    assert await _answer(shims, "/kept/known") == b"value of known"
    assert await _answer(shims, "/kept/other") == b"nothing"


async def test_other_exports_can_be_called_and_have_wasi_too(shims: Shims) -> None:
    await shims.make(GUEST, imports=(STORE,), reuse=5)
    pool = shims.pools[0]

    answers = {await pool.call("demo:greeter/greet", "hello", ["Ada"], context()) for _ in range(3)}

    assert {answer.partition("! ")[0] for answer in answers} == {"Hello, Ada"}
    assert len(answers) == 3  # their random numbers differ
    assert shims.printed == [("stdout", b"greeting\n")] * 3


async def test_what_a_guest_flushed_leaves_while_it_waits(shims: Shims) -> None:
    handler = await shims.make(GUEST, imports=(STORE,))

    response = await response_of(handler, request(path="/events"), context())

    assert not isinstance(response.body, bytes)
    async with response.body as body:
        assert [chunk async for chunk in body] == [b"event\n"] * 3


async def test_a_response_that_is_whole_leaves_although_its_guest_exits(shims: Shims) -> None:
    handler = await shims.make(GUEST, imports=(STORE,), reuse=10)

    for _ in range(2):
        response = await response_of(handler, request(path="/last-words"), context())
        assert _whole(response) == b"unknown"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/exit", "exited with status 1"),
        ("/broken-words", "exited with status 0"),
        ("/recurse", "stack|memory out of bounds"),
    ],
)
async def test_a_guest_that_ends_itself_fails_its_request_only(shims: Shims, path: str, words: str) -> None:
    handler = await shims.make(GUEST, imports=(STORE,), reuse=10)

    with pytest.raises(Trapped, match=words):
        await response_of(handler, request(path=path), context())
    assert (await response_of(handler, request(path="/folders"), context())).status == 200


async def test_an_endless_loop_ends_with_its_budget(shims: Shims) -> None:
    handler = await shims.make(GUEST, imports=(STORE,))

    with pytest.raises(TimedOut):
        await response_of(handler, request(path="/spin"), context(0.05))


async def test_a_guest_gets_no_more_memory_than_its_limit(shims: Shims) -> None:
    handler = await shims.make(GUEST, imports=(STORE,), memory_bytes=16 << 20)

    pages = int(_whole(await response_of(handler, request(path="/grow"), context())))

    assert 0 < pages <= 256


async def test_a_reused_instance_serves_any_number_of_requests_in_the_same_memory(shims: Shims) -> None:
    handler = await shims.make(GUEST, imports=(STORE,), reuse=10_000, memory_bytes=1 << 20)

    for _ in range(500):
        assert (await response_of(handler, request(path="/print", body=b"x" * 2000), context())).status == 200
    assert shims.pools[0].statistics().instances_made == 1


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 63, 64, 65, 4095, 4096, 4097, 65_535, 65_536])
@pytest.mark.parametrize("filling", [b"a", b"\xff", "ö".encode()], ids=["ascii", "binary", "text"])
async def test_bodies_of_any_size_and_content_come_back(shims: Shims, size: int, filling: bytes) -> None:
    handler = await shims.make("examples/http-echo/c/http-echo.wasm")
    body = (filling * size)[:size]

    response = await response_of(handler, request("POST", body=body), context())

    assert _whole(response) == body


@pytest.mark.parametrize("path", ["/a\nb", "/\n\n", "/x\nhost:y"])
async def test_a_request_that_holds_an_end_of_line_is_refused(shims: Shims, path: str) -> None:
    handler = await shims.make(HELLO)

    with pytest.raises(LatticeError, match="end of line"):
        await response_of(handler, request(path=path), context())


async def test_a_budget_that_is_over_begins_nothing(shims: Shims) -> None:
    handler = await shims.make(HELLO)

    with pytest.raises(TimedOut):
        await response_of(handler, request(), context(-1))
    assert shims.pools[0].statistics().instances_made == 0
    assert now() > 0


async def test_a_component_compiled_plainly_is_served_by_the_host(handlers: Handlers, shims: Shims) -> None:
    plain = await handlers.pool(HELLO)
    await shims.make(HELLO)

    assert isinstance(make_handler(plain), HostHandler)
    assert isinstance(make_handler(shims.pools[0]), ShimHandler)


async def test_both_forms_of_a_component_are_kept_apart(compiler: Compiler, shims: Shims) -> None:
    binary = (shims.root / HELLO).read_bytes()

    plain = await compiler.compile(binary, form=Form.PLAIN)
    shimmed = await compiler.compile(binary)

    assert (plain.is_shimmed, shimmed.is_shimmed) == (False, True)
    assert plain.type == shimmed.type
    assert plain.digest == shimmed.digest
    assert plain.path != shimmed.path


async def test_many_requests_at_a_time_are_answered_each_by_its_own_guest(shims: Shims) -> None:
    handler = await shims.make(HELLO, slots=16)
    answers: dict[int, bytes] = {}

    async def ask(number: int) -> None:
        answers[number] = _whole(await response_of(handler, request(path=f"/{number}"), context()))

    async with anyio.create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(ask, number)

    assert answers == {number: f"Hello from C: /{number}\n".encode() for number in range(16)}


@pytest.mark.parametrize("chunk", [b"a" * 65_536, bytes(range(256)) * 256], ids=["text", "binary"])
async def test_a_long_body_passes_through_little_memory(shims: Shims, chunk: bytes) -> None:
    handler = await shims.make("examples/http-echo/c/http-echo.wasm", memory_bytes=2 << 20)
    sender, receiver = streams.pair()
    count, received = 200, 0

    async def send() -> None:
        for _ in range(count):
            await sender.send(chunk)
        await sender.end()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        response = await response_of(handler, request("POST", body=receiver), context(30))
        assert not isinstance(response.body, bytes)
        async with response.body as body:
            async for part in body:
                received += len(part)

    assert received == count * len(chunk)
