"""The changes that control operations make to an application. Pure: previous one in, wanted one out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from lattice.edits import Change
from lattice.errors import Conflict, Invalid, NotFound
from lattice.fields import refuse_unknown
from lattice.model import Application, ComponentSpec, Limits, Link, Trigger, TriggerKind, new_application

SPEC_FIELDS = tuple(
    field.name for field in fields(ComponentSpec) if field.name not in ("name", "digest", "limits")
)
LINK_FIELDS = ("name", "idempotent", "configuration", "configuration_from", "secrets")


def spec_from_request(request: Mapping[str, Any]) -> ComponentSpec:
    """The component that a deploy request asks for; raises `Invalid` that names the field."""
    limits = request.get("limits") or {}
    if not isinstance(limits, Mapping):
        raise Invalid("limits must be a map of names to numbers")
    refuse_unknown(Limits, limits, "limits")
    fields = {name: request[name] for name in SPEC_FIELDS if request.get(name) is not None}
    body = {
        **fields,
        "name": required(request, "name"),
        "digest": required(request, "digest"),
        "limits": dict(limits),
    }
    return ComponentSpec.from_dict(body)


def links_from_request(request: Mapping[str, Any], source: str) -> tuple[Link, ...]:
    """The links that a deploy request brings along."""
    items = _maps(request, "links", "with `interface` and `target`")
    return tuple(
        Link.from_dict({**item, "source": source}, f"links[{index}]") for index, item in enumerate(items)
    )


def triggers_from_request(request: Mapping[str, Any], component: str) -> tuple[Trigger, ...]:
    """The triggers that a deploy request brings along."""
    items = _maps(request, "triggers", "with `kind` and `configuration`")
    return tuple(
        Trigger.from_dict({**item, "component": component}, f"triggers[{index}]")
        for index, item in enumerate(items)
    )


def _maps(request: Mapping[str, Any], field: str, kind: str) -> list[Mapping[str, Any]]:
    items = request.get(field) or []
    if not isinstance(items, list | tuple) or not all(isinstance(item, Mapping) for item in items):
        raise Invalid(f"{field} must be a list of maps {kind}")
    return list(items)


def required(request: Mapping[str, Any], field: str) -> str:
    """A text that the request must have; raises `Invalid` that names it."""
    value = request.get(field)
    if not isinstance(value, str) or not value:
        raise Invalid(f"{field} is missing from the request")
    return value


def deployed(
    spec: ComponentSpec,
    links: Iterable[Link],
    triggers: Iterable[Trigger],
    expected_generation: int | None,
) -> Change:
    """The application with this component, its own links and triggers kept and these added."""

    def change(previous: Application | None, now_ms: int) -> Application:
        _check_generation(previous, expected_generation)
        if previous is None or previous.is_deleted:
            return new_application(
                spec.name, previous, now_ms, components=[spec], links=links, triggers=triggers
            )
        components = [item for item in previous.components if item.name != spec.name] + [spec]
        return _unless_equal(
            previous,
            components=components,
            links=with_added(previous.links, links),
            triggers=with_added(previous.triggers, triggers),
        )

    return change


def updated(component: str, digest: str, expected_generation: int | None) -> Change:
    """The component with other code."""

    def change(previous: Application | None, now_ms: int) -> Application:
        _check_generation(previous, expected_generation)
        return _with_component(previous, component, digest=digest)

    return change


def scaled(component: str, replicas: int) -> Change:
    """The component with another number of replicas."""
    return lambda previous, now_ms: _with_component(previous, component, replicas=replicas)


def deleted(component: str) -> Change:
    """The application without the component; its tombstone when that was the last one."""

    def change(previous: Application | None, now_ms: int) -> Application:
        present = _present(previous, component)
        components = [item for item in present.components if item.name != component]
        if not components:
            return present.tombstone(now_ms)
        links = [link for link in present.links if link.source != component]
        triggers = [trigger for trigger in present.triggers if trigger.component != component]
        return present.changed(components=components, links=links, triggers=triggers)

    return change


def linked(link: Link) -> Change:
    """The source's application with the link; made without a component if there is none yet."""

    def change(previous: Application | None, now_ms: int) -> Application:
        if previous is None or previous.is_deleted:
            return new_application(link.source, previous, now_ms, components=[], links=[link])
        return _unless_equal(previous, links=with_added(previous.links, [link]))

    return change


