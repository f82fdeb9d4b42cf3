"""`wasi:random`: all three interfaces draw from the one good source, as nothing is won by a worse one."""

from __future__ import annotations

from lattice.errors import Trapped
from node.capabilities.wasi.settings import WasiSettings
from node.engine.host import GuestCall, HostInterface

RANDOM_BYTES = 1024 * 1024
"""At most so many bytes per call: a megabyte takes some milliseconds of the event loop."""


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
        return random_u64(call), random_u64(call)

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
