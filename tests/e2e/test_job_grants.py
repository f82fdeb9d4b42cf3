"""What `latticectl run` grants a job, on two nodes: the job on one, what it uses on the other."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from ctl.client import ControlClient
from lattice.caller import Caller, CallRequest, new_call_id
from lattice.clock import now
from lattice.errors import Denied
from lattice.sealing import Secret
from lattice.state import LatticeState
from lattice.tasks import open_tasks
from tests.e2e.artifacts import secret_command, store_command
from tests.e2e.processes import EXAMPLES, KV_STORE, LATTICECTL, Done, Lattice, until

pytestmark = pytest.mark.slow

TALLY = EXAMPLES / "tally/c/tally.wasm"
COUNTER = EXAMPLES / "counter/c/counter.wasm"
MODULE = EXAMPLES / "tool-command/c/tool.wasip1.wasm"
LINK = ("--link", "wasi:keyvalue=counts,bucket=tally")
HERE = ("--node", "a", *LINK)
MISSING = "'tally' imports wasi:keyvalue/store@0.2.0-draft, which nothing provides;"
FLAT, COUNTS = "lattice:keyvalue/store", "counts"


@pytest.fixture(scope="module")
async def shared_lattice(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Lattice]:
    """Jobs run on `a`; the provider `counts` is offered by `b` alone."""
    async with Lattice(tmp_path_factory.mktemp("lattice"), "job-grants") as lattice:
        lattice.node("a").start()
        lattice.node("b", "--provider", f"{COUNTS}=keyvalue-memory").start()
        await lattice.settled()
        yield lattice


async def run(lattice: Lattice, *words: str | Path, given: bytes = b"one\n") -> Done:
    """`latticectl run`, to its end."""
    command = [*LATTICECTL, "run", *map(str, words)]
    with anyio.fail_after(60):
        done = await anyio.run_process(command, input=given, check=False, env=lattice.environment)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@asynccontextmanager
async def begun(lattice: Lattice, *options: str) -> AsyncIterator[anyio.abc.Process]:
    """A tally that waits for more lines."""
    command = [*LATTICECTL, "run", *options, str(TALLY)]
    async with await anyio.open_process(command, stdin=subprocess.PIPE, env=lattice.environment) as process:
        yield process
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def said(process: anyio.abc.Process, line: bytes) -> bytes:
    """What the tally says to one line of input."""
    assert process.stdin is not None and process.stdout is not None
    await process.stdin.send(line)
    with anyio.fail_after(20):
        return await process.stdout.receive()


async def linked(client: ControlClient) -> list[Mapping[str, Any]]:
    return list((await client.describe_provider(COUNTS)).links)


async def unlinked(client: ControlClient) -> None:
    """Return when nothing is linked to the provider."""

    async def is_unlinked() -> bool:
        return not await linked(client)

    await until(is_unlinked, what="the link is gone")


async def asked_as(lattice: Lattice, source: str) -> Any:
    """What the provider on `b` answers to a call over the link of that source."""
    async with lattice.bus() as bus, open_tasks() as tasks:
        caller = Caller(bus, lattice.name, LatticeState(), name="test", knows_all=lambda: True)
        caller.start(tasks)
        request = CallRequest(
            component=COUNTS,
            interface=FLAT,
            function="open",
            deadline=now() + 5,
            call_id=new_call_id(),
            caller=source,
            link="default",
        )
        exchange = await caller.exchange_at([lattice["b"].id], request, [""])
        tasks.cancel_scope.cancel()
    return exchange.value


async def test_a_job_uses_the_provider_of_another_node_with_its_configuration_until_it_ends(
    lattice: Lattice, client: ControlClient
) -> None:
    await client.put_config("tallies", {"key": "sheep", "colour": "black"})
    async with begun(lattice, *HERE, "--config-from", "tallies") as process:
        assert (await said(process, b"one\n")).startswith(b"sheep: ")
        (job,) = await client.jobs()

        assert (job.node_name, job.links) == ("a", ("wasi:keyvalue=counts",))
        assert await linked(client) == [{"source": job.job, "interface": "wasi:keyvalue", "name": "default"}]
        assert await client.links() == []
        assert await asked_as(lattice, job.job) == {"ok": None}
        assert process.stdin is not None
        await process.stdin.aclose()
        assert await process.wait() == 0

    await unlinked(client)
    with pytest.raises(Denied, match=f"'{job.job}' has no link 'default' of wasi:keyvalue to 'counts': no"):
        await asked_as(lattice, job.job)


@pytest.mark.fault
async def test_the_links_of_a_job_are_gone_with_its_node(lattice: Lattice, client: ControlClient) -> None:
    async with begun(lattice, *HERE) as process:
        assert await said(process, b"one\n")
        (job,) = await client.jobs()
        assert await asked_as(lattice, job.job) == {"ok": None}

        lattice["a"].kill()
        await unlinked(client)
        with anyio.fail_after(10):
            assert await process.wait() == 1

    with pytest.raises(Denied, match=job.job):
        await asked_as(lattice, job.job)


async def test_what_jobs_count_in_a_bucket_of_a_name_adds_up(lattice: Lattice) -> None:
    first = await run(lattice, *HERE, "--config", "key=goats", TALLY)
    second = await run(lattice, *HERE, "--config", "key=goats", TALLY, given=b"two\nthree\n")
    other = await run(lattice, "--link", "wasi:keyvalue=counts,bucket=other", "--config", "key=goats", TALLY)

    assert (first.code, first.out, first.err) == (0, "goats: 1\n", "")
    assert (second.code, second.out) == (0, "goats: 3\n")
    assert (other.code, other.out) == (0, "goats: 1\n")


async def test_a_link_may_lead_to_a_provider_of_the_jobs_own_node(lattice: Lattice) -> None:
    done = await run(lattice, "--link", "wasi:keyvalue=keyvalue-nats,bucket=tally", TALLY)

    assert (done.code, done.out, done.err) == (0, "lines: 1\n", "")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            (),
            f"{MISSING} grant it with `latticectl run ... --link wasi:keyvalue=keyvalue-nats,bucket=NAME`",
        ),
        (
            ("--link", "wasi:keyvalue=counts"),
            "each run would leave one behind: `--link wasi:keyvalue=counts,bucket=NAME`",
        ),
        (
            ("--link", "wasi:keyvalue=counts,bucket=a,buckett=b"),
            "link of wasi:keyvalue to 'counts': a link to a key-value store has no configuration 'buckett'",
        ),
        (
            (*LINK, "--link", "demo:kv/store=kv-store"),
            "'tally' does not import demo:kv/store",
        ),
        (("--link", "wasi:keyvalue=blobstore-nats,bucket=a"), "does not serve wasi:keyvalue"),
        ((*LINK, "--allow-host", "https://example.com"), "allow-hosts"),
    ],
)
async def test_what_is_not_granted_or_leads_nowhere_does_not_begin(
    lattice: Lattice, client: ControlClient, options: tuple[str, ...], says: str
) -> None:
    done = await run(lattice, *options, TALLY)

    assert (done.code, done.out) == (1, "")
    assert says in done.err
    assert await client.jobs() == []
    await unlinked(client)  # also of the job before


async def test_a_core_module_is_refused_all_that_it_can_not_use(lattice: Lattice) -> None:
    done = await run(lattice, *LINK, "--config", "a=b", "--secret", "a=b", MODULE, "both")

    assert (done.code, done.out) == (1, "")
    assert "a core module can't use --config, --secret, --link" in done.err


async def test_what_leads_nowhere_yet_is_said_and_the_job_is_run(lattice: Lattice) -> None:
    done = await run(lattice, *HERE, "--config-from", "nowhere", TALLY)

    assert done.code == 1
    assert "warning: there is no configuration 'nowhere' yet" in done.err
    assert done.out.startswith("failed: there is no configuration 'nowhere'")


async def test_a_link_may_lead_to_a_component_of_another_node(lattice: Lattice, tmp_path: Path) -> None:
    await lattice.deploy(KV_STORE, labels={"node": "b"})
    file = await to_thread.run_sync(store_command, tmp_path, "Ada")

    linked = await run(lattice, "--node", "a", "--link", "demo:kv/store=kv-store", file)
    denied = await run(lattice, "--node", "a", file)

    assert (linked.code, linked.err) == (0, "")
    assert denied.code == 1
    assert "grant it with `latticectl run ... --link demo:kv/store=TARGET`" in denied.err


async def test_a_secret_is_read_by_the_job_that_was_granted_it_alone(
    lattice: Lattice, client: ControlClient, tmp_path: Path
) -> None:
    file = await to_thread.run_sync(secret_command, tmp_path, "password")
    await client.put_secret("db-password", Secret("correct-horse"))

    granted = await run(lattice, "--secret", "password=db-password", file)
    under_another_key = await run(lattice, "--secret", "key=db-password", file)
    absent = await run(lattice, "--secret", "password=db-passwort", file)

    assert (granted.code, granted.err) == (0, "")
    assert [under_another_key.code, (await run(lattice, file)).code, absent.code] == [1, 1, 1]
    assert "warning: there is no secret 'db-passwort' yet" in absent.err


async def test_a_job_has_no_links_of_a_component_of_its_name(lattice: Lattice) -> None:
    await lattice.deploy(COUNTER, name="tally", links=(("wasi:keyvalue", COUNTS),))

    done = await run(lattice, TALLY)

    assert done.code == 1 and MISSING in done.err
