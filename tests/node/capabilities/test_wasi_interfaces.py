from typing import Any

import anyio
import pytest

from lattice.errors import Trapped
from node.capabilities.wasi import SUPPORT, Exited, WasiSettings, is_builtin, wasi_interfaces
from node.capabilities.wasi.io_interfaces import POLL_LENGTH, IoError
from node.capabilities.wasi.pollables import Always, Pollable
from node.capabilities.wasi.randomness import RANDOM_BYTES
from node.capabilities.wasi.streams import BytesInput, InputStream, StreamFailed
from node.engine.host import CallContext, GuestCall
from tests.node.engine.bare_instance import BareInstance


class Sandbox(BareInstance):
    """A guest instance without a guest."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[tuple[str, str, bytes]] = []

    def begin(self, call_id: str = "1") -> GuestCall:
        self.call = GuestCall("demo", CallContext(deadline=0, call_id=call_id), self, self._log)
        return self.call

    def end(self) -> None:
        assert self.call is not None
        self.call.end()
        self.call = None

    def _log(self, call: GuestCall, stream: str, data: bytes) -> None:
        self.logged.append((call.call_id, stream, data))


class World:
    """The functions that one component would be linked with."""

    def __init__(self, **settings: Any) -> None:
        self.interfaces = {
            interface.name.partition("@")[0]: interface
            for interface in wasi_interfaces(WasiSettings(**settings))
        }

    def __call__(self, call: GuestCall, interface: str, function: str, *args: Any) -> Any:
        return self.interfaces[f"wasi:{interface}"].functions[function](call, *args)


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox()


def test_the_table_of_support_names_exactly_what_is_built_in() -> None:
    assert set(SUPPORT) == set(World().interfaces)


@pytest.mark.parametrize("version", ["0.2.0", "0.2.3", "0.2.12", "0.2.99"])
def test_every_version_of_the_series_is_built_in(version: str) -> None:
    assert is_builtin(f"wasi:io/poll@{version}")


@pytest.mark.parametrize(
    "name",
    [
        "wasi:io/poll", "wasi:io/poll@0.3.0", "wasi:io/poll@0.2.0-rc-2023", "wasi:io/poll@1.2.0",
        "wasi:io/poll@0.20.1", "wasi:io/poll@0.2", "wasi:http/types@0.2.0",
        "wasi:cli/run@0.2.0", "demo:io/poll@0.2.0", "",
    ],
)  # fmt: skip
def test_anything_else_needs_a_link(name: str) -> None:
    assert not is_builtin(name)


def test_nothing_of_the_host_shows_by_default(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    world, call = World(), sandbox.begin()

    assert world(call, "cli/environment", "get-environment") == []
    assert world(call, "cli/environment", "get-arguments") == []
    assert world(call, "cli/environment", "initial-cwd") is None
    assert world(call, "filesystem/preopens", "get-directories") == []
    assert world(call, "clocks/monotonic-clock", "now") < 10 * 10**9


def test_settings_reach_the_component(sandbox: Sandbox) -> None:
    world = World(environment={"A": "1"}, arguments=("a", "-v"), working_directory="/", standard_input=b"in")
    call = sandbox.begin()

    assert world(call, "cli/environment", "get-environment") == [("A", "1")]
    assert world(call, "cli/environment", "get-arguments") == ["a", "-v"]
    assert world(call, "cli/environment", "initial-cwd") == "/"
    assert world(call, "cli/stdin", "get-stdin").read(9) == b"in"


def test_handles_to_standard_input_share_one_position(sandbox: Sandbox) -> None:
    world, call = World(standard_input=b"abc"), sandbox.begin()

    world(call, "cli/stdin", "get-stdin").read(1)

    assert world(call, "cli/stdin", "get-stdin").read(9) == b"bc"


def test_there_is_no_terminal(sandbox: Sandbox) -> None:
    world, call = World(), sandbox.begin()

    for name in ("stdin", "stdout", "stderr"):
        assert world(call, f"cli/terminal-{name}", f"get-terminal-{name}") is None


def test_the_unfinished_line_is_logged_when_its_call_ends(sandbox: Sandbox) -> None:
    world = World()
    call = sandbox.begin("1")
    stream = world(call, "cli/stdout", "get-stdout")
    _print(world, call, stream, b"one\nrest")
    sandbox.end()

    _print(world, sandbox.begin("2"), stream, b"two")
    sandbox.end()

    assert sandbox.logged == [("1", "stdout", b"one"), ("1", "stdout", b"rest"), ("2", "stdout", b"two")]


def test_handles_to_one_output_share_its_line_and_the_other_output_has_its_own(sandbox: Sandbox) -> None:
    world, call = World(), sandbox.begin()

    for name, text in (("stdout", b"a"), ("stderr", b"x"), ("stdout", b"b\n"), ("stderr", b"y\n")):
        _print(world, call, world(call, f"cli/{name}", f"get-{name}"), text)

    assert sandbox.logged == [("1", "stdout", b"ab"), ("1", "stderr", b"xy")]


def test_a_call_that_writes_much_has_one_ending(sandbox: Sandbox) -> None:
    world, call = World(), sandbox.begin()
    stream = world(call, "cli/stdout", "get-stdout")

    for _ in range(100):
        _print(world, call, stream, b"x")

    assert len(call._endings) == 1


@pytest.mark.parametrize(
    ("function", "argument", "status"),
    [("exit", {"ok": None}, 0), ("exit", {"err": None}, 1), ("exit-with-code", 7, 7)],
)
def test_exit_ends_the_call_with_its_status(
    sandbox: Sandbox, function: str, argument: Any, status: int
) -> None:
    with pytest.raises(Exited) as raised:
        World()(sandbox.begin(), "cli/exit", function, argument)

    assert raised.value.status == status
    assert raised.value.code == "trapped"


def test_clocks_follow_the_sources_given(sandbox: Sandbox) -> None:
    now = [50]
    world = World(monotonic_ns=lambda: now[0], wall_ns=lambda: 3_000_000_007)
    call = sandbox.begin()

    assert world(call, "clocks/monotonic-clock", "now") == 10**9
    now[0] += 5
    assert world(call, "clocks/monotonic-clock", "now") == 10**9 + 5
    assert world(call, "clocks/wall-clock", "now") == {"seconds": 3, "nanoseconds": 7}
    assert world(call, "clocks/timezone", "display", {"seconds": 0, "nanoseconds": 0})["name"] == "UTC"


def test_a_duration_and_the_instant_it_leads_to_are_ready_together(sandbox: Sandbox) -> None:
    now = [0]
    world, call = World(monotonic_ns=lambda: now[0]), sandbox.begin()
    pollables = [
        world(call, "clocks/monotonic-clock", "subscribe-duration", 100),
        world(call, "clocks/monotonic-clock", "subscribe-instant", 10**9 + 100),
    ]

    now[0] = 99
    before = [world(call, "io/poll", "[method]pollable.ready", pollable) for pollable in pollables]
    now[0] = 100
    after = [world(call, "io/poll", "[method]pollable.ready", pollable) for pollable in pollables]

    assert (before, after) == ([False, False], [True, True])


async def test_poll_reports_the_ready_ones_and_sleeps_till_then(sandbox: Sandbox) -> None:
    world, call = World(), sandbox.begin()
    far = world(call, "clocks/monotonic-clock", "subscribe-duration", 2**64 - 1)
    near = world(call, "clocks/monotonic-clock", "subscribe-duration", 10_000_000)

    with anyio.fail_after(5):
        ready = await world(call, "io/poll", "poll", [far, near])
        await world(call, "io/poll", "[method]pollable.block", near)

    assert ready == [1]


@pytest.mark.parametrize("length", [0, POLL_LENGTH + 1])
async def test_a_poll_of_nothing_or_of_too_much_traps(sandbox: Sandbox, length: int) -> None:
    with pytest.raises(Trapped):
        await World()(sandbox.begin(), "io/poll", "poll", [Pollable(Always())] * length)


def test_random_bytes_come_from_the_source_and_are_bounded(sandbox: Sandbox) -> None:
    world, call = World(random_bytes=lambda length: b"\x01" * length), sandbox.begin()

    assert world(call, "random/random", "get-random-bytes", 3) == b"\x01\x01\x01"
    assert world(call, "random/insecure", "get-insecure-random-u64") == 0x0101010101010101
    assert world(call, "random/insecure-seed", "insecure-seed") == (0x0101010101010101,) * 2
    for interface, function in (
        ("random", "get-random-bytes"),
        ("insecure", "get-insecure-random-bytes"),
    ):
        with pytest.raises(Trapped, match=str(RANDOM_BYTES)):
            world(call, f"random/{interface}", function, 2**64 - 1)


def test_randomness_is_real_by_default(sandbox: Sandbox) -> None:
    world, call = World(), sandbox.begin()

    assert len({world(call, "random/random", "get-random-u64") for _ in range(100)}) == 100


async def test_the_end_of_a_stream_and_its_errors_are_results(sandbox: Sandbox) -> None:
    class Broken(BytesInput):
        def _read(self, limit: int) -> bytes:
            raise StreamFailed("disk full")

    world, call = World(), sandbox.begin()
    read, blocking_read = "[method]input-stream.read", "[method]input-stream.blocking-read"

    assert world(call, "io/streams", read, BytesInput(b"a"), 1) == {"ok": b"a"}
    assert world(call, "io/streams", read, BytesInput(), 1) == {"err": {"closed": None}}
    assert await world(call, "io/streams", blocking_read, BytesInput(), 1) == {"err": {"closed": None}}
    error = world(call, "io/streams", read, Broken(), 1)["err"]["last-operation-failed"]
    assert isinstance(error, IoError)
    assert world(call, "io/error", "[method]error.to-debug-string", error) == "disk full"


async def test_skip_counts_what_it_passes_over(sandbox: Sandbox) -> None:
    world, call = World(), sandbox.begin()
    stream: InputStream = BytesInput(b"abcdef")

    assert world(call, "io/streams", "[method]input-stream.skip", stream, 2) == {"ok": 2}
    assert await world(call, "io/streams", "[method]input-stream.blocking-skip", stream, 9) == {"ok": 4}


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_a_stream_may_not_be_dropped_before_its_pollable(sandbox: Sandbox, name: str) -> None:
    world, call = World(), sandbox.begin()
    kind = "input-stream" if name == "stdin" else "output-stream"
    drop = world.interfaces["wasi:io/streams"].resources[kind]
    stream = world(call, f"cli/{name}", f"get-{name}")
    pollable = world(call, "io/streams", f"[method]{kind}.subscribe", stream)
    other = world(call, f"cli/{name}", f"get-{name}")

    drop(call, other)
    with pytest.raises(Trapped, match="before the pollable"):
        drop(call, stream)

    pollable.drop()
    drop(call, world(call, f"cli/{name}", f"get-{name}"))


async def test_every_door_to_the_network_is_closed(sandbox: Sandbox) -> None:
    world, call = World(), sandbox.begin()
    denied = {"err": "access-denied"}

    network = world(call, "sockets/instance-network", "instance-network")

    assert world(call, "sockets/tcp-create-socket", "create-tcp-socket", "ipv4") == denied
    assert world(call, "sockets/udp-create-socket", "create-udp-socket", "ipv6") == denied
    lookup = world(call, "sockets/ip-name-lookup", "resolve-addresses", network, "localhost")
    assert lookup == {"err": "permanent-resolver-failure"}


def _print(world: World, call: GuestCall, stream: Any, text: bytes) -> None:
    assert world(call, "io/streams", "[method]output-stream.check-write", stream)["ok"] >= len(text)
    assert world(call, "io/streams", "[method]output-stream.write", stream, text) == {"ok": None}
