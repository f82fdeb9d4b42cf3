"""`latticectl run`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctl.arguments import configuration_options, file_argument, grant_options, link_option
from ctl.command import Stop, command, session_of
from ctl.names import complete_node
from ctl.parameters import LABEL, NAME, SIZE
from ctl.session import Session
from lattice.errors import Interrupted

if TYPE_CHECKING:
    from ctl.artifact import Artifact
    from ctl.client import ControlClient
    from ctl.jobs import RunningJob
    from ctl.models import JobStarted
    from ctl.output import Output
    from lattice.jobs import JobSpec, Outcome


@command(context_settings={"allow_interspersed_args": False})
@file_argument()
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", type=NAME, metavar="NAME", help="Name of the job. [default: the file's, made valid]")
@click.option(
    "--label", "labels", type=LABEL, multiple=True, help="Run only on a node with this label; repeatable."
)
@click.option("--node", metavar="NODE", shell_complete=complete_node, help="Run on this node.")
@click.option("--memory", "memory_bytes", type=SIZE, metavar="SIZE", help="Memory it may use, e.g. 256MiB.")
@click.option("--detach", is_flag=True, help="Print the job's id and leave; its output goes to the log.")
@link_option()
@grant_options()
@configuration_options("the job")
@session_of
def run(
    session: Session,
    /,
    file: Path,
    arguments: tuple[str, ...],
    name: str | None,
    labels: tuple[tuple[str, str], ...],
    node: str | None,
    detach: bool,
    **grants: Any,
) -> None:
    """Run a command on some node, with this terminal's input and output, and exit with its exit code.

    The file is a component that exports `wasi:cli/run`, or a core module of WASI 0.1. What stands before it
    are options of latticectl, what follows are the command's own arguments. The node is the least loaded one
    that fits. --timeout bounds how long the job may run. Ctrl-C ends it; so does the end of latticectl in any
    way, unless it is detached.

    A trap exits with 134, the end of its time with 124, a node that cannot go on with 125, a job that was
    stopped with 143.

    \b
    Examples:
      latticectl run hello.wasm
      latticectl run --env COLOUR=blue --label zone=a hello.wasm one --two
      latticectl run --folder photos:/data:rw --timeout 5m resize.wasm /data < list.txt > report.txt
      latticectl run --config-from shop --secret password=db-password --allow-host api.example.com sync.wasm
      latticectl run --link wasi:keyvalue=keyvalue-nats,bucket=orders count.wasm
    """
    from ctl.artifact import name_for, read_program

    artifact = read_program(file)
    spec = _spec(name or name_for(file), artifact.digest, arguments, session, is_detached=detach, **grants)

    async def operation(client: ControlClient) -> JobStarted | Outcome:
        return await _run(client, artifact, spec, session.output, dict(labels), node)

    try:
        ended = session.run(operation)
    except Interrupted as error:
        error.details.setdefault("hint", "it may have done something; run it again if that does no harm")
        raise
    if detach:
        session.output.item(ended, lambda: str(ended.job))  # type: ignore[union-attr]  # what detached ones give
    else:
        _leave(session, ended)  # type: ignore[arg-type]


def _spec(
    name: str,
    digest: str,
    arguments: tuple[str, ...],
    session: Session,
    *,
    is_detached: bool,
    links: tuple[dict[str, Any], ...],
    memory_bytes: int | None,
    **grants: Any,
) -> JobSpec:
    from lattice.jobs import MAX_SECONDS, JobSpec

    component = {
        "name": name,
        "digest": digest,
        "limits": {} if memory_bytes is None else {"memory_bytes": memory_bytes},
        **grants,
        **{key: dict(grants[key]) for key in ("environment", "configuration", "secrets")},
    }
    fields = {
        "component": component,
        "links": [{**link, "source": name} for link in links],
        "arguments": list(arguments),
        "timeout_seconds": min(session.timeout_or(MAX_SECONDS), MAX_SECONDS),
        "is_detached": is_detached,
    }
    return JobSpec.from_dict(fields)


async def _run(
    client: ControlClient,
    artifact: Artifact,
    spec: JobSpec,
    output: Output,
    labels: dict[str, str],
    node: str | None,
) -> JobStarted | Outcome:
    from ctl.jobs import running
    from ctl.models import JobStarted
    from ctl.standard_streams import StandardInput
    from lattice.tasks import open_tasks

    await client.upload(artifact)
    source = None if spec.is_detached else StandardInput()
    async with open_tasks() as tasks:
        tasks.start_soon(_leave_on_signals)
        async with running(client, spec, labels=labels, node=node, source=source) as job:
            for warning in job.started.warnings:
                output.warn(warning)
            if not spec.is_detached:
                await _copy(job)
        tasks.cancel_scope.cancel()
    return JobStarted.from_dict(job.started.to_dict()) if spec.is_detached else job.outcome


async def _copy(job: RunningJob) -> None:
    """Write the job's output to the terminal's as it comes; a reader that left ends the job."""
    from ctl.standard_streams import StandardOutput

    outputs = {stream: StandardOutput(stream) for stream in (1, 2)}
    async for stream, data in job.output():
        await outputs[stream].write(data)


async def _leave_on_signals() -> None:
    """End the job when the program is told to end, or its terminal is closed; Ctrl-C does so anyway."""
    import anyio

    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
        async for number in signals:
            raise Stop(128 + number)


def _leave(session: Session, outcome: Outcome) -> None:
    if outcome.reason:
        session.output.fail(f"the job did not end by itself: {outcome.reason}", None)
    raise Stop(outcome.exit_code)
