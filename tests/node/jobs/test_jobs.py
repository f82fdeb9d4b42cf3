"""Commands run once, of both kinds: what they read and write, how they end, and who may end them."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
import wasmtime

from lattice import streams
from lattice.errors import Denied, Invalid, NotFound, Overloaded, Unreachable
from lattice.exchange import Exchange
from lattice.jobs import STOPPED, TIMED_OUT, TRAPPED, OutputReader
from lattice.tasks import open_tasks
from node.engine.configuration import EngineSettings
from node.engine.engine import Engine
from tests.node.jobs.bench import EXAMPLES, KINDS, TOOL, TOOL_MODULE, Bench, finish, make_bench

pytestmark = pytest.mark.slow

LINK = {"interface": "wasi:keyvalue", "target": "cache", "configuration": {"bucket": "a"}}


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled code is kept for all tests of the file."""
    return tmp_path_factory.mktemp("code")


@pytest.fixture
async def bench(code: Path, tmp_path: Path) -> AsyncIterator[Bench]:
    (tmp_path / "shared").mkdir()
    (tmp_path / "fixed").mkdir()
    async with open_tasks() as tasks, Engine(EngineSettings(max_instances=50)) as engine:
        bench = await anyio.to_thread.run_sync(
            lambda: make_bench(engine, code, shared=tmp_path / "shared", fixed=tmp_path / "fixed")
        )
        bench.jobs.start(tasks)
        yield bench
        await bench.jobs.aclose()
        tasks.cancel_scope.cancel()
    assert engine.instances == 0


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Path:
    """A component, then a core module."""
    return KINDS[request.param]


async def first_line(exchange: Exchange) -> bytes:
    """Wait until the guest has said something."""
    assert exchange.body is not None
    reader, line = OutputReader(), b""
    while not line.endswith(b"\n"):
        line += b"".join(piece for _, piece in reader.feed(await exchange.body.receive()))
    return line


async def test_input_comes_out_unchanged(bench: Bench, kind: Path) -> None:
    data = secrets.token_bytes(3_000_000)

    result = await bench.run(kind, "cat", given=data)

    assert (result.code, result.err) == (0, b"")
    assert result.out == data


async def test_output_of_any_size_waits_for_its_reader(bench: Bench, kind: Path) -> None:
    result = await bench.run(kind, "fill", "5000000")

    assert result.out == b"x" * 5_000_000


async def test_output_and_error_are_told_apart(bench: Bench, kind: Path) -> None:
    result = await bench.run(kind, "both")

    assert (result.out, result.err) == (b"to the output\n", b"to the error\n")


async def test_a_command_without_input_sees_its_end(bench: Bench, kind: Path) -> None:
    assert (await bench.run(kind, "count")).out == b"0\n"


async def test_environment_and_arguments_are_the_jobs(bench: Bench, kind: Path) -> None:
    assert (await bench.run(kind, "env", "COLOUR", environment={"COLOUR": "blue"})).out == b"blue\n"
    assert (await bench.run(kind, "env", "HOME")).code == 1
    assert b"usage: tool" in (await bench.run(kind)).err


@pytest.mark.parametrize("status", [0, 1, 7, 255])
async def test_a_module_ends_with_its_very_exit_code(bench: Bench, status: int) -> None:
    assert (await bench.run(TOOL_MODULE, "exit", str(status))).code == status


async def test_a_component_of_wasi_0_2_tells_success_from_failure(bench: Bench) -> None:
    assert [(await bench.run(TOOL, "exit", status)).code for status in ("0", "7")] == [0, 1]


EXITS = """(component
  (import "wasi:cli/exit@0.2.12" (instance $exit
    (export "exit-with-code" (func (param "status-code" u8)))))
  (alias export $exit "exit-with-code" (func $exit-with-code))
  (core func $lowered (canon lower (func $exit-with-code)))
  (core module $m
    (import "" "exit" (func $exit (param i32)))
    (func (export "run") (result i32) (call $exit (i32.const CODE)) i32.const 0))
  (core instance $i (instantiate $m (with "" (instance (export "exit" (func $lowered))))))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $exports (export "run" (func $run)))
  (export "wasi:cli/run@0.2.12" (instance $exports)))
"""


@pytest.mark.parametrize("status", [0, 42, 255])
async def test_a_component_that_exits_with_a_code_ends_with_it(bench: Bench, status: int) -> None:
    component = bytes(wasmtime.wat2wasm(EXITS.replace("CODE", str(status))))

    async with await bench.begin(component) as exchange:
        assert (await finish(exchange)).code == status


