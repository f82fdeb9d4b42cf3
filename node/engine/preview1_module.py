"""Which core modules are commands of WASI 0.1: the only ones that run without being made a component."""

from __future__ import annotations

import wasmtime

from lattice.errors import Invalid

WASI = "wasi_snapshot_preview1"
FUNCTIONS = frozenset(
    [
        "args_get",
        "args_sizes_get",
        "clock_res_get",
        "clock_time_get",
        "environ_get",
        "environ_sizes_get",
        "fd_advise",
        "fd_allocate",
        "fd_close",
        "fd_datasync",
        "fd_fdstat_get",
        "fd_fdstat_set_flags",
        "fd_fdstat_set_rights",
        "fd_filestat_get",
        "fd_filestat_set_size",
        "fd_filestat_set_times",
        "fd_pread",
        "fd_prestat_dir_name",
        "fd_prestat_get",
        "fd_pwrite",
        "fd_read",
        "fd_readdir",
        "fd_renumber",
        "fd_seek",
        "fd_sync",
        "fd_tell",
        "fd_write",
        "path_create_directory",
        "path_filestat_get",
        "path_filestat_set_times",
        "path_link",
        "path_open",
        "path_readlink",
        "path_remove_directory",
        "path_rename",
        "path_symlink",
        "path_unlink_file",
        "poll_oneoff",
        "proc_exit",
        "proc_raise",
        "random_get",
        "sched_yield",
        "sock_accept",
        "sock_recv",
        "sock_send",
        "sock_shutdown",
    ]
)
"""What WASI 0.1 has; what came before it under other names (`wasi_unstable`) differs in its layouts."""
_START = "_start"
_INITIALIZE = "_initialize"
_DEFAULT = ""
"""The function without a name: what runtimes run of a library that has one."""
CURE = (
    "`latticectl run` takes core modules that are commands: build a program with a `main` for wasm32-wasip1"
)


def entry_points(module: wasmtime.Module) -> tuple[str, ...]:
    """The functions that make up a run of the command, in order; none if it is no command."""
    names = {item.name for item in module.exports if _is_entry(item.type)}
    if _START in names:
        return (_START,)
    if _DEFAULT in names:
        return (_INITIALIZE, _DEFAULT) if _INITIALIZE in names else (_DEFAULT,)
    return ()


def check_command(module: wasmtime.Module) -> None:
    """Raise `Invalid`, which says what is wrong, unless it can be run and imports WASI 0.1 only."""
    exports = {item.name: item.type for item in module.exports}
    for item in module.imports:
        if item.module != WASI or item.name not in FUNCTIONS:
            name = item.module if item.module != WASI else f"{WASI}.{item.name}"
            raise Invalid(f"this core module imports `{name}`, which is not WASI 0.1: {CURE}")
    if not entry_points(module):
        kind = "is a library (a reactor)" if _INITIALIZE in exports else f"has no function `{_START}`"
        raise Invalid(f"this core module {kind}, not a command: {CURE}")
    if not isinstance(exports.get("memory"), wasmtime.MemoryType):
        raise Invalid(f"this core module exports no `memory`, which WASI 0.1 needs: {CURE}")


def _is_entry(type_: object) -> bool:
    return isinstance(type_, wasmtime.FuncType) and not type_.params and not type_.results
