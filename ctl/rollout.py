"""Brings a component to rest: upload, compile, deploy, wait until replicas answer or it is clear why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import anyio

from ctl.artifact import Artifact
from ctl.client import ControlClient
from ctl.deployment import Deployment
from ctl.listening import Listener
from ctl.models import Change, ComponentDescription, Deployed, Event
from lattice.errors import Conflict, Failed, Invalid, NotFound, TimedOut
from lattice.quantities import duration_text, size_text

Progress = Callable[[str, str], None]
"""Is told of each step: its name (`upload`, `compile`, `deploy`, `place`) and what came of it."""

POLL_SECONDS = 0.5
"""Events wake a wait at once; this is for those that are lost."""
QUIET_SECONDS = 1.0
"""What a wait waits for is said only if it takes longer."""
FAILED_GRACE_SECONDS = 1.5
"""A failure that lasts so long is the present revision's, and not what a node says that lags behind."""
PLACE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Where a component stands on its way to rest."""

    state: Literal["ready", "waiting", "failed", "superseded"]
    reason: str = ""


def judge(
    description: ComponentDescription,
    *,
    generation: int,
    replicas: int | None = None,
    digest: str | None = None,
) -> Verdict:
    """Whether the component has come to rest in `generation`, with `replicas` or as many as it shall have.

    A `digest` that differs is the code of an older generation: counts begin anew when a name is used again.
    """
    wanted = description.replicas.desired if replicas is None else replicas
    reason = _reason(description)
    is_other = digest not in (None, description.digest)
    if is_other and description.generation > generation:
        text = f"generation {description.generation}, made by somebody else, has given it other code"
        return Verdict(state="superseded", reason=text)
    if is_other or description.generation < generation:
        return Verdict(state="waiting", reason="the change has not reached all nodes")
    if description.state == "failed":
        return Verdict(state="failed", reason=reason)
    is_enough = description.replicas.running >= wanted
    if is_enough and (replicas is not None or description.state == "ready"):
        return Verdict(state="ready")
    return Verdict(state="waiting", reason=reason)


async def release(
    client: ControlClient,
    artifact: Artifact,
    deployment: Deployment,
    *,
    progress: Progress,
    wait_seconds: float | None = PLACE_SECONDS,
) -> Deployed:
    """Deploy an artifact from file to answering replicas; with `wait_seconds` None, until it is accepted."""
    started = anyio.current_time()
    await supply(client, artifact, progress=progress)
    change = await client.deploy(deployment)
    return await settle(
        client, change, artifact.digest, progress=progress, wait_seconds=wait_seconds, started=started
    )


async def supply(client: ControlClient, artifact: Artifact, *, progress: Progress) -> None:
    """Upload and compile; raises `Invalid` for what cannot run."""
    is_new = await client.upload(artifact)
    known = "" if is_new else ", already there"
    progress("upload", f"{size_text(len(artifact.data))} as {artifact.digest[:19]}{known}")
    try:
        prepared = await client.prepare(artifact.digest)
    except Invalid:
        if is_new:
            await client.withdraw(artifact.digest)
        raise
    progress("compile", "done before" if prepared.cached else f"in {duration_text(prepared.compile_seconds)}")


async def settle(
    client: ControlClient,
    change: Change,
    digest: str,
    *,
    progress: Progress,
    wait_seconds: float | None,
    started: float,
) -> Deployed:
    """Wait for a change to take effect and say what came of it."""
    progress("deploy", _change_text(change))
    deployed = Deployed(
        name=change.name,
        digest=digest,
        generation=change.generation,
        changed=change.changed,
        warnings=change.warnings,
    )
    if wait_seconds is None:
        return deployed
    description = await wait_until_ready(
        client,
        change.name,
        generation=change.generation,
        digest=digest,
        timeout_seconds=wait_seconds,
        progress=progress,
    )
    nodes = tuple(sorted({placement.node_name for placement in description.placements if placement.running}))
    progress("place", _placed_text(description, nodes))
    return replace(
        deployed, replicas=description.replicas, nodes=nodes, seconds=anyio.current_time() - started
    )


async def wait_until_ready(
    client: ControlClient,
    component: str,
    *,
    generation: int = 0,
    replicas: int | None = None,
    digest: str | None = None,
    timeout_seconds: float = PLACE_SECONDS,
    progress: Progress | None = None,
) -> ComponentDescription:
    """Return the component once its replicas answer.

    Raises `Failed` with the reason when they cannot be started, `TimedOut` with what they wait for, and
    `NotFound` when there is no such component (with a `generation`, only after the time has passed: the node
    asked may not have heard of it yet).
    """
    aim = partial(judge, generation=generation, replicas=replicas, digest=digest)
    wait = _Wait(client, component, aim, progress, is_new=generation > 0)
    async with client.events() as events:
        with anyio.move_on_after(timeout_seconds):
            return await wait.run(events)
    reason = wait.reason or "the lattice gives no reason"
    if wait.failure not in reason:
        reason += f"; it failed before: {wait.failure}"
    raise TimedOut(
        f"`{component}` is not ready after {duration_text(timeout_seconds)}: {reason}",
        details={"hint": f"`latticectl describe {component}` shows the state; it may still get ready"},
    )


class _Wait:
    # The mutable state of a wait is the last reason and failure, what was said, and since when it fails.

    def __init__(
        self,
        client: ControlClient,
        component: str,
        aim: Callable[[ComponentDescription], Verdict],
        progress: Progress | None,
        *,
        is_new: bool,
    ) -> None:
        self.reason = ""
        self.failure = ""
        self._client = client
        self._component = component
        self._aim = aim
        self._progress = progress
        self._is_new = is_new
        self._failed_since: float | None = None
        self._said = ""
        self._speaks_at = anyio.current_time() + QUIET_SECONDS

    async def run(self, events: Listener[Event]) -> ComponentDescription:
        while True:
            description = await self._describe()
            if description is not None and self._is_over(description):
                return description
            await events.wait_any(POLL_SECONDS)

    async def _describe(self) -> ComponentDescription | None:
        try:
            return await self._client.describe_component(self._component)
        except NotFound:
            if not self._is_new:
                raise
            self.reason = "the nodes have not heard of it yet"
            return None

    def _is_over(self, description: ComponentDescription) -> bool:
        verdict = self._aim(description)
        if verdict.state in ("ready", "waiting"):
            self._failed_since = None
            self._say(verdict.reason)
            return verdict.state == "ready"
        now = anyio.current_time()
        self._failed_since = self._failed_since or now
        self.reason = verdict.reason
        if verdict.state == "failed":
            self.failure = verdict.reason
        if now - self._failed_since < FAILED_GRACE_SECONDS:
            return False
        if verdict.state == "superseded":
            raise Conflict(f"`{self._component}` was changed meanwhile: {verdict.reason}")
        raise Failed(
            f"the replicas of `{self._component}` cannot be started: {verdict.reason}",
            details={"hint": f"correct it and deploy again, or `latticectl delete {self._component}`"},
        )

    def _say(self, reason: str) -> None:
        self.reason = reason
        if reason and reason != self._said and self._progress and anyio.current_time() >= self._speaks_at:
            self._progress("wait", reason)
            self._said = reason


def _reason(description: ComponentDescription) -> str:
    """All that is known of why the component is not ready, each reason once."""
    counts = description.replicas
    reasons = [description.reason or ""]
    reasons += [f"{pending.count} pending: {pending.reason}" for pending in description.pending]
    reasons += [
        f"{place.node_name or place.node}: {place.reason}" for place in description.placements if place.reason
    ]
    found = dict.fromkeys(reason for reason in reasons if reason)
    # The component's own reason is usually one of the others again, in brief.
    distinct = [reason for reason in found if not any(reason != other and reason in other for other in found)]
    return "; ".join(distinct) or f"{counts.running} of {counts.desired} replicas are running"


def _change_text(change: Change) -> str:
    return f"`{change.name}` generation {change.generation}" + ("" if change.changed else ", unchanged")


def _placed_text(description: ComponentDescription, nodes: tuple[str, ...]) -> str:
    counts = description.replicas
    where = f" on {', '.join(nodes)}" if nodes else ""
    return f"{counts.running} of {counts.desired} replicas running{where}"
