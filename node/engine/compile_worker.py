"""The process that compiles what somebody uploaded: `python -m node.engine.compile_worker`.

One request per process: a line of JSON, then the component's bytes on standard input; lines of JSON on
standard output, the last of them the answer. It puts the limits upon itself before it reads the first byte.
Whatever happens to it, the node that started it only sees an answer or an exit status.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import wasmtime
from wasmtime import component as wasm

from lattice import wit
from lattice.errors import Invalid
from node.engine import adapter, shim_compose
from node.engine.binary import import_names, require_component, require_module
from node.engine.carriage import Carriage, carriage
from node.engine.compiled import Form
from node.engine.configuration import EngineSettings, make_engine
from node.engine.describe import describe
from node.engine.fused_component import fused
from node.engine.preview1_module import check_command
from node.engine.skeleton import skeleton

_PR_SET_PDEATHSIG = 1
_NICENESS = 5
"""Serving goes before compiling."""
_MAX_MESSAGE = 600

_FUTURE_WASI = re.compile(r"wasi:[^@]+@(0\.[3-9]|[1-9])\b")
_ASYNC = re.compile(
    r"component[ -]model async|async (function|lift|lower|option)|`(stream|future|error-context)`"
)


def main() -> None:
    """Serve the one request and end the process."""
    request = json.loads(sys.stdin.buffer.readline())
    _limit(request["limits"])
    artifact = sys.stdin.buffer.read(request["size"])
    _say(**_answer(request, artifact))
    os._exit(0)  # no destructors: freeing a large component takes longer than the exit


def _limit(limits: Mapping[str, int]) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(_NICENESS)
    for kind, value in (
        (resource.RLIMIT_DATA, limits["memory_bytes"]),
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_FSIZE, limits["code_bytes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        _, most = resource.getrlimit(kind)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        # The hard limit on time comes a second later, so that the exit status tells which limit it was.
        grace = 1 if kind == resource.RLIMIT_CPU and value != most else 0
        resource.setrlimit(kind, (value, value + grace))


def _answer(request: Mapping[str, Any], artifact: bytes) -> dict[str, Any]:
    try:
        return {"done": _prepare(request, artifact)}
    except Invalid as error:
        return {"invalid": error.message}
    except wasmtime.WasmtimeError as error:
        return {"invalid": explain(str(error))}
    except MemoryError:
        return {"failed": "memory"}
    except OSError as error:
        return {"failed": errno.errorcode.get(error.errno or 0, "OSError"), "message": str(error)}


def _prepare(request: Mapping[str, Any], artifact: bytes) -> dict[str, Any]:
    settings = EngineSettings(**request["settings"], is_pooling=False)
    engine = make_engine(settings)
    if request["is_module"]:
        return _prepare_module(engine, request["output"], artifact)
    _say(phase="describe")
    started = time.perf_counter()
    type_ = describe_artifact(engine, artifact)
    done: dict[str, Any] = {
        "type": wit.component_type_to_json(type_),
        "describe_seconds": time.perf_counter() - started,
    }
    warnings: list[str] = []
    spared: frozenset[str] = frozenset()
    if (shim := _shim(engine, artifact, type_, Form(request["form"]), warnings)) is not None:
        compose, carried = shim
        artifact = compose(artifact, type_, carried, shim_compose.load_core())
        type_, spared = shim_compose.composed_type(type_, carried), carried.spared
        done["shimmed_type"] = wit.component_type_to_json(type_)
    plan = adapter.plan(type_, spared)
    if request["output"]:
        _say(phase="compile")
        started = time.perf_counter()
        component, plan, warning = _compile_fused(engine, artifact, plan)
        done["code_bytes"] = _write(request["output"], component.serialize())
        done["compile_seconds"] = time.perf_counter() - started
        done["warnings"] = [*warnings, *([warning] if warning else [])]
    done["adapted_imports"] = sorted(plan.imports)
    done["adapted_exports"] = sorted(plan.exports)
    return done


def _shim(
    engine: wasmtime.Engine, artifact: bytes, type_: wit.ComponentType, form: Form, warnings: list[str]
) -> tuple[shim_compose.Composing, Carriage] | None:
    """What puts the component and the shim together; without it, the host serves the component, slower."""
    if form is Form.PLAIN or shim_compose.handler_export(type_) is None:
        return None
    core = shim_compose.load_core()
    bare, reasons = skeleton(artifact), []
    try:
        carried = carriage(type_, form)
    except Invalid as error:
        warnings.append(f"its HTTP requests are served by host functions: {error.message}")
        return None
    for compose in shim_compose.compositions(carried):
        try:
            wasm.Component(engine, compose(bare, type_, carried, core))
        except (wasmtime.WasmtimeError, Invalid) as error:
            reasons.append(_short(str(error)))
        else:
            if reasons:
                warnings.append(f"its HTTP requests take longer than they could: {reasons[0]}")
            return compose, carried
    warnings.append(f"its HTTP requests are served by host functions: {reasons[-1]}")
    return None


def _prepare_module(engine: wasmtime.Engine, output: str, artifact: bytes) -> dict[str, Any]:
    require_module(artifact)
    _say(phase="compile")
    started = time.perf_counter()
    module = wasmtime.Module(engine, artifact)
    check_command(module)
    return {
        "code_bytes": _write(output, module.serialize()),
        "compile_seconds": time.perf_counter() - started,
    }


def describe_artifact(engine: wasmtime.Engine, artifact: bytes) -> wit.ComponentType:
    """The component's type without compiling its code; raises `Invalid` or `WasmtimeError`."""
    require_component(artifact)
    for name in import_names(artifact):
        if _FUTURE_WASI.match(name):
            raise Invalid(_unsupported_wasi(f"it imports `{name}`"))
    return describe(skeleton(artifact), engine)


