"""The replicas on this node: carries out the orders of the controller and serves calls to what runs.

`lattice.assignments` decides what follows from an order; here its steps are done: fetch, compile, link,
start, drain. Each revision of a component is a *life* with a pool of its own; calls go to the newest life
that runs, so that an update swaps without a failed call.

Error handling: a life that can't be prepared is reported as failed with its reason; the node goes on.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup

from lattice import wire, wit
from lattice.assignments import Assignments, Cancel, Drain, Prepare, Run, Step
from lattice.bodies import coded
from lattice.caller import CallBatch, CallRequest, Reply
from lattice.clock import now
from lattice.compatibility import match_interface
from lattice.errors import LatticeError, NotFound, Unreachable
from lattice.exchange import Exchange
from lattice.inventory import Delta
from lattice.model import Limits
from lattice.names import did_you_mean
from lattice.orders import Order, OrderReply
from lattice.outcome import Outcome, ended, failed
from lattice.streams import ByteReceiver
from node.artifacts import Artifacts
from node.capabilities.http.handler import make_handler
from node.capabilities.http.shim_profile import form_for
from node.engine.compiled import CompiledComponent, Form
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.host import CallContext, HostInterface, LogSink
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool, PoolStatistics
from node.http.handler import HttpHandler

log = structlog.get_logger()

CONCURRENT_PREPARATIONS = 8
"""Artifacts fetched and in memory at a time; the compiler has a limit of its own."""

ImportsFor = Callable[[Prepare, wit.ComponentType], Sequence[HostInterface]]
"""What a component's imports are bound to on this node; raises `Denied` for one that nothing grants."""

Describe = Callable[[CompiledComponent], Awaitable[None]]
"""Tells the lattice what an artifact is, should it not know; raises nothing."""

Announce = Callable[[str, Mapping[str, Any]], None]
"""Publishes an event (`replica.running`) with its details; never waits."""


@dataclass(slots=True, eq=False)
class _Life:
    """One revision from its preparation to its end."""

    step: Prepare
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    compiled: CompiledComponent | None = None
    pool: ComponentPool | None = None
    handler: HttpHandler | None = None
    """Answers HTTP requests, if the component does."""
    count: int = 0
    started_at: float = field(default_factory=time.time)

    @property
    def component(self) -> str:
        return self.step.spec.name


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningComponent:
    """A component that serves calls on this node, as shown to people."""

    component: str
    revision: str
    digest: str
    count: int
    started_at: float
    statistics: PoolStatistics


