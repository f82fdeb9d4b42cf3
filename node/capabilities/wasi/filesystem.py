"""`wasi:filesystem` without a single folder: it links, and programs find no file.

No descriptor is ever handed out, so none of the methods can be reached by a guest; they are here for
linking, and answer for the day when a descriptor of another kind exists.
"""

from __future__ import annotations

from typing import Any

from node.capabilities.wasi.io_interfaces import forget
from node.engine.host import GuestCall, HostInterface

DESCRIPTOR_METHODS = (
    "read-via-stream", "write-via-stream", "append-via-stream", "advise", "sync-data", "get-flags",
    "get-type", "set-size", "set-times", "read", "write", "read-directory", "sync", "create-directory-at",
    "stat", "stat-at", "set-times-at", "link-at", "open-at", "readlink-at", "remove-directory-at",
    "rename-at", "symlink-at", "unlink-file-at", "metadata-hash", "metadata-hash-at",
)  # fmt: skip
"""All whose result can be an `error-code`: every method but `is-same-object`."""


def filesystem_interfaces(version: str) -> tuple[HostInterface, ...]:
    """The interfaces of a component that no folder is granted to."""
    types = HostInterface(
        name=f"wasi:filesystem/types@{version}",
        functions={
            **{f"[method]descriptor.{name}": _bad_descriptor for name in DESCRIPTOR_METHODS},
            "[method]descriptor.is-same-object": lambda call, one, other: one is other,
            "[method]directory-entry-stream.read-directory-entry": _bad_descriptor,
            "filesystem-error-code": lambda call, error: None,
        },
        resources={"descriptor": forget, "directory-entry-stream": forget},
    )
    preopens = HostInterface(
        name=f"wasi:filesystem/preopens@{version}", functions={"get-directories": lambda call: []}
    )
    return types, preopens


def _bad_descriptor(call: GuestCall, *args: Any) -> Any:
    return {"err": "bad-descriptor"}
