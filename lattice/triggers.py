"""What a component must export so that a trigger of a kind can call it."""

from __future__ import annotations

from collections.abc import Mapping

from lattice import wit
from lattice.errors import Invalid
from lattice.model import Trigger, TriggerKind, unversioned
from lattice.schedule import check_target, parse_cron

EXPORTS: Mapping[TriggerKind, str] = {
    TriggerKind.HTTP: "wasi:http/incoming-handler",
    TriggerKind.MESSAGING: "wasmcloud:messaging/handler",
    TriggerKind.KEYVALUE: "wasi:keyvalue/watcher",
}
"""By kind, without a version; a schedule calls what its configuration names."""


def check_exports(trigger: Trigger, exports: Mapping[str, wit.Interface]) -> None:
    """Raise `Invalid` if a component with these exports has nothing that the trigger could call."""
    if trigger.kind is TriggerKind.CRON:
        check_target(parse_cron(trigger.configuration), wit.ComponentType({}, exports))
        return
    wanted = EXPORTS.get(trigger.kind)
    if wanted is not None and wanted not in {unversioned(name) for name in exports}:
        raise Invalid(
            f"{trigger.component!r} does not export {wanted}, which a trigger of kind {trigger.kind} calls"
        )
