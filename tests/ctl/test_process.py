"""`latticectl` as a process of its own, on a real NATS server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import pytest

from lattice.nats_bus import NatsBus
from tests.ctl.fake_node import FakeNode, line
from tests.servers import NatsServer

LATTICECTL = [sys.executable, "-c", "from ctl.cli import main; main()"]
EVENT = {"time": 1.0, "event": "replica.running", "component": "greeter"}


@pytest.fixture
async def node(nats_server: NatsServer, lattice_name: str) -> AsyncIterator[FakeNode]:
    async with NatsBus(nats_server.settings()) as bus, FakeNode(lattice_name).serving(bus) as node:
        node.deployed()
        yield node


@pytest.fixture
def environment(nats_server: NatsServer, lattice_name: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    own = {"LATTICE_NATS": nats_server.url.replace("//", "//app:app@"), "LATTICE_LATTICE": lattice_name}
    return {**inherited, **own}


@asynccontextmanager
async def running(
    *args: str, environment: dict[str, str], stdout: int = subprocess.PIPE
) -> AsyncIterator[anyio.abc.Process]:
    """A process that is gone after the context."""
    process = await anyio.open_process([*LATTICECTL, *args], env=environment, stdout=stdout)
    async with process:
        with anyio.fail_after(20):
            yield process
        if process.returncode is None:
            process.kill()


async def first_line(process: anyio.abc.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.receive()).decode().splitlines()[0]


async def error_text(process: anyio.abc.Process) -> str:
    assert process.stderr is not None
    return b"".join([chunk async for chunk in process.stderr]).decode()


async def test_a_call_goes_there_and_back(node: FakeNode, environment: dict[str, str]) -> None:
    done = await anyio.run_process([*LATTICECTL, "call", "greeter", "greet", "World"], env=environment)

    assert json.loads(done.stdout) == "Hello, World!"
    assert done.stderr == b""


async def test_streams_that_are_closed_are_no_connection_to_the_server(
    node: FakeNode, environment: dict[str, str]
) -> None:
    program = """
from ctl.cli import main
import os
try:
    main()
finally:
    taken = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
    open(os.environ["FOUND"], "w").write(" ".join(taken))
"""
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program]
    with tempfile.NamedTemporaryFile("r") as found:
        done = await anyio.run_process(
            [*closed, "call", "greeter", "greet", "World"], env={**environment, "FOUND": found.name}
        )

        assert done.returncode == 0
        assert found.read() == "/dev/null /dev/null /dev/null"


async def test_a_full_disk_is_said_to_be_one(node: FakeNode, environment: dict[str, str]) -> None:
    onto_full = ["sh", "-c", 'exec "$@" > /dev/full', "sh", *LATTICECTL]
    done = await anyio.run_process([*onto_full, "get", "components"], env=environment, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith(b"error: the output can't be written: No space left on device\n\nhint: ")
    assert b"Exception ignored" not in done.stderr


async def test_events_are_followed_until_interrupted(node: FakeNode, environment: dict[str, str]) -> None:
    async with running("events", "--follow", "--output", "json", environment=environment) as process:
        with anyio.move_on_after(15) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish_until_cancelled, node, "event.replica.running", EVENT)
                event = json.loads(await first_line(process))
                tasks.cancel_scope.cancel()
        process.send_signal(signal.SIGINT)
        code = await process.wait()

    assert not scope.cancelled_caught
    assert event["event"] == "replica.running"
    assert code == 130


async def test_a_log_is_followed_after_its_past_lines(node: FakeNode, environment: dict[str, str]) -> None:
    node.lines = [line("past")]
    async with running("logs", "greeter", "--follow", environment=environment) as process:
        past = await first_line(process)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish_until_cancelled, node, "log.greeter", line("new"))
            new = await first_line(process)
            tasks.cancel_scope.cancel()
        process.send_signal(signal.SIGINT)

    assert past.endswith("past")
    assert new.endswith("new")


async def publish_until_cancelled(node: FakeNode, subject: str, fields: dict[str, object]) -> None:
    """Publishes again and again: the process says nowhere when its subscription is there."""
    while True:
        await node.publish(f"lattice.1.{node.lattice}.{subject}", fields)
        await anyio.sleep(0.05)


async def test_a_reader_that_left_is_no_error(node: FakeNode, environment: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        async with running("get", "nodes", environment=environment, stdout=writer) as process:
            errors = await error_text(process)
            code = await process.wait()
    finally:
        os.close(writer)

    assert (code, errors) == (0, "")


async def test_an_event_for_a_reader_that_left_is_no_error(
    node: FakeNode, environment: dict[str, str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        async with running("events", "--follow", environment=environment, stdout=writer) as process:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish_until_cancelled, node, "event.replica.running", EVENT)
                code = await process.wait()
                tasks.cancel_scope.cancel()
            errors = await error_text(process)
    finally:
        os.close(writer)

    assert (code, errors) == (0, "")


@pytest.mark.parametrize(
    ("nats", "exit_code"),
    [("nats://127.0.0.1:1", 5), ("nats://app:wrong@{server}", 1), ("http://{server}", 1)],
)
async def test_a_server_that_cannot_be_used_is_one_clear_message(
    nats_server: NatsServer, environment: dict[str, str], nats: str, exit_code: int
) -> None:
    url = nats.replace("{server}", nats_server.url.removeprefix("nats://"))
    args = ["get", "nodes", "--nats", url, "--timeout", "1s"]

    done = await anyio.run_process([*LATTICECTL, *args], env=environment, check=False)

    text = done.stderr.decode()
    assert done.returncode == exit_code
    assert text.startswith("error: ")
    assert text.count("\n\nhint: ") == 1
    assert "Traceback" not in text and len(text.splitlines()) == 3


async def test_a_lost_connection_is_told_while_following(
    make_nats_server: Callable[[], NatsServer], environment: dict[str, str]
) -> None:
    server = make_nats_server()
    url = server.url.replace("//", "//app:app@")
    async with NatsBus(server.settings()) as bus, FakeNode("default").serving(bus) as node:
        arguments = ["events", "--follow", "--nats", url, "--lattice", "default"]
        async with running(*arguments, environment=environment) as process:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish_until_cancelled, node, "event.replica.running", EVENT)
                await first_line(process)
                tasks.cancel_scope.cancel()
            server.kill()
            assert process.stderr is not None
            told = (await process.stderr.receive()).decode()

    assert told.startswith("warning: the connection is lost")


async def test_help_needs_nothing_that_is_slow_to_import() -> None:
    script = (
        "import sys; sys.argv = ['latticectl', '--help']\n"
        "from ctl.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "slow = {'anyio', 'asyncio', 'structlog', 'rich', 'nats', 'msgpack'} & set(sys.modules)\n"
        "sys.exit(','.join(slow) or 0)"
    )

    done = await anyio.run_process([sys.executable, "-c", script], check=False)

    assert done.stderr == b""


async def test_the_shell_completes_commands_and_names(node: FakeNode, environment: dict[str, str]) -> None:
    async def completed(words: str, index: int) -> str:
        asking = {"_LATTICECTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(index)}
        done = await anyio.run_process(LATTICECTL, env={**environment, **asking}, check=False)
        return done.stdout.decode()

    assert await completed("latticectl depl", 1) == "plain,deploy\n"
    assert await completed("latticectl describe gree", 2) == "plain,greeter\n"
    assert await completed("latticectl drain no", 2) == "plain,node-1\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_each_shell_has_a_completion_script(shell: str) -> None:
    done = await anyio.run_process([*LATTICECTL, "completion", shell])

    assert b"_LATTICECTL_COMPLETE" in done.stdout
