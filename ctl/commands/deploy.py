"""`latticectl deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctl.arguments import (
    configuration_options,
    file_argument,
    grant_options,
    link_option,
    replicas_option,
    wait_option,
)
from ctl.command import command, session_of
from ctl.output import Output
from ctl.parameters import DURATION, LABEL, NAME, ROUTE, SIZE
from ctl.session import Session
from lattice.routes import route_configuration, route_name

if TYPE_CHECKING:
    from ctl.client import ControlClient
    from ctl.models import Deployed


@command()
@file_argument()
@click.option(
    "--name", type=NAME, metavar="NAME", help="Name of the component. [default: the file's, made valid]"
)
@replicas_option("How many replicas to run.", default=1, show_default=True)
@click.option(
    "--label", "labels", type=LABEL, multiple=True, help="Run only on nodes with this label; repeatable."
)
@click.option(
    "--spread", metavar="LABEL", help="Spread over the values of this node label. [default: over nodes]"
)
@click.option(
    "--max-concurrency", type=click.IntRange(1), metavar="N", help="Calls that a replica runs at a time."
)
@click.option(
    "--memory", "memory_bytes", type=SIZE, metavar="SIZE", help="Memory of an instance, e.g. 64MiB."
)
@click.option(
    "--deadline", "budget_seconds", type=DURATION, metavar="TIME", help="Time a call may take, e.g. 30s."
)
@click.option(
    "--reuse", type=click.IntRange(1), metavar="CALLS", help="Calls that one instance serves. [default: 1]"
)
@click.option(
    "--prewarm", type=click.IntRange(0), metavar="N", help="Instances that a busy node makes ahead."
)
@click.option(
    "--queue", "queue_length", type=click.IntRange(0), metavar="N", help="Calls of a replica that may wait."
)
@click.option(
    "--payload", "payload_bytes", type=SIZE, metavar="SIZE", help="Size of a call's arguments or result."
)
@click.option(
    "--spares", type=click.IntRange(0), metavar="N", help="Nodes that compile it ahead. [default: 2]"
)
@click.option(
    "--idempotent", is_flag=True, help="Calls may be repeated: no function does harm when called twice."
)
@link_option()
@click.option(
    "--http",
    "routes",
    type=ROUTE,
    multiple=True,
    metavar="HOST/PREFIX",
    help="Send HTTP requests for this host and path to it; `/` is all; repeatable.",
)
@click.option(
    "--cron",
    "schedules",
    multiple=True,
    metavar="SCHEDULE",
    help="Call it by the clock: `*/5 * * * *`, or `every 30s`; repeatable.",
)
@grant_options()
@configuration_options("the component")
@wait_option()
@session_of
def deploy(session: Session, /, file: Path, name: str | None, waits: bool, **options: Any) -> None:
    """Deploy a component, or change the one of that name.

    Uploads the file, has a node compile it, places the replicas and returns when they answer. Deploying the
    same again changes nothing. What keeps it from running is said, with what to do about it.

    \b
    Examples:
      latticectl deploy greeter.wasm
      latticectl deploy greeter.wasm --name hello --replicas 3 --spread zone
      latticectl deploy shop.wasm --link demo:stock/items=stock --memory 128MiB --deadline 5s
      latticectl deploy shop.wasm --http shop.example.org/
      latticectl deploy report.wasm --cron "0 6 * * MON-FRI"
    """
    from ctl.artifact import name_for, read_artifact
    from ctl.deployment import Deployment
    from ctl.rollout import PLACE_SECONDS, release

    artifact = read_artifact(file)
    routes = [_http_trigger(*route) for route in options.pop("routes")]
    options["triggers"] = (*routes, *_cron_triggers(options.pop("schedules")))
    options |= {key: dict(options[key]) for key in ("labels", "environment", "configuration", "secrets")}
    deployment = Deployment(name=name or name_for(file), digest=artifact.digest, **options)
    wait_seconds = session.timeout_or(PLACE_SECONDS) if waits else None

    async def run(client: ControlClient) -> Deployed:
        return await release(
            client, artifact, deployment, progress=steps(session.output), wait_seconds=wait_seconds
        )

    report(session.output, session.run(run))


def _http_trigger(host: str, prefix: str) -> dict[str, Any]:
    return {
        "kind": "http",
        "name": route_name(host, prefix),
        "configuration": route_configuration(host, prefix),
    }


def _cron_triggers(schedules: tuple[str, ...]) -> list[dict[str, Any]]:
    names = ["default", *(f"schedule-{number}" for number in range(2, len(schedules) + 1))]
    return [
        {"kind": "cron", "name": name, "configuration": {"schedule": schedule}}
        for name, schedule in zip(names, schedules, strict=False)
    ]


def steps(output: Output) -> Any:
    """Tells each step of a rollout on a line of its own."""
    return lambda step, text: output.say(f"{step:>8}  {text}")


def report(output: Output, deployed: Deployed) -> None:
    """Warnings for people, the whole for programs."""
    for warning in deployed.warnings:
        output.warn(warning)
    output.item(deployed, None)
