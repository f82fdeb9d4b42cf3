"""The functions of `wasi:filesystem`. What may block runs on threads, a few per component."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog

from node.capabilities.wasi.filesystem import descriptors, directories
from node.capabilities.wasi.filesystem.descriptors import Descriptor
from node.capabilities.wasi.filesystem.file_errors import FileError, FileStreamFailed, from_os
from node.capabilities.wasi.filesystem.file_streams import FileInput, FileOutput
from node.capabilities.wasi.filesystem.file_threads import FileThreads
from node.capabilities.wasi.filesystem.folders import Folder
from node.capabilities.wasi.filesystem.listings import Listing
from node.capabilities.wasi.filesystem.open_files import OpenFiles
from node.capabilities.wasi.filesystem.opening import open_at
from node.capabilities.wasi.io_interfaces import IoError
from node.engine.host import GuestCall, HostFunction, HostInterface

log = structlog.get_logger()

_BLOCKING: dict[str, Callable[..., Any]] = {
    "advise": descriptors.advise,
    "sync-data": descriptors.sync_data,
    "set-size": descriptors.set_size,
    "set-times": descriptors.set_times,
    "read": descriptors.read,
    "write": descriptors.write,
    "sync": descriptors.sync,
    "create-directory-at": directories.create_directory_at,
    "stat": descriptors.describe_open,
    "stat-at": directories.describe_at,
    "set-times-at": directories.set_times_at,
    "link-at": directories.link_at,
    "readlink-at": directories.readlink_at,
    "remove-directory-at": directories.remove_directory_at,
    "rename-at": directories.rename_at,
    "symlink-at": directories.symlink_at,
    "unlink-file-at": directories.unlink_file_at,
    "metadata-hash": descriptors.hash_open,
    "metadata-hash-at": directories.hash_at,
}
"""Methods that need the descriptor and the arguments alone."""


def filesystem_interfaces(folders: Sequence[Folder], version: str) -> tuple[HostInterface, ...]:
    """The interfaces of a component that these folders are granted to."""
    threads = FileThreads()
    types = HostInterface(
        name=f"wasi:filesystem/types@{version}",
        functions={
            **{
                f"[method]descriptor.{name}": _blocking(operation, threads)
                for name, operation in _BLOCKING.items()
            },
            **_stream_methods(threads),
            "[method]descriptor.open-at": _opening(open_at, threads),
            "[method]descriptor.read-directory": _opening(Listing, threads),
            "[method]descriptor.get-flags": lambda call, descriptor: {"ok": list(descriptor.flags)},
            "[method]descriptor.get-type": _get_type,
            "[method]descriptor.is-same-object": partial(_is_same, threads=threads),
            "[method]directory-entry-stream.read-directory-entry": partial(_next_entry, threads=threads),
            "filesystem-error-code": _error_code,
        },
        resources={"descriptor": _close, "directory-entry-stream": _close},
    )
    # A component without folders asks for them at its start too: it needs no task for that.
    get_directories = partial(_open_folders, folders=folders, threads=threads) if folders else _no_folders
    preopens = HostInterface(
        name=f"wasi:filesystem/preopens@{version}", functions={"get-directories": get_directories}
    )
    return types, preopens


def _blocking(operation: Callable[..., Any], threads: FileThreads) -> HostFunction:
    async def function(call: GuestCall, *args: Any) -> Any:
        return await _result(partial(operation, *args), threads)

    return function


def _opening(operation: Callable[..., Any], threads: FileThreads) -> HostFunction:
    """An operation that opens something, which counts for the sandbox of the call."""

    async def function(call: GuestCall, *args: Any) -> Any:
        files = OpenFiles.of(call.instance.state)
        return await _result(partial(operation, *args, files=files), threads)

    return function


async def _result(work: Callable[[], Any], threads: FileThreads) -> Any:
    try:
        return {"ok": await threads.run(work)}
    except FileError as error:
        return {"err": error.code}
    except OSError as error:
        return {"err": from_os(error).code}


def _stream_methods(threads: FileThreads) -> dict[str, HostFunction]:
    def stream(make: Callable[[], Any]) -> Any:
        try:
            return {"ok": make()}
        except FileError as error:
            return {"err": error.code}

    return {
        "[method]descriptor.read-via-stream": lambda call, descriptor, offset: stream(
            lambda: FileInput(descriptor, offset, threads)
        ),
        "[method]descriptor.write-via-stream": lambda call, descriptor, offset: stream(
            lambda: FileOutput(descriptor, offset, threads)
        ),
        "[method]descriptor.append-via-stream": lambda call, descriptor: stream(
            lambda: FileOutput(descriptor, None, threads)
        ),
    }


def _get_type(call: GuestCall, descriptor: Descriptor) -> Any:
    return {"ok": "directory" if descriptor.is_directory else "regular-file"}


async def _is_same(call: GuestCall, one: Descriptor, other: Descriptor, *, threads: FileThreads) -> bool:
    return await threads.run(partial(descriptors.is_same, one, other))


async def _next_entry(call: GuestCall, listing: Listing, *, threads: FileThreads) -> Any:
    if not listing.is_at_hand:
        return await _result(listing.next, threads)
    try:
        return {"ok": listing.next()}
    except FileError as error:
        return {"err": error.code}


def _no_folders(call: GuestCall) -> list[Any]:
    return []


async def _open_folders(
    call: GuestCall, *, folders: Sequence[Folder], threads: FileThreads
) -> list[tuple[Descriptor, str]]:
    """All granted folders; one that can't be opened now is missing, as the interface has no error here."""
    files = OpenFiles.of(call.instance.state)
    opened = []
    for folder in folders:
        result = await _result(partial(descriptors.open_folder, folder, files), threads)
        if "ok" in result:
            opened.append((result["ok"], folder.guest_path))
            continue
        log.warning(
            "folder.unavailable", component=call.component, path=folder.guest_path, error=result["err"]
        )
    return opened


def _close(call: GuestCall, opened: Descriptor | Listing) -> None:
    opened.close()


def _error_code(call: GuestCall, error: IoError) -> str | None:
    return error.cause.code if isinstance(error.cause, FileStreamFailed) else None
