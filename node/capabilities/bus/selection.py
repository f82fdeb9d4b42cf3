"""Which link a guest chose for an interface; it holds for the sandbox's present call and no other."""

from __future__ import annotations

from collections.abc import Iterable

from lattice.model import unversioned
from node.engine.host import GuestCall

DEFAULT = "default"
STATE_KEY = "wasmcloud:bus/selection"
"""Of `call.instance.state`: a map of interfaces without versions to names of links."""


def select(call: GuestCall, interfaces: Iterable[str], name: str) -> None:
    """Use the links of this name for these interfaces until the call ends or chooses again.

    Forgotten at the end of the call: a sandbox that serves several calls starts each one with its defaults.
    """
    state = call.instance.state
    if STATE_KEY not in state:
        state[STATE_KEY] = {}
        call.at_end(lambda: state.pop(STATE_KEY, None))
    state[STATE_KEY].update({unversioned(interface): name for interface in interfaces})


def selected(call: GuestCall, interface: str) -> str:
    """The name of the link that the guest chose for the interface, `default` if it chose none."""
    chosen = call.instance.state.get(STATE_KEY)
    return DEFAULT if chosen is None else chosen.get(unversioned(interface), DEFAULT)
