"""A component that exports `wasi:cli/run`, in a sandbox of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import anyio

from lattice import wit
from lattice.assignments import Prepare
from lattice.clock import now
from lattice.errors import Invalid, LatticeError, TimedOut, Trapped
from lattice.jobs import FAILED, STDERR, STDOUT, TIMED_OUT, TRAPPED, JobSpec, Outcome
from lattice.model import ComponentSpec
from lattice.streams import ByteReceiver
from lattice.tasks import open_tasks
from node.capabilities.wasi import Exited, WasiSettings
from node.capabilities.wasi.pipes import PipeInput, PipeOutput, pump_input
from node.engine.compiled import CompiledComponent
from node.engine.engine import Engine
from node.engine.host import CallContext, HostInterface, LogSink
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool
from node.jobs.job import Job
from node.jobs.program import Write

RUN = "wasi:cli/run@0.2."

InterfacesFor = Callable[
    [Prepare, wit.ComponentType, Callable[[WasiSettings], WasiSettings]], Sequence[HostInterface]
]
"""What a component imports, as bound on this node, with its view of WASI changed; raises `Denied`."""


def run_export(component: wit.ComponentType) -> str:
    """The name of the export that makes it a command. Raises `Invalid` if there is none."""
    for name in component.exports:
        if name.startswith(RUN):
            return name
    exports = ", ".join(component.exports) or "nothing"
    raise Invalid(
        f"the component is no command: it exports {exports}, not `wasi:cli/run`; "
        "`latticectl deploy` and `latticectl call` are for such components"
    )


class ComponentProgram:
    """Made by `open_component`; its pool has room for one instance and makes none ahead."""

    def __init__(self, spec: JobSpec, pool: ComponentPool, export: str, stdio: _Stdio) -> None:
        self._spec = spec
        self._pool = pool
        self._export = export
        self._stdio = stdio

    async def run(self, source: ByteReceiver | None, write: Write) -> Outcome:
        stdio = self._stdio
        async with open_tasks() as feeding:
            if source is None:
                stdio.input.end()
            else:
                feeding.start_soon(pump_input, source, stdio.input)
            async with open_tasks() as writing:
                writing.start_soon(_pump, stdio.output, STDOUT, write)
                writing.start_soon(_pump, stdio.error, STDERR, write)
                outcome = await self._call()
                stdio.output.end()
                stdio.error.end()
            feeding.cancel_scope.cancel()
        return outcome

    async def _call(self) -> Outcome:
        context = CallContext(deadline=now() + self._spec.timeout_seconds, call_id=self._pool.name)
        try:
            result = await self._pool.call(self._export, "run", (), context)
        except Exited as end:
            return Outcome(exit_code=end.status & 0xFF)
        except Trapped as error:
            return Outcome(exit_code=TRAPPED, reason=error.message)
        except TimedOut:
            return Outcome(exit_code=TIMED_OUT, reason=f"it ran for {self._spec.timeout_seconds:g} s")
        except LatticeError as error:
            return Outcome(exit_code=FAILED, reason=f"{error.code}: {error.message}")
        return Outcome(exit_code=1 if isinstance(result, dict) and "err" in result else 0)

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Stdio:
    """The guest's ends of its standard streams."""

    def __init__(self) -> None:
        self.input = PipeInput()
        self.output = PipeOutput()
        self.error = PipeOutput()


async def open_component(
    engine: Engine,
    compiled: CompiledComponent,
    job: Job,
    *,
    export: str,
    interfaces: InterfacesFor,
    sink: LogSink,
) -> ComponentProgram:
    """Load and link a command, whose `run` is in that export; capabilities know it as the job.

    Raises `Denied` for what it was not granted.
    """
    spec, component = job.spec, job.component
    stdio = _Stdio()
    adapt = partial(
        replace,
        arguments=(spec.component.name, *spec.arguments),
        standard_input=stdio.input,
        standard_output=stdio.output,
        standard_error=stdio.error,
        exact_exit=True,
    )
    step = Prepare(life=0, spec=component, links=job.links, revision=component.name)
    imports = interfaces(step, compiled.type, adapt)
    await engine.prepare(compiled)
    try:
        pool = _pool(engine, compiled, component, imports, sink)
    finally:
        engine.unload(compiled)
    return ComponentProgram(spec, pool, export, stdio)


def _pool(
    engine: Engine,
    compiled: CompiledComponent,
    component: ComponentSpec,
    imports: Sequence[HostInterface],
    sink: LogSink,
) -> ComponentPool:
    limits: dict[str, Any] = {
        "memory_bytes": component.limits.memory_bytes,
        "log_bytes_per_second": component.limits.log_bytes_per_second,
    }
    return ComponentPool(
        engine,
        compiled,
        name=component.name,
        limits=InstanceLimits(**limits, prewarm=0, queue_length=0),
        slots=1,
        imports=imports,
        sink=sink,
    )


async def _pump(pipe: PipeOutput, stream: int, write: Write) -> None:
    with suppress(anyio.EndOfStream):
        while True:
            await write(stream, await pipe.take())