class Replicas:
    """Implements `lattice.caller.LocalReplicas`.

    The mutable state is the lives, and which of them serves each component.
    """

    def __init__(
        self,
        assignments: Assignments,
        *,
        artifacts: Artifacts,
        compiler: Compiler,
        engine: Engine,
        imports_for: ImportsFor,
        sink: LogSink,
        report: Callable[[Delta], None],
        announce: Announce,
        describe: Describe,
    ) -> None:
        self._assignments = assignments
        self._artifacts = artifacts
        self._compiler = compiler
        self._engine = engine
        self._imports_for = imports_for
        self._sink = sink
        self._report = report
        self._announce = announce
        self._describe = describe
        self._lives: dict[int, _Life] = {}
        self._serving: dict[str, _Life] = {}
        self._compiling: set[str] = set()
        self._limiter = anyio.CapacityLimiter(CONCURRENT_PREPARATIONS)
        self._tasks: TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<Replicas {len(self._serving)} components, {len(self._lives)} lives>"

    def start(self, tasks: TaskGroup) -> None:
        """Prepare and drain in `tasks` from now on; nothing happens before."""
        self._tasks = tasks

    # Calls

    async def call(
        self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any], *, takes_objects: bool = False
    ) -> Any:
        """The result of a call with values; `takes_objects` as the pool's, for this node's own triggers."""
        return await ended(self.begin(request, args, takes_objects=takes_objects))

    def begin(
        self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any], *, takes_objects: bool = False
    ) -> Outcome[Any]:
        """A call with values, as `ComponentPool.begin`."""
        life = self._serving.get(request.component)
        if life is None:
            return failed(_nothing_runs(request.component))
        assert life.pool is not None
        context = _context(request, life.step.spec.limits)
        return life.pool.begin(
            request.interface, request.function, args, context, takes_objects=takes_objects
        )

    def begin_batch(self, batch: CallBatch) -> Awaitable[list[Outcome[Any]]] | None:
        """Calls one after the other, as `ComponentPool.begin_batch`."""
        life = self._serving.get(batch.component)
        if life is None:
            return None
        assert life.pool is not None
        limits = life.step.spec.limits
        return life.pool.begin_batch(
            batch.interface,
            batch.function,
            batch.size,
            batch.args,
            batch.deadline,
            lambda nth: _context(batch.request(nth), limits),
            may_overlap=batch.may_overlap,
        )

    async def call_encoded(self, request: CallRequest, body: bytes, content_type: str) -> Reply:
        """The encoded result of a call with encoded arguments."""
        life = self._life(request.component)
        pool, limits = life.pool, life.step.spec.limits
        assert pool is not None
        context = _context(request, limits)
        if content_type == wire.MSGPACK:
            decode_plain = partial(wire.decode, body, max_bytes=limits.payload_bytes)
            args = await coded(len(body), decode_plain) if body else ()
            result = await pool.call(request.interface, request.function, args, context)
            return Reply(data=wire.encode(result))
        function, most = _function(life, request), limits.payload_bytes
        decode = partial(wire.decode_arguments, function, body, content_type, max_bytes=most)
        args = await coded(len(body), decode)
        result = await pool.call(request.interface, request.function, args, context)
        size = len(wire.encode(result))  # quick, and as good as the size in JSON
        data = await coded(size, partial(wire.encode_result, function, result, content_type))
        return Reply(data=data, content_type=content_type)

    async def exchange(
        self,
        request: CallRequest,
        args: Sequence[Any] | Mapping[str, Any],
        body: ByteReceiver | None,
    ) -> Exchange:
        """The result of a call with values; functions of components take and give no streams beside them."""
        if body is not None:
            await body.aclose()
        return Exchange(await self.call(request, args))

    def http(self, component: str) -> HttpHandler | None:
        """What answers HTTP requests for the component here now."""
        life = self._serving.get(component)
        return life.handler if life is not None else None

    def serves(self, component: str) -> bool:
        """Whether a replica takes calls here now."""
        return component in self._serving

    def _life(self, component: str) -> _Life:
        life = self._serving.get(component)
        if life is None:
            raise _nothing_runs(component)
        return life

    # Orders

    def order(self, order: Order) -> OrderReply:
        """Take an order, begin what it asks for and return the answer to the controller."""
        reply, steps = self._assignments.order(order)
        self._do(steps)
        return reply

    def compile_ahead(self, component: str, digest: str) -> None:
        """Fetch and compile what this node need not run yet; failures are only logged."""
        if digest not in self._compiling and self._tasks is not None:
            self._compiling.add(digest)
            self._tasks.start_soon(self._compile_ahead, component, digest)

    async def _compile_ahead(self, component: str, digest: str) -> None:
        try:
            await self._compile(digest)
        except LatticeError as error:
            log.warning("component.not-compiled-ahead", component=component, digest=digest, reason=str(error))
        except Exception:
            log.exception("component.not-compiled-ahead", component=component, digest=digest)
        finally:
            self._compiling.discard(digest)

    async def _compile(self, digest: str, form: Form = Form.SHIM) -> CompiledComponent:
        compiled = await to_thread.run_sync(self._ready, digest, form)
        if compiled is None:
            async with self._limiter:
                compiled = await self._compiler.compile(await self._artifacts.get(digest), form=form)
        self._assignments.compiled(digest)
        self._flush()
        await self._describe(compiled)
        return compiled

    def _ready(self, digest: str, form: Form) -> CompiledComponent | None:
        """What was compiled before: it neither waits for others that compile, nor is it fetched."""
        return self._compiler.cached(digest, form) if self._artifacts.holds(digest) else None

    def evict(self, digests: Collection[str]) -> None:
        """Report that this node is no longer ready to start these."""
        for digest in digests:
            self._assignments.evicted(digest)
        self._flush()

    # Steps

    def _do(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case Prepare():
                    self._prepare(step)
                case Run():
                    self._run(step)
                case Drain():
                    self._drain(step.life)
                case Cancel():
                    self._cancel(step.life)
        self._flush()

    def _prepare(self, step: Prepare) -> None:
        assert self._tasks is not None
        life = self._lives[step.life] = _Life(step)
        self._tasks.start_soon(self._prepare_life, life)

    async def _prepare_life(self, life: _Life) -> None:
        self._announce("replica.starting", {"component": life.component, "revision": life.step.revision})
        with life.scope:
            try:
                await self._make_pool(life)
            except LatticeError as error:
                self._fail(life, str(error))
                return
            except Exception:
                log.exception("replica.failed", component=life.component)
                self._fail(life, "the node failed to prepare it; its log has the reason")
                return
            self._do(self._assignments.prepared(life.step.life))
        if life.step.life not in self._lives:
            self._release(life)  # cancelled meanwhile, maybe when it was as good as prepared

    async def _make_pool(self, life: _Life) -> None:
        spec = life.step.spec
        life.compiled = compiled = await self._compile(spec.digest, form_for(spec))
        imports = self._imports_for(life.step, compiled.type)
        await self._engine.prepare(compiled)
        try:
            life.pool = ComponentPool(
                self._engine,
                compiled,
                name=spec.name,
                limits=_instance_limits(spec.limits),
                slots=1,
                imports=imports,
                sink=self._sink,
            )
            life.handler = make_handler(life.pool)
        finally:
            self._engine.unload(compiled)

    def _run(self, step: Run) -> None:
        life = self._lives[step.life]
        assert life.pool is not None
        life.count = step.count
        life.pool.resize(step.count * life.step.spec.limits.max_concurrency)
        self._serving[life.component] = life
        details = {"component": life.component, "revision": life.step.revision, "count": step.count}
        self._announce("replica.running", details)
        self._do(self._assignments.running(step.life, step.count))

    def _drain(self, number: int) -> None:
        assert self._tasks is not None
        life = self._lives[number]
        if self._serving.get(life.component) is life:
            del self._serving[life.component]
        self._tasks.start_soon(self._drain_life, number, life)

    async def _drain_life(self, number: int, life: _Life) -> None:
        if life.pool is not None:
            await life.pool.aclose()
        self._lives.pop(number, None)
        self._announce("replica.stopped", {"component": life.component, "revision": life.step.revision})
        self._assignments.drained(number)
        self._flush()

    def _cancel(self, number: int) -> None:
        life = self._lives.pop(number, None)
        if life is None:
            return
        life.scope.cancel()
        if self._serving.get(life.component) is life:
            del self._serving[life.component]
        self._release(life)

    def _release(self, life: _Life) -> None:
        if life.pool is not None and self._tasks is not None:
            pool, life.pool = life.pool, None
            self._tasks.start_soon(pool.aclose)

    def _fail(self, life: _Life, reason: str) -> None:
        log.warning("replica.failed", component=life.component, revision=life.step.revision, reason=reason)
        self._announce("replica.failed", {"component": life.component, "reason": reason})
        self._lives.pop(life.step.life, None)  # another attempt is another life
        self._assignments.failed(life.step.life, reason)
        self._flush()

    def _flush(self) -> None:
        delta = self._assignments.take_delta()
        if delta is not None:
            self._report(delta)

    # What there is

    def components(self) -> list[RunningComponent]:
        """What serves calls on this node."""
        return [
            RunningComponent(
                component=name,
                revision=life.step.revision,
                digest=life.step.spec.digest,
                count=life.count,
                started_at=life.started_at,
                statistics=life.pool.statistics(),
            )
            for name, life in sorted(self._serving.items())
            if life.pool is not None
        ]

    async def aclose(self) -> None:
        """Drain all pools; the engine can then be left."""
        for life in list(self._lives.values()):
            life.scope.cancel()
            if life.pool is not None:
                await life.pool.aclose()
        self._lives.clear()
        self._serving.clear()


def _nothing_runs(component: str) -> Unreachable:
    return Unreachable(f"no replica of {component!r} runs on this node")


def _function(life: _Life, request: CallRequest) -> wit.Function:
    """The type of the function that the request names; JSON can't be read without it."""
    assert life.compiled is not None
    exports = life.compiled.type.exports
    name = request.interface if request.interface in exports else match_interface(request.interface, exports)
    functions = exports[name].functions if name else {}
    if request.function not in functions:
        hint = did_you_mean(request.function, functions)
        raise NotFound(f"{life.component!r} exports no function {request.interface}.{request.function}{hint}")
    return functions[request.function]


def _context(request: CallRequest, limits: Limits) -> CallContext:
    """The request itself, unless it gives the call more time than the component has."""
    latest = now() + limits.budget_seconds
    if request.deadline <= latest:
        return request
    return CallContext(
        deadline=latest,
        call_id=request.call_id,
        traceparent=request.traceparent,
        hops=request.hops,
        attempt=request.attempt,
        caller=request.caller,
    )


def _instance_limits(limits: Limits) -> InstanceLimits:
    return InstanceLimits(
        memory_bytes=limits.memory_bytes,
        budget_seconds=limits.budget_seconds,
        queue_length=limits.queue_length,
        queue_seconds=limits.queue_seconds,
        reuse=limits.reuse,
        prewarm=limits.prewarm,
        payload_bytes=limits.payload_bytes,
        log_bytes_per_second=limits.log_bytes_per_second,
    )