def _compile_fused(
    engine: wasmtime.Engine, artifact: bytes, plan: adapter.AdapterPlan
) -> tuple[wasm.Component, adapter.AdapterPlan, str | None]:
    """The component with as few core modules as may be, or as it is."""
    try:
        return _compile(engine, fused(artifact), plan)
    except (wasmtime.WasmtimeError, Invalid):
        return _compile(engine, artifact, plan)


def _compile(
    engine: wasmtime.Engine, artifact: bytes, plan: adapter.AdapterPlan
) -> tuple[wasm.Component, adapter.AdapterPlan, str | None]:
    """The compiled component, inside its adapter where it needs one and can have one."""
    warning = None
    bare = b"" if plan.is_empty else skeleton(artifact)
    for candidate in adapter.candidates(plan):
        try:
            # The skeleton tells in milliseconds whether the adapter fits, before any code is compiled.
            wasm.Component(engine, adapter.adapt(bare, candidate))
        except (wasmtime.WasmtimeError, Invalid) as error:
            warning = (
                warning or f"some byte lists cross one by one: the adapter does not fit: {_short(str(error))}"
            )
        else:
            return wasm.Component(engine, adapter.adapt(artifact, candidate)), candidate, warning
    return wasm.Component(engine, artifact), replace(plan, imports=frozenset(), exports=frozenset()), warning


def _write(path: str, code: bytearray) -> int:
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(code)
        file.flush()
        os.fsync(file.fileno())
    return len(code)


def explain(error: str) -> str:
    """What a compiler's message means to who deploys the component."""
    if _ASYNC.search(error):
        return _unsupported_wasi(_short(error))
    return f"the component is not valid: {_short(error)}"


def _unsupported_wasi(reason: str) -> str:
    return (
        f"the component is made for WASI 0.3 or later ({reason}), whose async functions, streams and futures "
        "can't be run yet: build it for WASI 0.2"
    )


def _short(error: str) -> str:
    """An error with its causes on one line, of bounded length."""
    lines = [line.strip() for line in error.splitlines()]
    text = ": ".join(line for line in lines if line and line != "Caused by:")
    return text[:_MAX_MESSAGE]


def _say(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
