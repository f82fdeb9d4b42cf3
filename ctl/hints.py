"""What to do next, for each error: the last line of whatever `latticectl` reports."""

from __future__ import annotations

from lattice.errors import LatticeError

_NODES = "`latticectl get nodes` shows who is there; raise --timeout if the lattice is slow"

BY_CODE = {
    "unreachable": (
        "start a node with `lattice-node start`, or say where the lattice is with --nats URL "
        "and --lattice NAME"
    ),
    "interrupted": "it may have been done; pass --idempotent if calling it twice does no harm",
    "timed-out": f"{_NODES}; a call's own limit is --deadline",
    "overloaded": "try again, or give it more replicas with `latticectl scale COMPONENT --replicas N`",
    "not-found": "`latticectl get components` and `latticectl get nodes` list what there is",
    "denied": "grant what is missing with `latticectl link put SOURCE INTERFACE TARGET`, then try again",
    "invalid": "correct it and try again; `latticectl COMMAND --help` has examples",
    "trapped": "`latticectl logs COMPONENT` shows what it wrote before it stopped",
    "failed": "the log of the node has the rest{error_id}; `latticectl describe COMPONENT` shows the state",
    "conflict": "look at the present state with `latticectl describe COMPONENT`, then try again",
}


def hint_for(error: LatticeError) -> str:
    """The hint that came with the error, or the one for its code."""
    own = error.details.get("hint")
    if isinstance(own, str):
        return own
    if "lattice-node start" in error.message:  # the usual cure is in the message already
        return (
            "a lattice elsewhere is reached with --nats URL or LATTICE_NATS, another here with --lattice NAME"
        )
    error_id = f" under the id {error.error_id}" if error.error_id else ""
    return BY_CODE[error.code].replace("{error_id}", error_id)


def with_hint(error: LatticeError, hint: str) -> LatticeError:
    """The same error with a hint of its own, unless it brought one."""
    error.details.setdefault("hint", hint)
    return error