LIBRARY = """
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (global $status (mut i32) (i32.const 0))
  (func (export "_initialize") (global.set $status (i32.const 7)))
  (func (export "") (call $exit (global.get $status))))
"""


async def test_a_library_with_a_function_without_a_name_is_run_by_it(bench: Bench) -> None:
    module = bytes(wasmtime.wat2wasm(LIBRARY))

    async with await bench.begin(module) as exchange:
        assert (await finish(exchange)).code == 7


async def test_a_trap_has_a_code_and_a_reason(bench: Bench, kind: Path) -> None:
    result = await bench.run(kind, "abort")

    assert result.code == TRAPPED
    assert "unreachable" in result.outcome.reason


async def test_a_job_that_computes_for_too_long_is_ended(bench: Bench, kind: Path) -> None:
    result = await bench.run(kind, "spin", timeout_seconds=2)

    assert (result.code, result.out) == (TIMED_OUT, b"spinning\n")
    assert result.outcome.reason == "it ran for 2 s"


async def test_a_job_that_sleeps_for_too_long_is_ended(bench: Bench, kind: Path) -> None:
    with anyio.fail_after(5):
        assert (await bench.run(kind, "sleep", "60000", timeout_seconds=0.7)).code == TIMED_OUT


async def test_memory_is_limited(bench: Bench, kind: Path) -> None:
    result = await bench.run(kind, "grow", "100", memory_bytes=24 << 20)

    assert result.code in (1, 9)
    assert b"no memory after" in result.err


@pytest.mark.parametrize("word", ["spin", "sleep", "cat"])
async def test_a_job_ends_when_its_reader_leaves(bench: Bench, kind: Path, word: str) -> None:
    _, body = streams.pair()
    async with await bench.begin(kind, word, "60000", body=body) as exchange:
        if word != "cat":
            await first_line(exchange)

    with anyio.fail_after(5):
        await bench.jobs.drain()
    assert [name for name, _ in bench.events] == ["job.started", "job.ended"]


async def test_a_job_shares_its_grants_with_no_component_of_its_name(bench: Bench) -> None:
    async with await bench.begin(TOOL, "sleep", "60000", environment={"A": "b"}) as exchange:
        granted = bench.jobs.spec_of(exchange.value["job"])

        assert bench.jobs.spec_of("tool") is None
        assert granted is not None and granted.environment == {"A": "b"}
        assert exchange.value["job"].startswith("tool-")


async def test_a_jobs_links_are_its_own_and_told_of_until_it_ends(bench: Bench) -> None:
    bench.warnings = ["nobody offers it"]
    async with await bench.begin(TOOL, "sleep", "60000", links=[LINK]) as exchange:
        await first_line(exchange)
        job = exchange.value["job"]
        (link,) = bench.jobs.links_of(job) or ()

        assert (link.source, link.target) == (job, "cache")
        assert bench.jobs.links_of("tool") is None
        assert bench.linked == [(job, (link,))]
        assert exchange.value["warnings"] == ["nobody offers it"]
        assert bench.jobs.list()[0]["links"] == ["wasi:keyvalue=cache"]

    await bench.jobs.drain()
    assert bench.linked == [(job, (link,)), (job, ())]
    assert bench.jobs.links_of(job) is None


async def test_of_a_job_without_links_nobody_is_told(bench: Bench) -> None:
    await bench.run(TOOL, "both")

    assert bench.linked == []
    assert [spec.links for spec in bench.checked] == [()]


async def test_no_job_can_have_the_links_of_another_source(bench: Bench) -> None:
    spec = bench.spec(TOOL, "both", links=[LINK]).to_dict()
    spec["links"][0]["source"] = "shop"

    with pytest.raises(Invalid, match="link source 'shop' is not the job 'tool'"):
        await bench.jobs.exchange(bench.request(), [spec], None)
    assert bench.linked == []


async def test_what_is_refused_does_not_begin(bench: Bench) -> None:
    bench.refusal = Denied("grant it")

    with pytest.raises(Denied, match="grant it"):
        await bench.begin(TOOL, "both", links=[LINK])
    assert (bench.jobs.list(), bench.events) == ([], [])


async def test_a_job_can_be_stopped_by_its_id(bench: Bench, kind: Path) -> None:
    async with await bench.begin(kind, "sleep", "60000") as exchange:
        await first_line(exchange)
        assert [job["job"] for job in bench.jobs.list()] == [exchange.value["job"]]
        bench.jobs.stop(exchange.value["job"])
        with anyio.fail_after(5):
            result = await finish(exchange)

    assert (result.code, result.outcome.reason) == (STOPPED, "it was stopped")
    with pytest.raises(NotFound, match="it may be over"):
        bench.jobs.stop("1234")


