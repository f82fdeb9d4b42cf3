"""A guest without wasm: calls host functions as a component would, and drops what it holds at its end."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from node.capabilities.wasi import WasiSettings, wasi_interfaces
from node.engine.host import CallContext, GuestCall
from tests.node.engine.bare_instance import BareInstance


class BareGuest(BareInstance):
    """One sandbox with these settings; `end` drops what it still holds, as the engine does."""

    alive: ClassVar[list[BareGuest]] = []

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.alive.append(self)
        self._held: list[Any] = []
        self._interfaces = {
            interface.name.partition("@")[0]: interface
            for interface in wasi_interfaces(WasiSettings(**settings))
        }
        self.logged: list[tuple[str, bytes]] = []
        self.call = GuestCall("demo", CallContext(deadline=0), self, self._log)

    async def __call__(self, interface: str, function: str, *args: Any) -> Any:
        """Call `wasi:interface#function`."""
        assert self.call is not None
        value = self._interfaces[f"wasi:{interface}"].functions[function](self.call, *args)
        value = await value if inspect.isawaitable(value) else value
        self._held.extend(_resources(value))
        return value

    async def file(self, method: str, *args: Any) -> Any:
        """Call a method of a descriptor; the value of its success, or its error code."""
        return plain(await self("filesystem/types", f"[method]descriptor.{method}", *args))

    async def stream(self, method: str, *args: Any) -> Any:
        """Call a method of a stream, as in `input-stream.read`; the value of its success, or its error."""
        return plain(await self("io/streams", f"[method]{method}", *args))

    def drop(self, interface: str, resource: str, value: Any) -> None:
        assert self.call is not None
        self._held = [held for held in self._held if held is not value]
        self._interfaces[f"wasi:{interface}"].resources[resource](self.call, value)

    def end(self) -> None:
        """Drop everything, the youngest first."""
        while self._held:
            held = self._held.pop()
            held.close()

    def _log(self, call: GuestCall, stream: str, data: bytes) -> None:
        self.logged.append((stream, data))


def _resources(value: Any) -> list[Any]:
    """The host's objects in a value that hold something."""
    if isinstance(value, dict):
        return _resources(list(value.values()))
    if isinstance(value, list | tuple):
        return [found for item in value for found in _resources(item)]
    return [value] if hasattr(value, "close") or hasattr(value, "release") else []


def plain(result: Any) -> Any:
    """The value of `{"ok": value}`, or what is in `{"err": ...}`."""
    return result["ok"] if "ok" in result else result["err"]
