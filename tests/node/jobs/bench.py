"""Jobs without a node: the real thing on files of the examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lattice import streams, wit
from lattice.assignments import Prepare
from lattice.caller import CallRequest, new_call_id
from lattice.clock import now
from lattice.errors import LatticeError, NotFound
from lattice.exchange import Exchange
from lattice.jobs import (
    COMPONENT,
    FUNCTION,
    INTERFACE,
    STDERR,
    STDOUT,
    JobSpec,
    Outcome,
    OutputReader,
    outcome_of,
)
from lattice.model import ComponentSpec, Link
from lattice.streams import ByteReceiver
from node.artifacts import digest_of
from node.capabilities.wasi import Folder, WasiSettings, wasi_interfaces
from node.engine.compile_process import CompileLimits
from node.engine.compiler import Compiler
from node.engine.configuration import EngineSettings
from node.engine.engine import Engine
from node.engine.modules import ModuleCompiler
from node.jobs.jobs import Jobs
from node.settings import OpenFolder

EXAMPLES = Path(__file__).parents[3] / "examples"
TOOL = EXAMPLES / "tool-command/c/tool.wasm"
TOOL_MODULE = EXAMPLES / "tool-command/c/tool.wasip1.wasm"
KINDS = {"component": TOOL, "module": TOOL_MODULE}
GRANTS = (
    "environment",
    "folders",
    "network",
    "allow_hosts",
    "configuration",
    "configuration_from",
    "secrets",
)


class FakeArtifacts:
    """Files by their digest."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}

    def add(self, data: bytes) -> str:
        self.known[digest_of(data)] = data
        return digest_of(data)

    async def get(self, digest: str) -> bytes:
        if digest not in self.known:
            raise NotFound(f"no artifact {digest}")
        return self.known[digest]


@dataclass
class Result:
    """What became of a job."""

    outcome: Outcome
    out: bytes
    err: bytes

    @property
    def code(self) -> int:
        return self.outcome.exit_code


@dataclass
class Bench:
    """The jobs of one node, with what they logged and announced."""

    jobs: Jobs
    artifacts: FakeArtifacts
    printed: list[tuple[str, str, bytes]] = field(default_factory=list)
    events: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    linked: list[tuple[str, Sequence[Link]]] = field(default_factory=list)
    checked: list[JobSpec] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refusal: LatticeError | None = None

    def request(self, seconds: float = 60.0) -> CallRequest:
        return CallRequest(
            component=COMPONENT,
            interface=INTERFACE,
            function=FUNCTION,
            deadline=now() + seconds,
            call_id=new_call_id(),
        )

    def spec(self, file: Path | bytes, *arguments: str, **fields: Any) -> JobSpec:
        data = file if isinstance(file, bytes) else file.read_bytes()
        component = {name: fields.pop(name) for name in GRANTS if name in fields}
        if "memory_bytes" in fields:
            component["limits"] = {"memory_bytes": fields.pop("memory_bytes")}
        spec = ComponentSpec.from_dict({"name": "tool", "digest": self.artifacts.add(data), **component})
        links = tuple(Link.from_dict({"source": "tool", **link}) for link in fields.pop("links", ()))
        return JobSpec(component=spec, arguments=arguments, links=links, **fields)

    async def begin(
        self, file: Path | bytes, *arguments: str, body: ByteReceiver | None = None, **fields: Any
    ) -> Exchange:
        spec = self.spec(file, *arguments, **fields)
        return await self.jobs.exchange(self.request(), [spec.to_dict()], body)

    async def run(self, file: Path, *arguments: str, given: bytes | None = None, **fields: Any) -> Result:
        body = None
        if given is not None:
            sender, body = streams.pair(streams.StreamSettings(window_bytes=1 << 24))
            await streams.send_body(sender, given)
        async with await self.begin(file, *arguments, body=body, **fields) as exchange:
            return await finish(exchange)


async def finish(exchange: Exchange) -> Result:
    """All that a job writes, to its end."""
    assert exchange.body is not None
    reader, pieces = OutputReader(), {STDOUT: bytearray(), STDERR: bytearray()}
    async for chunk in exchange.body:
        for stream, piece in reader.feed(chunk):
            pieces[stream] += piece
    return Result(outcome_of(exchange.body.trailers), bytes(pieces[STDOUT]), bytes(pieces[STDERR]))


def make_bench(engine: Engine, folder: Path, *, max_jobs: int = 4, **folders: Path) -> Bench:
    """Jobs with WASI and the named folders (writable) open; start them."""
    artifacts, settings = FakeArtifacts(), EngineSettings(max_instances=50)
    opened = [OpenFolder(name=name, path=path, is_writable=name != "fixed") for name, path in folders.items()]

    def interfaces(step: Prepare, component: Any, adapt: Callable[[WasiSettings], WasiSettings]) -> list[Any]:
        paths = {item.name: item.path for item in opened}
        granted = tuple(
            Folder(host_path=paths[grant.folder], guest_path=grant.path, writable=grant.writable)
            for grant in step.spec.folders
        )
        return list(wasi_interfaces(adapt(WasiSettings(environment=step.spec.environment, folders=granted))))

    async def check(spec: JobSpec, type_: wit.ComponentType) -> Sequence[str]:
        bench.checked.append(spec)
        if bench.refusal is not None:
            raise bench.refusal
        return bench.warnings

    bench: Bench
    jobs = Jobs(
        "NODE",
        "here",
        artifacts=artifacts,  # type: ignore[arg-type]  # the part that jobs use
        compiler=Compiler(folder / "compiled", b"k" * 32, CompileLimits(), settings),
        modules=ModuleCompiler(folder / "modules", b"k" * 32, CompileLimits(), settings),
        engine=engine,
        interfaces=interfaces,
        folders=opened,
        sink=lambda call, stream, data: bench.printed.append((call.component, stream, data)),
        announce=lambda event, details: bench.events.append((event, details)),
        check=check,
        on_links=lambda job, links: bench.linked.append((job, links)),
        max_jobs=max_jobs,
    )
    bench = Bench(jobs, artifacts)
    return bench