async def test_a_detached_job_goes_on_and_its_output_is_logged(bench: Bench, kind: Path) -> None:
    exchange = await bench.begin(kind, "both", is_detached=True)

    assert exchange.body is None
    with anyio.fail_after(5):
        await bench.jobs.drain()
    job = exchange.value["job"]
    assert sorted(bench.printed) == [(job, "stderr", b"to the error"), (job, "stdout", b"to the output")]
    assert bench.jobs.remembers(job) and not bench.jobs.remembers("tool")
    assert bench.events[-1][1]["exit_code"] == 0


async def test_no_more_jobs_run_than_the_node_takes(bench: Bench) -> None:
    running = [await bench.begin(TOOL_MODULE, "sleep", "60000") for _ in range(4)]

    with pytest.raises(Overloaded, match=r"4 jobs already; .* `lattice-node start --max-jobs N`"):
        await bench.begin(TOOL_MODULE, "both")
    for exchange in running:
        await exchange.aclose()


async def test_folders_are_seen_as_granted(bench: Bench, kind: Path, tmp_path: Path) -> None:
    grant = {"folder": "shared", "path": "/data", "writable": True}

    written = await bench.run(kind, "write", "/data/note", given=b"hello", folders=[grant])
    read = await bench.run(kind, "read", "/data/note", folders=[{**grant, "writable": False}])
    refused = await bench.run(
        kind, "write", "/data/note", given=b"again", folders=[{**grant, "writable": False}]
    )
    absent = await bench.run(kind, "read", "/data/note")

    assert (written.code, read.out) == (0, b"hello")
    assert refused.code in (1, 2)
    assert absent.code in (1, 2)
    assert await anyio.Path(tmp_path / "shared/note").read_bytes() == b"hello"


async def test_a_folder_that_is_not_open_here_may_be_elsewhere(bench: Bench, kind: Path) -> None:
    with pytest.raises(Unreachable, match="--folder other=PATH"):
        await bench.begin(kind, "both", folders=[{"folder": "other", "path": "/data"}])
    with pytest.raises(Unreachable, match="not open for writing"):
        await bench.begin(kind, "both", folders=[{"folder": "fixed", "path": "/data", "writable": True}])


async def test_what_is_no_command_is_refused_with_a_hint(bench: Bench) -> None:
    with pytest.raises(Invalid, match=r"no command: it exports demo:greeter/greet.*`latticectl deploy`"):
        await bench.begin(EXAMPLES / "greeter/c/greeter.wasm")
    with pytest.raises(Invalid, match="has no function `_start`"):
        await bench.begin(b"\0asm\x01\x00\x00\x00")
    with pytest.raises(Invalid, match="this is text"):
        await bench.begin(b"#!/bin/sh")
    assert bench.jobs.list() == []


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"network": ["tcp:10.0.0.1:80"]}, "--network"),
        ({"allow_hosts": ["example.com"]}, "--allow-host"),
        ({"configuration": {"a": "b"}, "configuration_from": ["shop"]}, "--config, --config-from"),
        ({"secrets": {"password": "db"}}, "--secret"),
        ({"links": [LINK]}, "--link"),
    ],
)
async def test_a_core_module_is_told_what_it_can_not_use(
    bench: Bench, fields: dict[str, Any], options: str
) -> None:
    with pytest.raises(Invalid, match=rf"a core module can't use {options}: .*build it as a component"):
        await bench.begin(TOOL_MODULE, **fields)
    assert bench.jobs.list() == []


async def test_an_import_that_nothing_grants_keeps_it_from_beginning(bench: Bench) -> None:
    with pytest.raises((Denied, Invalid)):
        await bench.begin(EXAMPLES / "greeter-kv/c/greeter-kv.wasm")


async def test_a_call_of_a_component_begins_no_job(bench: Bench) -> None:
    request = replace(bench.request(), component="tool")

    with pytest.raises(Denied, match="names 'lattice-jobs'"):
        await bench.jobs.exchange(request, [bench.spec(TOOL, "both").to_dict()], None)
    assert bench.jobs.list() == []


async def test_a_caller_that_gives_no_program_is_refused(bench: Bench) -> None:
    wrong: tuple[Any, ...] = ([], [1], [{}], {"a": 1})
    for args in wrong:
        with pytest.raises(Invalid):
            await bench.jobs.exchange(bench.request(), args, None)
