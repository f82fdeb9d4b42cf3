"""`wasi:clocks`: two clocks, and pollables that wait on the event loop. The time zone is always UTC."""

from __future__ import annotations

from typing import Any

from node.capabilities.wasi.pollables import Deadline, Pollable
from node.capabilities.wasi.settings import WasiSettings
from node.engine.host import HostInterface

SECOND_NS = 1_000_000_000

RESOLUTION_NS = 1


def clock_interfaces(settings: WasiSettings, version: str) -> tuple[HostInterface, ...]:
    """The clocks of `settings`; the monotonic one starts near zero and so says nothing of the host's age."""
    return _monotonic(settings, version), _wall(settings, version), _timezone(version)


def _monotonic(settings: WasiSettings, version: str) -> HostInterface:
    # It begins at one second and not at zero, which some language runtimes take for a broken clock.
    origin = settings.monotonic_ns() - SECOND_NS

    def now() -> int:
        return settings.monotonic_ns() - origin

    return HostInterface(
        name=f"wasi:clocks/monotonic-clock@{version}",
        functions={
            "now": lambda call: now(),
            "resolution": lambda call: RESOLUTION_NS,
            "subscribe-instant": lambda call, when: Pollable(Deadline(when, now)),
            "subscribe-duration": lambda call, duration: Pollable(Deadline(now() + duration, now)),
        },
    )


def _wall(settings: WasiSettings, version: str) -> HostInterface:
    return HostInterface(
        name=f"wasi:clocks/wall-clock@{version}",
        functions={
            "now": lambda call: _datetime(settings.wall_ns()),
            "resolution": lambda call: _datetime(RESOLUTION_NS),
        },
    )


def _timezone(version: str) -> HostInterface:
    utc = {"utc-offset": 0, "name": "UTC", "in-daylight-saving-time": False}
    return HostInterface(
        name=f"wasi:clocks/timezone@{version}",
        functions={"display": lambda call, when: utc, "utc-offset": lambda call, when: 0},
    )


def _datetime(nanoseconds: int) -> dict[str, Any]:
    seconds, rest = divmod(nanoseconds, SECOND_NS)
    return {"seconds": seconds, "nanoseconds": rest}
