"""The process that runs one command of WASI 0.1: `python -m node.engine.preview1_worker FD`.

wasmtime's own WASI 0.1 does not give its thread back while the guest waits for input, or sleeps, so nothing
but the end of a process ends it surely. The process's standard streams are the guest's; what to run, and how
it ended, crosses the socket FD as a line of JSON each.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

import wasmtime

from node.engine.configuration import EngineSettings, make_engine
from node.engine.preview1_module import WASI, entry_points
from node.engine.traps import explain

_PR_SET_PDEATHSIG = 1
_NEVER = 1 << 62
_TABLE_ELEMENTS = 1_000_000
"""Of each table; real programs have some thousand functions in one."""
_MAX_REQUEST_BYTES = 16 << 20


def main() -> None:
    """Run the guest and end the process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        request = json.loads(channel.makefile("rb").readline(_MAX_REQUEST_BYTES))
        channel.sendall(json.dumps(_run(request)).encode() + b"\n")
    os._exit(0)


def _run(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        _call(request)
    except _Exit as end:
        return {"status": end.status}
    except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
        return {"trap": explain(str(error)).message}
    except Exception as error:  # the guest's standard error is no place for our traceback
        return {"failed": f"{type(error).__name__}: {error}"}
    return {"status": 0}


def _call(request: Mapping[str, Any]) -> None:
    engine = make_engine(EngineSettings(**request["settings"], is_pooling=False))
    store = wasmtime.Store(engine)
    store.set_limits(
        memory_size=request["memory_bytes"],
        table_elements=_TABLE_ELEMENTS,
        instances=1,
        tables=16,
        memories=1,
    )
    store.set_epoch_deadline(_NEVER)
    store.set_wasi(_wasi(request))
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    _define_exit(linker)
    module = wasmtime.Module.deserialize_file(engine, request["module"])
    exports = linker.instantiate(store, module).exports(store)
    for name in entry_points(module):
        function = exports[name]
        assert isinstance(function, wasmtime.Func)
        function(store)


class _Exit(Exception):
    """Raised where the guest ends itself."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status & 0xFFFFFFFF


def _define_exit(linker: wasmtime.Linker) -> None:
    """Let any status through: wasmtime's own function traps for those above 125."""

    def leave(status: int) -> None:
        raise _Exit(status)

    linker.allow_shadowing = True
    type_ = wasmtime.FuncType([wasmtime.ValType.i32()], [])
    linker.define_func(WASI, "proc_exit", type_, leave)


def _wasi(request: Mapping[str, Any]) -> wasmtime.WasiConfig:
    wasi = wasmtime.WasiConfig()
    wasi.argv = request["arguments"]
    wasi.env = list(request["environment"].items())
    wasi.inherit_stdin()
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    for host_path, guest_path, is_writable in request["folders"]:
        wasi.preopen_dir(host_path, guest_path, is_writable)
    return wasi


if __name__ == "__main__":
    main()
