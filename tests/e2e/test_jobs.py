"""`latticectl run` against real nodes: bytes, exit codes, placing, and the ways in which a job is ended."""

from __future__ import annotations

import secrets
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from ctl.client import ControlClient
from tests.e2e.processes import EXAMPLES, GREETER, LATTICECTL, Done, Lattice, until

pytestmark = pytest.mark.slow

TOOL = EXAMPLES / "tool-command/c/tool.wasm"
MODULE = EXAMPLES / "tool-command/c/tool.wasip1.wasm"
AT_ONCE_SECONDS = 10.0


@pytest.fixture(params=[TOOL, MODULE], ids=["component", "module"])
def tool(request: pytest.FixtureRequest) -> str:
    """The same command in both forms."""
    return str(request.param)


async def run(lattice: Lattice, *words: str, given: bytes = b"") -> tuple[int, bytes, str]:
    """Exit code, output and error of `latticectl run`."""
    command = [*LATTICECTL, "run", *words]
    done = await anyio.run_process(command, input=given, check=False, env=lattice.environment)
    return done.returncode, done.stdout, done.stderr.decode()


@asynccontextmanager
async def begun(lattice: Lattice, *words: str) -> AsyncIterator[anyio.abc.Process]:
    """A job that has written its first line, with an input that does not end."""
    command = [*LATTICECTL, "run", *words]
    async with await anyio.open_process(
        command, stdin=subprocess.PIPE, env=lattice.environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        with anyio.fail_after(20):
            await process.stdout.receive()
        yield process
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def jobs_end(client: ControlClient) -> None:
    """Return when no job runs; fails if that takes long."""

    async def is_idle() -> bool:
        return not await client.jobs()

    await until(is_idle, seconds=AT_ONCE_SECONDS, what="all jobs have ended")


async def test_bytes_of_any_kind_go_through(lattice: Lattice, tool: str) -> None:
    data = secrets.token_bytes(2_000_000)

    code, out, err = await run(lattice, tool, "cat", given=data)

    assert (code, err) == (0, "")
    assert out == data


async def test_output_and_error_keep_apart(lattice: Lattice, tool: str) -> None:
    assert await run(lattice, tool, "both") == (0, b"to the output\n", "to the error\n")


async def test_the_exit_code_is_the_commands(lattice: Lattice) -> None:
    assert (await run(lattice, str(MODULE), "exit", "200"))[0] == 200
    assert (await run(lattice, str(TOOL), "exit", "1"))[0] == 1


async def test_a_trap_and_the_end_of_its_time_have_codes_of_their_own(lattice: Lattice, tool: str) -> None:
    trapped = await run(lattice, tool, "abort")
    late = await run(lattice, "--timeout", "1s", tool, "spin")

    assert trapped[0] == 134
    assert "error: the job did not end by itself" in trapped[2] and "unreachable" in trapped[2]
    assert late[:2] == (124, b"spinning\n")


async def test_options_after_the_file_are_the_commands_own(lattice: Lattice, tool: str) -> None:
    assert (await run(lattice, "--env", "A=b c", tool, "env", "A"))[1] == b"b c\n"
    code, _, err = await run(lattice, tool, "--help")
    assert code in (1, 64) and err.startswith("usage: tool")


async def test_a_job_runs_where_its_label_says(lattice: Lattice, client: ControlClient) -> None:
    async with begun(lattice, "--label", "node=c", str(TOOL), "sleep", "60000"):
        assert [job.node_name for job in await client.jobs()] == ["c"]
    await jobs_end(client)

    code, _, err = await run(lattice, "--label", "node=nowhere", str(TOOL), "both")
    assert code == 5 and "node=nowhere" in err


@pytest.mark.parametrize("word", ["sleep", "spin"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_who_ends_latticectl_ends_the_job(
    lattice: Lattice, client: ControlClient, tool: str, word: str, number: signal.Signals, code: int
) -> None:
    async with begun(lattice, tool, word, "60000") as process:
        process.send_signal(number)
        with anyio.fail_after(AT_ONCE_SECONDS):
            assert await process.wait() == code

    await jobs_end(client)


async def test_a_reader_that_leaves_ends_the_job(lattice: Lattice, client: ControlClient, tool: str) -> None:
    command = shlex.join([*LATTICECTL, "run", tool, "fill", "2000000000"])
    script = f"{command} | head -c 10; exit ${{PIPESTATUS[0]}}"

    with anyio.fail_after(20):
        done = await anyio.run_process(["bash", "-c", script], check=False, env=lattice.environment)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"x" * 10, b"")
    await jobs_end(client)


async def test_a_job_is_stopped_by_its_id(lattice: Lattice, client: ControlClient, tool: str) -> None:
    async with begun(lattice, tool, "sleep", "60000") as process:
        (job,) = await client.jobs()
        await client.stop_job(job.job)
        with anyio.fail_after(AT_ONCE_SECONDS):
            assert await process.wait() == 143


async def test_a_detached_job_goes_on_and_is_logged(lattice: Lattice, client: ControlClient) -> None:
    code, out, _ = await run(lattice, "--detach", "--name", "report", str(TOOL), "both")

    job = out.decode().strip()
    assert code == 0 and job.startswith("report-")

    async def is_logged() -> bool:
        lines = await client.log_lines(job, 10)
        return {line.text for line in lines} == {"to the output", "to the error"}

    await until(is_logged, what="it was logged")


async def test_a_command_that_is_deployed_can_be_called(lattice: Lattice, client: ControlClient) -> None:
    await lattice.deploy(EXAMPLES / "hello-command/c/hello.wasm", name="hello")

    assert await client.call("hello", "run", []) == {"ok": None}


async def test_what_is_no_command_is_refused_with_a_hint(lattice: Lattice, tmp_path: Path) -> None:
    library = tmp_path / "library.wasm"
    library.write_bytes(b"\0asm\x01\x00\x00\x00")

    assert "`latticectl deploy`" in (await run(lattice, str(GREETER)))[2]
    assert "not a command" in (await run(lattice, str(library)))[2]
    deployed: Done = await lattice.ctl("deploy", str(MODULE))
    assert deployed.code == 1 and "`latticectl run`" in deployed.err
