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

from node.engine.capi import EngineSettings, make_engine
from node.engine.preview1_module import START
from node.engine.traps import explain

_PR_SET_PDEATHSIG = 1
_NEVER = 1 << 62
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
    except wasmtime.ExitTrap as end:
        return {"status": end.code}
    except wasmtime.WasmtimeError as error:
        return {"trap": explain(str(error)).message}
    except OSError as error:
        return {"failed": str(error)}
    return {"status": 0}


def _call(request: Mapping[str, Any]) -> None:
    engine = make_engine(EngineSettings(**request["settings"], is_pooling=False))
    store = wasmtime.Store(engine)
    store.set_limits(memory_size=request["memory_bytes"])
    store.set_epoch_deadline(_NEVER)
    store.set_wasi(_wasi(request))
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    module = wasmtime.Module.deserialize_file(engine, request["module"])
    start = linker.instantiate(store, module).exports(store)[START]
    assert isinstance(start, wasmtime.Func)
    start(store)


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
