"""`latticectl get nodes|components|replicas`: tables of what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ctl.command import Group, command, session_of
from ctl.commands.config import configs
from ctl.commands.provider import providers
from ctl.commands.secret import secrets
from ctl.commands.trigger import triggers
from ctl.names import complete_component
from ctl.output import Column
from ctl.parameters import NAME
from ctl.session import Session
from lattice.quantities import duration_text, size_text
from lattice.routes import route_text

if TYPE_CHECKING:
    from ctl import models
    from ctl.client import ControlClient

NODE_COLUMNS: list[Column[models.Node]] = [
    ("NAME", lambda node: node.name),
    ("ID", lambda node: node.id[:8]),
    ("STATE", lambda node: node.state),
    ("CONTROLLER", lambda node: node.is_controller),
    ("REPLICAS", lambda node: f"{node.replicas}/{node.capacity}"),
    ("LOAD", lambda node: node.load),
    ("CALLS", lambda node: node.calls_in_flight),
    ("MEMORY", lambda node: size_text(node.memory_bytes)),
    ("UP", lambda node: duration_text(node.uptime_seconds)),
    ("VERSION", lambda node: node.version),
    ("LABELS", lambda node: node.labels),
]
COMPONENT_COLUMNS: list[Column[models.Component]] = [
    ("NAME", lambda component: component.name),
    ("STATE", lambda component: component.state),
    ("REPLICAS", lambda component: f"{component.replicas.running}/{component.replicas.desired}"),
    ("GENERATION", lambda component: component.generation),
    ("SIZE", lambda component: size_text(component.size)),
    ("DIGEST", lambda component: component.digest.removeprefix("sha256:")[:12]),
    ("EXPORTS", lambda component: component.exports),
    ("REASON", lambda component: component.reason),
]
REPLICA_COLUMNS: list[Column[models.Replica]] = [
    ("ID", lambda replica: replica.id),
    ("COMPONENT", lambda replica: replica.component),
    ("NODE", lambda replica: replica.node_name or replica.node[:8]),
    ("STATE", lambda replica: replica.state),
    ("REVISION", lambda replica: replica.revision),
    ("CALLS", lambda replica: replica.calls),
    ("ERRORS", lambda replica: replica.errors),
    ("IN FLIGHT", lambda replica: replica.in_flight),
    ("SINCE", lambda replica: duration_text(replica.since_seconds)),
]


ROUTE_COLUMNS: list[Column[models.Trigger]] = [
    ("ROUTE", lambda trigger: _route(trigger)),
    ("COMPONENT", lambda trigger: trigger.component),
    ("NAME", lambda trigger: trigger.name),
]


JOB_COLUMNS: list[Column[models.Job]] = [
    ("JOB", lambda job: job.job),
    ("NAME", lambda job: job.name),
    ("NODE", lambda job: job.node_name or job.node[:8]),
    ("DETACHED", lambda job: job.is_detached),
    ("SINCE", lambda job: duration_text(job.since_seconds)),
]


@click.group(cls=Group)
def get() -> None:
    """List nodes, components, replicas, providers or routes.

    \b
    Examples:
      latticectl get components
      latticectl get nodes --output json
    """


@command()
@session_of
def nodes(session: Session) -> None:
    """List the nodes of the lattice.

    \b
    Examples:
      latticectl get nodes
      latticectl get nodes --output jsonl | jq -r 'select(.is_controller) | .name'
    """

    async def run(client: ControlClient) -> list[models.Node]:
        return sorted(await client.nodes(), key=lambda node: node.name)

    session.output.items(session.run(run), NODE_COLUMNS, empty="the lattice has no nodes")


@command()
@session_of
def jobs(session: Session) -> None:
    """List the jobs that run, those that are being prepared included.

    \b
    Examples:
      latticectl get jobs
      latticectl get jobs --output jsonl | jq -r .job
    """

    async def run(client: ControlClient) -> list[models.Job]:
        return await client.jobs()

    session.output.items(session.run(run), JOB_COLUMNS, empty="no jobs run")


@command()
@session_of
def components(session: Session) -> None:
    """List the deployed components.

    \b
    Examples:
      latticectl get components
      latticectl get components --output json
    """

    async def run(client: ControlClient) -> list[models.Component]:
        return sorted(await client.components(), key=lambda component: component.name)

    empty = "nothing is deployed; `latticectl deploy FILE.wasm` deploys a component"
    session.output.items(session.run(run), COMPONENT_COLUMNS, empty=empty)


@command()
@click.argument("component", type=NAME, required=False, shell_complete=complete_component)
@session_of
def replicas(session: Session, component: str | None) -> None:
    """List the replicas of one component, or all.

    \b
    Examples:
      latticectl get replicas
      latticectl get replicas greeter
    """

    async def run(client: ControlClient) -> list[models.Replica]:
        found = await client.replicas(component)
        return sorted(found, key=lambda replica: (replica.component, replica.node_name, replica.id))

    session.output.items(session.run(run), REPLICA_COLUMNS, empty="there are no replicas")


@command()
@click.argument("component", type=NAME, required=False, shell_complete=complete_component)
@session_of
def routes(session: Session, component: str | None) -> None:
    """List the HTTP routes of one component, or all.

    Where two components have the same route, the one of the older application is in force.

    \b
    Examples:
      latticectl get routes
      latticectl get routes shop
    """

    async def run(client: ControlClient) -> list[models.Trigger]:
        return sorted(await client.triggers(component, kind="http"), key=_route)

    empty = "there are no routes; `latticectl route put HOST/PREFIX COMPONENT` makes one"
    session.output.items(session.run(run), ROUTE_COLUMNS, empty=empty)


def _route(trigger: models.Trigger) -> str:
    configuration = trigger.configuration
    return route_text(configuration.get("host", ""), configuration.get("prefix", ""))


for _listing in (nodes, components, replicas, providers, configs, secrets, triggers, routes, jobs):
    get.add_command(_listing)
