"""`latticectl update`, `scale`, `delete` and `wait`: what is done with a deployed component."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ctl.arguments import component_argument, file_argument, replicas_option, wait_option
from ctl.command import command, session_of
from ctl.commands.deploy import report, steps
from ctl.session import Session

if TYPE_CHECKING:
    from ctl.client import ControlClient
    from ctl.models import Change, ComponentDescription, Deployed


@command()
@component_argument()
@file_argument()
@wait_option()
@session_of
def update(session: Session, component: str, file: Path, waits: bool) -> None:
    """Give a component other code; its settings and links stay.

    The new code is compiled before any replica is replaced; the old one finishes its calls.

    \b
    Examples:
      latticectl update greeter greeter-2.wasm
    """
    from ctl.artifact import read_artifact

    artifact = read_artifact(file)

    async def run(client: ControlClient) -> Deployed:
        import anyio

        from ctl.rollout import PLACE_SECONDS, settle, supply

        started, progress = anyio.current_time(), steps(session.output)
        await supply(client, artifact, progress=progress)
        change = await client.update(component, artifact.digest)
        wait_seconds = session.timeout_or(PLACE_SECONDS) if waits else None
        return await settle(
            client, change, artifact.digest, progress=progress, wait_seconds=wait_seconds, started=started
        )

    report(session.output, session.run(run))


@command()
@component_argument()
@replicas_option("How many replicas to run; 0 keeps it deployed but stopped.", required=True)
@wait_option()
@session_of
def scale(session: Session, component: str, replicas: int, waits: bool) -> None:
    """Change how many replicas a component has.

    \b
    Examples:
      latticectl scale greeter --replicas 5
      latticectl scale greeter --replicas 0 --no-wait
    """

    async def run(client: ControlClient) -> Change:
        from ctl.rollout import PLACE_SECONDS, wait_until_ready

        change = await client.scale(component, replicas)
        if waits:
            await wait_until_ready(
                client,
                component,
                generation=change.generation,
                timeout_seconds=session.timeout_or(PLACE_SECONDS),
                progress=steps(session.output),
            )
        return change

    change = session.run(run)
    done = "has now" if waits else "shall have"
    session.output.say(f"`{component}` {done} {replicas} replica{'' if replicas == 1 else 's'}")
    session.output.item(change, None)


@command()
@component_argument()
@session_of
def delete(session: Session, component: str) -> None:
    """Delete a component with its links; calls in progress are finished.

    \b
    Examples:
      latticectl delete greeter
    """

    async def run(client: ControlClient) -> Change:
        return await client.delete(component)

    change = session.run(run)
    session.output.say(f"`{component}` is deleted")
    session.output.item(change, None)


@command()
@component_argument()
@replicas_option("Wait for so many instead of as many as it shall have.")
@session_of
def wait(session: Session, component: str, replicas: int | None) -> None:
    """Wait until a component's replicas answer.

    Exits with 5 when --timeout (60s unless given) ends before, with 1 when they cannot be started.

    \b
    Examples:
      latticectl wait greeter
      latticectl wait greeter --replicas 2 --timeout 30s
    """

    async def run(client: ControlClient) -> ComponentDescription:
        from ctl.rollout import PLACE_SECONDS, wait_until_ready

        return await wait_until_ready(
            client,
            component,
            replicas=replicas,
            timeout_seconds=session.timeout_or(PLACE_SECONDS),
            progress=steps(session.output),
        )

    description = session.run(run)
    counts = description.replicas
    session.output.say(f"`{component}` is ready: {counts.running} of {counts.desired} replicas running")
    session.output.item(description, None)
