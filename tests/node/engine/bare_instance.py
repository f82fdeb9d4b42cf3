"""A sandbox without wasm, as far as host functions see one."""

from __future__ import annotations

from typing import Any

from node.engine.byte_store import ByteStore, Chunks
from node.engine.host import GuestCall


class BareInstance:
    """Implements `GuestInstance`: keeps what capabilities keep for a sandbox; bytes wait in Python."""

    def __init__(self) -> None:
        self.state: dict[Any, Any] = {}
        self.call: GuestCall | None = None

    def new_store(self, number: int, window: int, *, is_input: bool) -> ByteStore:
        return Chunks()

    def part_stores(self) -> None:
        return None

    def answer_early(self, text: bytes) -> None:
        return None
