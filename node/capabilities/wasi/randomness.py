"""`wasi:random`: all three interfaces draw from the one good source, as nothing is won by a worse one."""

from __future__ import annotations

from lattice.errors import Trapped
from node.capabilities.wasi.settings import WasiSettings
from node.engine.host import GuestCall, HostInterface

RANDOM_BYTES = 1024 * 1024
"""At most so many bytes per call: a megabyte takes some milliseconds of the event loop."""


SEED = "wasi:random/insecure-seed"
"""Where a sandbox's state has it."""


def random_interfaces(settings: WasiSettings, version: str) -> tuple[HostInterface, ...]:
    """`wasi:random` over the source of `settings`."""

    def random_bytes(call: GuestCall, length: int) -> bytes:
        if length > RANDOM_BYTES:
            raise Trapped(
                f"the component asked for {length} random bytes at once: at most {RANDOM_BYTES} are given"
            )
        return settings.random_bytes(length)

    def random_u64(call: GuestCall) -> int:
        return int.from_bytes(settings.random_bytes(8), "little")

    def seed(call: GuestCall) -> tuple[int, int]:
        """The same for the sandbox's whole life, as callers may ask again to find it so."""
        return call.instance.state.setdefault(SEED, (random_u64(call), random_u64(call)))  # type: ignore[no-any-return]

    return (
        HostInterface(
            name=f"wasi:random/random@{version}",
            functions={"get-random-bytes": random_bytes, "get-random-u64": random_u64},
        ),
        HostInterface(
            name=f"wasi:random/insecure@{version}",
            functions={"get-insecure-random-bytes": random_bytes, "get-insecure-random-u64": random_u64},
        ),
        HostInterface(name=f"wasi:random/insecure-seed@{version}", functions={"insecure-seed": seed}),
    )
