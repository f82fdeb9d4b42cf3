"""A lattice in half a minute: three nodes, and a component that outlives its node. `make demo` runs it.

Everything is real: three node processes, a NATS server, `kill -9`. It needs no network and leaves nothing
behind. When something that it shows does not hold, it says what and ends with code 1.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from rich.console import Console
from rich.markup import escape

from ctl.artifact import read_artifact
from ctl.calling import CallOptions
from ctl.client import ControlClient
from ctl.deployment import Deployment
from ctl.functions import Function
from ctl.models import ComponentDescription, Deployed
from ctl.rollout import release
from ctl.session import first_error
from ctl.settings import ClientSettings
from examples.processes import Processes, interrupt_on_signals, processes
from lattice.errors import LatticeError, TimedOut, Unreachable

NODES = ("north", "east", "west")
EXAMPLES = Path(__file__).parent
GREETER = EXAMPLES / "greeter" / "wat" / "greeter.wasm"
GREETER_KV = EXAMPLES / "greeter-kv" / "c" / "greeter-kv.wasm"
KV_STORE = EXAMPLES / "kv-store" / "c" / "kv-store.wasm"

WHOLE_SECONDS = 55.0
START_SECONDS = 30.0
RETURN_SECONDS = 20.0
PROMISED_SECONDS = 1.0
REPLACE_SECONDS = 5.0
"""Later than promised is said; later than this is a failure: a machine may be busy with other things."""
CALLERS = 8
CALLS_PER_SECOND = 200
STEADY_SECONDS = 1.5
"""How long the stream of calls runs before the kill, and after the replicas are back."""
POLL_SECONDS = 0.02
WATCH_SECONDS = 0.1
ANSWER_SECONDS = 0.2
"""A question that went to the killed node is not waited for but asked again."""
CLIENT = ClientSettings(timeout_seconds=2.0)


class DidNotHold(Exception):
    """Raised when something that the demo shows is not so."""


@dataclass(slots=True)
class Stream:
    """What became of the calls of the stream."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Demo:
    """The acts, in order. The mutable state is the processes and what was printed."""

    def __init__(self, nodes: Processes, console: Console) -> None:
        self._nodes = nodes
        self._console = console
        self._act = 0

    async def run(self) -> None:
        """All acts; raises `DidNotHold` or a `LatticeError`."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_processes)
            with anyio.move_on_after(WHOLE_SECONDS) as scope:
                await self._perform()
            self._check(not scope.cancelled_caught, f"it was not done after {WHOLE_SECONDS:g} s")
            tasks.cancel_scope.cancel()

    async def _perform(self) -> None:
        self._start_nodes()
        async with self._client() as client:
            await self._wait_for_nodes(client, NODES, START_SECONDS)
            await self._show_nodes(client)
            greeter = await self._deploy(client)
            await self._call_through_each_node(client, greeter)
            victim = await self._kill_a_holder(client, greeter)
            await self._bring_back(client, victim)
            await self._link_two(client)
            await self._clear(client)

    # Acts

    def _start_nodes(self) -> None:
        self._title("Three nodes, three processes, one lattice")
        for name in NODES:
            self._nodes.start(name)

    async def _show_nodes(self, client: ControlClient) -> None:
        for node in await client.nodes():
            role = ", the controller" if node.is_controller else ""
            self._line(f"{node.name:<6} ready  process {self._nodes.pid(node.name)}{role}")

    async def _deploy(self, client: ControlClient) -> Function:
        self._title("Deploy a component with two replicas")
        deployed = await _release(client, GREETER, "greeter", replicas=2)
        self._line(f"greeter runs on {' and '.join(deployed.nodes)} after {deployed.seconds:.1f} s")
        self._line("(a new lattice gives its first order after three heartbeats; later ones at once)")
        self._check(len(deployed.nodes) == 2, "the two replicas are not on two nodes")
        return await client.function("greeter", "hello")

    async def _call_through_each_node(self, client: ControlClient, greeter: Function) -> None:
        self._title("Call it through each node; callers never need to know where it runs")
        holders = _holders(await client.describe_component("greeter"))
        for node in await client.nodes():
            began = time.perf_counter()
            answer = await client.invoke(greeter, [node.name], CallOptions(node=node.id))
            passed = (time.perf_counter() - began) * 1000
            way = "runs there" if node.name in holders else "passed on to one that has it"
            self._line(f"through {node.name:<6} {answer!r:<16} {passed:4.1f} ms  {way}")
            self._check(answer == f"Hello, {node.name}!", f"the answer through {node.name} is wrong")

    async def _kill_a_holder(self, client: ControlClient, greeter: Function) -> str:
        self._title(f"kill -9 a node that runs it, during {CALLS_PER_SECOND} calls a second")
        victim = await self._choose_victim(client)
        stream = Stream()
        async with steady_calls(client, greeter, stream):
            await anyio.sleep(STEADY_SECONDS)
            async with client.events() as events:
                killed_at = time.perf_counter()
                before = len(stream.seconds)
                self._nodes.kill(victim)
                self._line(f"killed {victim}")
                with anyio.move_on_after(REPLACE_SECONDS):
                    while not (holders := await self._new_holders(client, victim)):
                        await events.wait_any(POLL_SECONDS)
                replaced = time.perf_counter() - killed_at
            await anyio.sleep(STEADY_SECONDS)
        self._check(bool(holders), f"there were no two replicas again within {REPLACE_SECONDS:g} s")
        late = (
            ""
            if replaced <= PROMISED_SECONDS
            else f" (promised: {PROMISED_SECONDS:g} s; is the machine busy?)"
        )
        self._line(f"two replicas again after {replaced:.2f} s, on {' and '.join(sorted(holders))}{late}")
        self._report(stream, before)
        return victim

    async def _bring_back(self, client: ControlClient, name: str) -> None:
        self._title("Start the killed node again")
        began = time.perf_counter()
        self._nodes.start(name)
        await self._wait_for_nodes(client, NODES, RETURN_SECONDS)
        self._line(f"{name} is back after {time.perf_counter() - began:.1f} s, ready to take over")
        counts = (await client.describe_component("greeter")).replicas
        self._check(counts.running == 2, f"{counts.running} replicas run now, not two")

    async def _link_two(self, client: ControlClient) -> None:
        self._title("Link two components, wherever they run")
        await _release(client, KV_STORE, "kv-store")
        await _release(client, GREETER_KV, "greeter-kv", links=(("demo:kv/store", "kv-store"),))
        answer = await client.call("greeter-kv", "hello", ["Ada"])
        (link,) = await client.links("greeter-kv")
        self._line(f"greeter-kv -> demo:kv/store -> kv-store ({link.route}): {answer!r}")
        self._check(answer.startswith("Hello, Ada!"), "the linked call's answer is wrong")

    async def _clear(self, client: ControlClient) -> None:
        """With nothing left to hand over, the nodes leave at once."""
        for component in await client.components():
            await client.delete(component.name)

    # Parts of acts

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[ControlClient]:
        """Connected as soon as the first node has started the server."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                async with ControlClient.connect(CLIENT, routes_calls=True) as client:
                    deadline = 0  # from here on errors are the caller's
                    yield client
                    return
            except (Unreachable, TimedOut):
                if time.monotonic() > deadline:
                    raise
            await anyio.sleep(POLL_SECONDS)

    async def _wait_for_nodes(self, client: ControlClient, names: Sequence[str], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        ready: set[str] = set()
        while ready != set(names):
            missing = ", ".join(sorted(set(names) - ready))
            self._check(time.monotonic() < deadline, f"not ready after {seconds:g} s: {missing}")
            try:
                nodes = await client.nodes()
            except (Unreachable, TimedOut):
                nodes = []
            has_controller = any(node.is_controller for node in nodes)
            ready = {node.name for node in nodes if node.state == "ready"} if has_controller else set()
            await anyio.sleep(POLL_SECONDS)

    async def _choose_victim(self, client: ControlClient) -> str:
        """A node with a replica; the controller if it has one, as that is the hardest case."""
        holders = _holders(await client.describe_component("greeter"))
        nodes = [node for node in await client.nodes() if node.name in holders]
        return max(nodes, key=lambda node: node.is_controller).name

    async def _new_holders(self, client: ControlClient, victim: str) -> set[str]:
        """The nodes that run the two replicas, once they do so without the victim; else none."""
        with anyio.move_on_after(ANSWER_SECONDS), suppress(Unreachable, TimedOut):
            description = await client.describe_component("greeter")
            holders = _holders(description)
            return holders if description.replicas.running >= 2 and victim not in holders else set()
        return set()

    def _report(self, stream: Stream, before: int) -> None:
        for error in dict.fromkeys(stream.errors):
            self._line(f"failed: {error}")
        usual = statistics.median(stream.seconds) * 1000
        slowest = max(stream.seconds) * 1000
        after = len(stream.seconds) - before
        answered, failed = len(stream.seconds), len(stream.errors)
        self._line(f"{answered} calls answered, {after} of them after the kill; {failed} failed")
        self._line(f"median {usual:.1f} ms, slowest {slowest:.0f} ms")
        self._check(not stream.errors, f"{failed} calls failed")

    # Checks and words

    def _check(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise DidNotHold(otherwise)

    async def _watch_processes(self) -> None:
        """Fail as soon as a node ends that nobody killed: no answer will come from it."""
        while not (ended := self._nodes.ended()):  # noqa: ASYNC110 - another process sets no event here
            await anyio.sleep(WATCH_SECONDS)
        raise DidNotHold(f"{' and '.join(ended)} ended by itself")

    def _title(self, text: str) -> None:
        self._act += 1
        self._console.print(f"\n[bold]{self._act}. {escape(text)}[/bold]", soft_wrap=True)

    def _line(self, text: str) -> None:
        self._console.print(f"   {escape(text)}", soft_wrap=True)


@asynccontextmanager
async def steady_calls(client: ControlClient, function: Function, stream: Stream) -> AsyncIterator[None]:
    """Idempotent calls at an even pace while the context lasts; those in progress at its end are finished."""
    is_over = anyio.Event()

    async def call_steadily(number: int) -> None:
        due = anyio.current_time() + number / CALLS_PER_SECOND
        while not is_over.is_set():
            await anyio.sleep_until(due)
            due = max(due + CALLERS / CALLS_PER_SECOND, anyio.current_time())
            await call_once(client, function, stream)

    async with anyio.create_task_group() as tasks:
        for number in range(CALLERS):
            tasks.start_soon(call_steadily, number)
        try:
            yield
        finally:
            is_over.set()


async def call_once(client: ControlClient, function: Function, stream: Stream) -> None:
    """One call, timed."""
    began = time.perf_counter()
    try:
        answer = await client.invoke(function, ["World"], CallOptions(budget_seconds=5.0, idempotent=True))
    except LatticeError as error:
        stream.errors.append(f"{error.code}: {error.message}")
        return
    if answer != "Hello, World!":
        stream.errors.append(f"a wrong answer: {answer!r}")
    stream.seconds.append(time.perf_counter() - began)


async def _release(
    client: ControlClient,
    file: Path,
    name: str,
    *,
    replicas: int = 1,
    links: tuple[tuple[str, str], ...] = (),
) -> Deployed:
    artifact = await anyio.to_thread.run_sync(read_artifact, file)
    deployment = Deployment(name=name, digest=artifact.digest, replicas=replicas, links=links)
    return await release(client, artifact, deployment, progress=lambda step, text: None)


def _holders(description: ComponentDescription) -> set[str]:
    return {placement.node_name for placement in description.placements if placement.running}


def perform(console: Console) -> int:
    """The whole demo, and its exit code."""
    began = time.monotonic()
    with processes() as nodes:
        failure: BaseException | None = None
        try:
            anyio.run(Demo(nodes, console).run)
        except* (DidNotHold, LatticeError) as group:
            failure = first_error(group)
        if failure is not None:
            _explain(console, nodes, failure)
            return 1
    console.print(
        f"\nAll held, in {time.monotonic() - began:.0f} s. README.md says how to go on.", soft_wrap=True
    )
    return 0


def _explain(console: Console, nodes: Processes, error: BaseException) -> None:
    for name in NODES:
        console.print(f"\nthe end of the log of {name}:", soft_wrap=True)
        for line in nodes.last_words(name):
            console.print(f"   {line}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"\n[bold red]The demo failed:[/bold red] {escape(str(error))}", soft_wrap=True)


def main() -> int:
    """Run the demo; 130 when it was interrupted."""
    interrupt_on_signals()
    try:
        return perform(Console(highlight=False))
    except KeyboardInterrupt:
        print("interrupted; everything was cleaned up", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
