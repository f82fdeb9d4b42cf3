"""What to do next, for each error: the last line of whatever `latticectl` reports."""

from __future__ import annotations

from lattice.errors import LatticeError

BY_CODE = {
    "unreachable": (
        "start a node with `lattice-node start`, or say where the lattice is with --nats URL "
        "and --lattice NAME"
    ),
    "interrupted": "it may have been done; pass --idempotent if calling it twice does no harm",
    "timed-out": "`latticectl get nodes` shows who is there; wait longer with --timeout TIME",
    "overloaded": "try again, or give it more replicas with `latticectl scale COMPONENT --replicas N`",
    "not-found": "`latticectl get components` and `latticectl get nodes` list what there is",
    "denied": "grant what is missing with `latticectl link put SOURCE INTERFACE TARGET`, then try again",
    "invalid": "correct it and try again; `{command} --help` has examples",
    "trapped": "`latticectl logs COMPONENT` shows what it wrote before it stopped",
    "failed": "the log of the node has the rest{error_id}; `latticectl describe COMPONENT` shows the state",
    "conflict": "look at the present state with `latticectl describe COMPONENT`, then try again",
}

KINDS = {"config": "configuration", "secret": "secret"}


def hint_for(
    error: LatticeError, *, command: str = "latticectl COMMAND", component: str | None = None
) -> str:
    """The hint that came with the error, or the one for its code, about this command and component."""
    own = error.details.get("hint")
    if isinstance(own, str):
        return own
    if "lattice-node start" in error.message:  # the usual cure is in the message already
        return (
            "a lattice elsewhere is reached with --nats URL or LATTICE_NATS, another here with --lattice NAME"
        )
    if "`latticectl link put " in error.message:
        return (
            "or grant it with `latticectl deploy FILE.wasm --link INTERFACE=TARGET`; "
            "`latticectl get components` lists possible targets"
        )
    if "`latticectl run ... --link " in error.message:
        return "`latticectl get components` and `latticectl get providers` list possible targets"
    for kind in ("config", "secret"):
        if f"there is no {KINDS[kind]} " in error.message:
            return f"`latticectl get {kind}s` lists those that there are"
    if "`latticectl describe " in error.message:
        cure = "start another node, or change its replicas with `latticectl scale COMPONENT --replicas N`"
        return cure.replace("COMPONENT", component) if component else cure
    error_id = f" under the id {error.error_id}" if error.error_id else ""
    hint = BY_CODE[error.code].replace("{error_id}", error_id).replace("{command}", command)
    return hint.replace("COMPONENT", component) if component else hint
