"""Control operations that change desired state. Any node serves them; the store decides between two of them.

Each takes the request's fields and returns the reply's, or raises a `LatticeError`; see `docs/control.md`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
from anyio import to_thread

from lattice import jobs, wit
from lattice.descriptions import Description
from lattice.edits import Edited, Editor
from lattice.errors import Invalid
from lattice.grants import UNRESOLVED
from lattice.model import ComponentSpec, Link, Trigger, TriggerKind, unversioned
from lattice.names import check_name
from lattice.observer import Observer
from lattice.triggers import check_exports
from node import desired_changes
from node.artifacts import Artifacts
from node.component_checks import ComponentChecks
from node.engine.compiler import Compiler
from node.replicas import Announce

KNOWN_SECONDS, KNOWN_POLL_SECONDS = 1.0, 0.01
"""How long a change of what is looked up at each call waits for nodes to say that they know it."""

Fields = Mapping[str, Any]
Operation = Callable[[Fields], Awaitable[dict[str, Any]]]


class Operations:
    """Holds no state of its own: what it changes is in the store."""

    def __init__(
        self,
        editor: Editor,
        observer: Observer,
        *,
        artifacts: Artifacts,
        compiler: Compiler,
        announce: Announce,
        checks: ComponentChecks,
        trigger_checks: Mapping[TriggerKind, Callable[[Trigger], object]],
    ) -> None:
        """`trigger_checks` raise `Invalid` for configurations of triggers."""
        self._editor = editor
        self._observer = observer
        self._artifacts = artifacts
        self._compiler = compiler
        self._announce = announce
        self._checks = checks
        self._trigger_checks = trigger_checks

    def table(self) -> dict[str, Operation]:
        """Every operation by its name on the wire."""
        return {
            "prepare": self.prepare,
            "deploy": self.deploy,
            "update": self.update,
            "scale": self.scale,
            "delete": self.delete,
            "link.put": self.put_link,
            "link.delete": self.delete_link,
            "link.get": self.get_links,
            "trigger.put": self.put_trigger,
            "trigger.delete": self.delete_trigger,
            "trigger.get": self.get_triggers,
        }

    # Artifacts

    async def prepare(self, request: Fields) -> dict[str, Any]:
        """Fetch, compile and describe an artifact that is in the store."""
        digest = desired_changes.required(request, "digest")
        began = time.monotonic()
        description, is_cached = await self._prepare(digest)
        return {
            "digest": digest,
            "size": description.size,
            "type": wit.component_type_to_json(description.type),
            "compile_seconds": time.monotonic() - began,
            "cached": is_cached,
        }

    async def _prepare(self, digest: str) -> tuple[Description, bool]:
        before = self._compiler.statistics().compiled
        compiled = await self._compiler.compile(await self._artifacts.get(digest))
        is_cached = self._compiler.statistics().compiled == before
        description = Description(digest=digest, size=compiled.size, type=compiled.type)
        await self._editor.describe(description)
        self._announce("artifact.compiled", {"digest": digest})
        return description, is_cached

    async def _described(self, digest: str) -> Description:
        return self._observer.descriptions.get(digest) or (await self._prepare(digest))[0]

    # Components

    async def deploy(self, request: Fields) -> dict[str, Any]:
        """Make a component what the request says."""
        spec = desired_changes.spec_from_request(request)
        links = desired_changes.links_from_request(request, spec.name)
        triggers = desired_changes.triggers_from_request(request, spec.name)
        self._check_owner(spec.name)
        self._checks.check_grants(spec)
        description = await self._described(spec.digest)
        wanted = desired_changes.with_added(self._links_of(spec.name), links)
        self._checks.check_imports(spec.name, description.type, wanted)
        await self._checks.check_configurations(links)
        for trigger in triggers:
            await to_thread.run_sync(self._check_trigger, trigger, description)
        change = desired_changes.deployed(spec, links, triggers, request.get("expected_generation"))
        edited = await self._editor.edit(spec.name, change, attempts=1)
        return self._changed("component.deployed", spec.name, edited, self._warnings(spec, description))

    async def update(self, request: Fields) -> dict[str, Any]:
        """Give a component other code; everything else stays."""
        component, digest = (
            desired_changes.required(request, "component"),
            desired_changes.required(request, "digest"),
        )
        found = self._observer.state.desired.component(component)
        description = await self._described(digest)
        self._checks.check_imports(component, description.type, found.links)
        change = desired_changes.updated(component, digest, request.get("expected_generation"))
        edited = await self._editor.edit(found.application, change)
        return self._changed("component.updated", component, edited, self._warnings(found.spec, description))

    async def scale(self, request: Fields) -> dict[str, Any]:
        """Change the number of replicas."""
        component = desired_changes.required(request, "component")
        replicas = request.get("replicas")
        if not isinstance(replicas, int) or isinstance(replicas, bool):
            raise Invalid("replicas must be a whole number")
        change = desired_changes.scaled(component, replicas)
        found = self._observer.state.desired.component(component)
        edited = await self._editor.edit(found.application, change)
        return self._changed("component.scaled", component, edited, [], replicas=replicas)

    async def delete(self, request: Fields) -> dict[str, Any]:
        """Delete a component with its links."""
        component = desired_changes.required(request, "component")
        application = self._application_of(component)
        edited = await self._editor.edit(application, desired_changes.deleted(component))
        users = sorted({link.source for link in self._all_links() if link.target == component})
        warnings = [f"{user!r} has a link to it that now leads nowhere" for user in users]
        return self._changed("component.deleted", component, edited, warnings)

    # Links

    async def put_link(self, request: Fields) -> dict[str, Any]:
        """Make or replace a link; its two ends are checked as far as they are known."""
        fields = {key: request[key] for key in desired_changes.LINK_FIELDS if request.get(key) is not None}
        link = Link.from_dict(
            {
                **fields,
                "source": check_name(desired_changes.required(request, "source"), "source"),
                "interface": desired_changes.required(request, "interface"),
                "target": check_name(desired_changes.required(request, "target"), "target"),
            }
        )
        source = self._observer.state.desired.components.get(link.source)
        if source is not None:
            self._checks.check_link(link, (await self._described(source.spec.digest)).type)
        await self._checks.check_configurations([link])
        edited = await self._editor.edit(self._application_of(link.source), desired_changes.linked(link))
        await self._known_by_all()
        if edited.is_changed:
            self._announce("link.put", {"component": link.source, **_link_fields(link)})
        warnings = self._checks.link_warnings(link)
        return {**_link_fields(link), "changed": edited.is_changed, "warnings": warnings}

    async def delete_link(self, request: Fields) -> dict[str, Any]:
        """Delete a link; calls over it are refused from then on."""
        source, interface = (
            desired_changes.required(request, "source"),
            desired_changes.required(request, "interface"),
        )
        name = request.get("name") or "default"
        identity = (source, unversioned(interface), name)
        change = desired_changes.unlinked(source, identity)
        edited = await self._editor.edit(self._application_of(source), change)
        await self._known_by_all()
        self._announce("link.deleted", {"component": source, "interface": interface, "name": name})
        return {"source": source, "interface": interface, "name": name, "changed": edited.is_changed}

    async def get_links(self, request: Fields) -> dict[str, Any]:
        """All links, or those of one source, with where their calls go now."""
        source = request.get("source")
        links = [link for link in self._all_links() if source in (None, link.source)]
        return {"links": [{**_link_fields(link), "route": self.route(link)} for link in links]}

    # Triggers

    async def put_trigger(self, request: Fields) -> dict[str, Any]:
        """Make or replace a trigger."""
        fields = {key: request[key] for key in ("name", "configuration") if request.get(key) is not None}
        component = check_name(desired_changes.required(request, "component"), "component")
        kind = desired_changes.required(request, "kind")
        trigger = Trigger.from_dict({**fields, "component": component, "kind": kind})
        found = self._observer.state.desired.components.get(component)
        description = await self._described(found.spec.digest) if found else None
        await to_thread.run_sync(self._check_trigger, trigger, description)
        edited = await self._editor.edit(self._application_of(component), desired_changes.triggered(trigger))
        if edited.is_changed:
            self._announce("trigger.put", {"component": component, "kind": kind, "name": trigger.name})
        return {**trigger.to_dict(), "changed": edited.is_changed}

    async def delete_trigger(self, request: Fields) -> dict[str, Any]:
        """Delete a trigger; nothing calls the component because of it from then on."""
        component = desired_changes.required(request, "component")
        fields = {"name": request.get("name") or "default", "kind": desired_changes.required(request, "kind")}
        trigger = Trigger.from_dict({**fields, "component": component})
        change = desired_changes.untriggered(component, trigger.identity)
        edited = await self._editor.edit(self._application_of(component), change)
        await self._known_by_all()
        self._announce("trigger.deleted", {"component": component, **fields})
        return {"component": component, **fields, "changed": edited.is_changed}

    async def get_triggers(self, request: Fields) -> dict[str, Any]:
        """All triggers, or those of one component or kind."""
        component, kind = request.get("component"), request.get("kind")
        applications = self._observer.state.desired.applications.values()
        found = [
            trigger
            for application in applications
            if not application.is_deleted
            for trigger in application.triggers
            if component in (None, trigger.component) and kind in (None, trigger.kind)
        ]
        return {"triggers": [trigger.to_dict() for trigger in found]}

    def route(self, link: Link) -> str:
        """`local` if every node that runs the source runs the target too, `remote`, or `unresolved`."""
        state = self._observer.state
        targets = {placement.node for placement in state.placements(link.target)}
        if not targets:
            return UNRESOLVED
        sources = {placement.node for placement in state.placements(link.source)}
        return "local" if sources and sources <= targets else "remote"

    # Checks

    def _check_trigger(self, trigger: Trigger, description: Description | None) -> None:
        """Raise `Invalid` for a configuration that makes no sense, and for what can't be called by it.

        Off the event loop: a schedule's time zone is a file.
        """
        if (check := self._trigger_checks.get(trigger.kind)) is not None:
            check(trigger)
        if description is not None:
            check_exports(trigger, description.type.exports)

    def _check_owner(self, component: str) -> None:
        if component == jobs.COMPONENT:
            raise Invalid(f"{component!r} is what calls that begin jobs name: choose another name")
        application = self._observer.state.desired.application_of(component)
        if application is not None and application.name != component:
            raise Invalid(
                f"{component!r} is a component of application {application.name!r}: choose another name"
            )
        # Both are called by their name: what is meant for one must not reach the other.
        if application is None and component in self._observer.state.observed.offers:
            raise Invalid(
                f"{component!r} is a provider (`latticectl get providers`): choose another name by `--name`"
            )

    def _warnings(self, spec: ComponentSpec, description: Description) -> list[str]:
        """What the change breaks or leaves open elsewhere."""
        exports = {unversioned(name) for name in description.type.exports}
        found = self._checks.warnings(spec, self._links_of(spec.name))
        return [*found, *self._idle_triggers(spec.name, description)] + [
            f"{link.source!r} is linked to its {link.interface}, which it no longer exports"
            for link in self._all_links()
            if link.target == spec.name and not any(link.covers(name) for name in exports)
        ]

    async def _known_by_all(self) -> None:
        """Wait until the nodes know what this one does, so that the change counts for the next call.

        Bounded: a node that is silent just now learns of it when it is back.
        """
        with anyio.move_on_after(KNOWN_SECONDS):
            # A heartbeat wakes nobody, so this looks again and again.
            while not self._is_known_by_all():  # noqa: ASYNC110
                await anyio.sleep(KNOWN_POLL_SECONDS)

    def _is_known_by_all(self) -> bool:
        state = self._observer.state
        return all(view.heartbeat.copies == state.desired.summary for view in state.observed.live())

    def _idle_triggers(self, component: str, description: Description) -> list[str]:
        """What is wrong with triggers that were put for other code, or before there was any."""
        found = self._observer.state.desired.components.get(component)
        problems = []
        for trigger in found.triggers if found is not None else ():
            try:
                check_exports(trigger, description.type.exports)
            except Invalid as error:
                problems.append(f"its {trigger.kind} trigger {trigger.name!r} calls nothing: {error.message}")
        return problems

    # Desired state as this node sees it

    def _application_of(self, component: str) -> str:
        found = self._observer.state.desired.components.get(component)
        return found.application if found else check_name(component, "component")

    def _all_links(self) -> list[Link]:
        applications = self._observer.state.desired.applications.values()
        return [link for item in applications if not item.is_deleted for link in item.links]

    def _links_of(self, component: str) -> list[Link]:
        return [link for link in self._all_links() if link.source == component]

    def _changed(
        self, event: str, component: str, edited: Edited, warnings: list[str], **details: Any
    ) -> dict[str, Any]:
        application = edited.application
        if edited.is_changed:
            self._announce(event, {"component": component, "generation": application.generation, **details})
        return {
            "name": component,
            "generation": application.generation,
            "incarnation": application.incarnation,
            "changed": edited.is_changed,
            "warnings": warnings,
        }


def _link_fields(link: Link) -> dict[str, Any]:
    return {
        "source": link.source,
        "interface": link.interface,
        "name": link.name,
        "target": link.target,
        "idempotent": link.idempotent,
        "configuration": dict(link.configuration),
        "configuration_from": list(link.configuration_from),
        "secrets": dict(link.secrets),
    }