def unlinked(source: str, identity: tuple[str, str, str]) -> Change:
    """The source's application without the link."""

    def change(previous: Application | None, now_ms: int) -> Application:
        if previous is None or previous.is_deleted:
            raise NotFound(f"there is no component {source!r}, so it has no link")
        links = [link for link in previous.links if link.identity != identity]
        if len(links) == len(previous.links):
            raise NotFound(
                f"{source!r} has no link {identity[2]!r} of {identity[1]}; see `latticectl link get`"
            )
        if not (links or previous.triggers or previous.components):
            return previous.tombstone(now_ms)
        return previous.changed(links=links)

    return change


def triggered(trigger: Trigger) -> Change:
    """The component's application with the trigger; made without a component if there is none yet."""

    def change(previous: Application | None, now_ms: int) -> Application:
        if previous is None or previous.is_deleted:
            return new_application(trigger.component, previous, now_ms, components=[], triggers=[trigger])
        return _unless_equal(previous, triggers=with_added(previous.triggers, [trigger]))

    return change


def untriggered(component: str, identity: tuple[str, TriggerKind, str]) -> Change:
    """The component's application without the trigger."""

    def change(previous: Application | None, now_ms: int) -> Application:
        if previous is None or previous.is_deleted:
            raise NotFound(f"there is no component {component!r}, so it has no trigger")
        triggers = [trigger for trigger in previous.triggers if trigger.identity != identity]
        if len(triggers) == len(previous.triggers):
            raise NotFound(
                f"{component!r} has no {identity[1]} trigger {identity[2]!r}; see `latticectl get triggers`"
            )
        if not (triggers or previous.links or previous.components):
            return previous.tombstone(now_ms)
        return previous.changed(triggers=triggers)

    return change


Identified = TypeVar("Identified", Link, Trigger)


def with_added(present: Iterable[Identified], added: Iterable[Identified]) -> tuple[Identified, ...]:
    """All of both; of two of the same identity the added one, in the other's place."""
    found: dict[tuple[str, ...], Identified] = {item.identity: item for item in present}
    found.update({item.identity: item for item in added})
    return tuple(found.values())


def _check_generation(previous: Application | None, expected: int | None) -> None:
    present = 0 if previous is None or previous.is_deleted else previous.generation
    if expected is not None and not isinstance(expected, int):
        raise Invalid("expected_generation must be a whole number")
    if expected is not None and expected != present:
        raise Conflict(
            f"generation {expected} was expected, but it is {present}; look at the change, then repeat"
        )


def _present(previous: Application | None, component: str) -> Application:
    is_present = previous is not None and not previous.is_deleted
    if previous is None or not is_present:
        raise NotFound(f"there is no component {component!r}; `latticectl get components` lists them")
    return previous


def _with_component(previous: Application | None, component: str, **changes: Any) -> Application:
    present = _present(previous, component)
    found = present.component(component)
    if found is None:
        raise NotFound(f"{component!r} is linked but not deployed; deploy it with `latticectl deploy`")
    wanted = replace(found, **changes)
    components = [wanted if item is found else item for item in present.components]
    return _unless_equal(present, components=components)


def _unless_equal(
    previous: Application,
    *,
    components: Iterable[ComponentSpec] | None = None,
    links: Iterable[Link] | None = None,
    triggers: Iterable[Trigger] | None = None,
) -> Application:
    changed = previous.changed(components=components, links=links, triggers=triggers)
    return previous if replace(changed, generation=previous.generation) == previous else changed
