"""`wasi:keyvalue` as guests see it: both drafts, errors, links by name; over a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from lattice import wit
from lattice.caller import CallRequest, new_call_id
from lattice.errors import Denied, LatticeError, TimedOut, Unreachable
from lattice.model import Link
from lattice.tasks import open_tasks
from node.capabilities.bus import select
from node.capabilities.keyvalue import keyvalue_interfaces
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.host import CallContext, GuestCall, HostInterface
from providers.hosting import Providers
from providers.kinds import KINDS
from providers.registry import ProviderContext, offer_of, parse_spec
from providers.signatures import function_type
from tests.node.capabilities.guests import Guest as InSandbox

COUNTER = (Path(__file__).parents[4] / "examples/counter/c/counter.wasm").read_bytes()
STORE_NAME = "memory"
BUCKET = wit.Handle("wasi:keyvalue/store#bucket", False)


class LocalLinks:
    """The links of one component to a provider of this process; `failure` is raised instead of calling it."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = tuple(links)
        self.failure: LatticeError | None = None
        self.providers = Providers(
            [offer_of(parse_spec(f"{STORE_NAME}=keyvalue-memory", "test"), KINDS, _context)],
            links_of=lambda source: self.links,
            wait_for_news=anyio.sleep_forever,
        )

    def names(self, source: str, interface: str) -> list[str]:
        return [link.name for link in self.links if link.covers(interface)]

    def find(self, source: str, interface: str, name: str = "default") -> Link:
        for link in self.links:
            if link.covers(interface) and link.name == name:
                return link
        raise Denied(f"there is no link {name!r}")

    async def call(
        self,
        call: GuestCall,
        *,
        interface: str,
        function: tuple[str, str],
        args: Sequence[Any],
        name: str | None = None,
        idempotent: bool = False,
        is_told: bool = False,
    ) -> Any:
        if self.failure is not None:
            raise self.failure
        link = self.find(call.component, interface, name or "default")
        request = CallRequest(
            component=link.target,
            interface=function[0],
            function=function[1],
            deadline=call.context.deadline,
            call_id=new_call_id(),
            caller=link.source,
            link=link.name,
        )
        return await self.providers.call(request, args)


def _context(name: str) -> ProviderContext:
    return ProviderContext(name=name, lattice="default", bus=None)  # type: ignore[arg-type]


def _link(name: str = "default", interface: str = "wasi:keyvalue", **configuration: str) -> Link:
    return Link(
        source="guest", interface=interface, target=STORE_NAME, name=name, configuration=configuration
    )


@pytest.fixture
async def links() -> AsyncIterator[LocalLinks]:
    found = LocalLinks([_link(), _link("second", bucket="second")])
    async with open_tasks() as tasks:
        await tasks.start(found.providers.run)
        yield found
        await found.providers.stop()


class Guest:
    """Calls host functions as a guest of one draft would."""

    def __init__(self, links: LocalLinks, draft: str) -> None:
        is_second = draft == "0.2.0-draft2"
        number, cursor = ("s64", "string") if is_second else ("u64", "u64")
        key: list[tuple[str, wit.Type]] = [("bucket", BUCKET), ("key", wit.STRING)]
        store = {
            "[method]bucket.list-keys": wit.Function(
                (("self", BUCKET), ("cursor", wit.Option(wit.Primitive(cursor)))), None
            )
        }
        atomics = {"increment": wit.Function((*key, ("delta", wit.Primitive(number))), None)}
        pairs = "tuple<string, option<list<u8>>>" if is_second else "option<tuple<string, list<u8>>>"
        batch = {"get-many": function_type(f"func() -> result<list<{pairs}>>")}
        imports = {
            name: wit.Interface(name, functions)
            for name, functions in (
                (f"wasi:keyvalue/store@{draft}", store),
                (f"wasi:keyvalue/atomics@{draft}", atomics),
                (f"wasi:keyvalue/batch@{draft}", batch),
            )
        }
        self._interfaces: list[HostInterface] = keyvalue_interfaces(wit.ComponentType(imports, {}), links)
        self.call = _guest_call()

    async def do(self, function: str, *args: Any) -> Any:
        for interface in self._interfaces:
            if function in interface.functions:
                return await interface.functions[function](self.call, *args)
        raise AssertionError(f"nothing offers {function}")

    async def ok(self, function: str, *args: Any) -> Any:
        result = await self.do(function, *args)
        assert "ok" in result, result
        return result["ok"]


def _guest_call() -> GuestCall:
    context = CallContext(deadline=anyio.current_time() + 5)
    return GuestCall("guest", context, SimpleNamespace(state={}, call=None), lambda call, stream, data: None)


DRAFTS = ("0.2.0-draft", "0.2.0-draft2")


@pytest.mark.parametrize("draft", DRAFTS)
async def test_guest_of_either_draft_reads_what_it_wrote(links: LocalLinks, draft: str) -> None:
    guest = Guest(links, draft)

    bucket = await guest.ok("open", "default")
    await guest.ok("[method]bucket.set", bucket, "a", b"1")
    assert await guest.ok("[method]bucket.get", bucket, "a") == b"1"
    assert await guest.ok("[method]bucket.exists", bucket, "b") is False
    assert await guest.ok("[method]bucket.list-keys", bucket, None) == {"keys": ["a"], "cursor": None}
    assert await guest.ok("increment", bucket, "n", 5) == 5
    await guest.ok("[method]bucket.delete", bucket, "a")
    assert await guest.ok("[method]bucket.get", bucket, "a") is None


@pytest.mark.parametrize("draft", DRAFTS)
async def test_cursor_has_the_type_of_the_draft(links: LocalLinks, draft: str) -> None:
    guest = Guest(links, draft)
    bucket = await guest.ok("open", "default")
    await guest.ok("set-many", bucket, [(f"k{number}", b"") for number in range(1000)])
    await guest.ok("set-many", bucket, [("last", b"")])

    first = await guest.ok("[method]bucket.list-keys", bucket, None)
    second = await guest.ok("[method]bucket.list-keys", bucket, first["cursor"])

    assert type(first["cursor"]) is (str if draft == "0.2.0-draft2" else int)
    assert len(first["keys"]) == 1000
    assert second == {"keys": ["last"], "cursor": None}
    if draft == "0.2.0-draft2":
        assert "cursor" in (await guest.do("[method]bucket.list-keys", bucket, "x"))["err"]["other"]


async def test_batches_have_the_shape_of_the_draft(links: LocalLinks) -> None:
    first, second = (Guest(links, draft) for draft in DRAFTS)
    bucket = await first.ok("open", "default")
    await first.ok("set-many", bucket, [("a", b"1")])

    assert await first.ok("get-many", bucket, ["a", "b"]) == [("a", b"1"), None]
    assert await second.ok("get-many", bucket, ["a", "b"]) == [("a", b"1"), ("b", None)]
    await first.ok("delete-many", bucket, ["a", "b"])
    assert await first.ok("get-many", bucket, ["a"]) == [None]


async def test_counter_that_the_first_draft_cannot_return_is_an_error(links: LocalLinks) -> None:
    first, second = (Guest(links, draft) for draft in DRAFTS)
    bucket = await second.ok("open", "default")

    assert await second.ok("increment", bucket, "n", -3) == -3
    assert "-2" in (await first.do("increment", bucket, "n", 1))["err"]["other"]
    assert "too large" in (await first.do("increment", bucket, "n", 2**63))["err"]["other"]


async def test_a_guest_is_told_of_a_value_that_is_too_large_and_where_it_belongs(links: LocalLinks) -> None:
    for draft in DRAFTS:
        guest = Guest(links, draft)
        bucket = await guest.ok("open", "default")

        refused = await guest.do("[method]bucket.set", bucket, "photo", bytes(2**20 + 1))

        assert f"'photo' has {2**20 + 1} bytes" in refused["err"]["other"]
        assert f"at most {2**20}: keep what is larger as a blob" in refused["err"]["other"]
        assert await guest.ok("[method]bucket.get", bucket, "photo") is None


async def test_swap_that_lost_gives_the_state_to_try_again_with(links: LocalLinks) -> None:
    guest = Guest(links, "0.2.0-draft2")
    bucket = await guest.ok("open", "default")
    cas = await guest.ok("[static]cas.new", bucket, "a")
    assert await guest.ok("[method]cas.current", cas) is None
    await guest.ok("[method]bucket.set", bucket, "a", b"other")

    lost = await guest.do("swap", cas, b"mine")
    again = lost["err"]["cas-failed"]

    assert await guest.ok("[method]cas.current", again) == b"other"
    assert await guest.do("swap", again, b"mine") == {"ok": None}
    assert await guest.ok("[method]bucket.get", bucket, "a") == b"mine"


async def test_open_selects_the_link_of_the_name_else_a_bucket_of_the_chosen_link(links: LocalLinks) -> None:
    guest = Guest(links, "0.2.0-draft")
    for name in ("default", "second", "inner"):
        bucket = await guest.ok("open", name)
        await guest.ok("[method]bucket.set", bucket, "key", name.encode())

    for name in ("default", "second", "inner"):
        bucket = await guest.ok("open", name)
        assert await guest.ok("[method]bucket.get", bucket, "key") == name.encode()
    select(guest.call, ["wasi:keyvalue/store"], "second")
    chosen = await guest.ok("open", "inner")
    assert await guest.ok("[method]bucket.get", chosen, "key") is None
    assert (chosen.link, chosen.name) == ("second", "inner")
    assert await guest.do("open", "x" * 300) == {"err": {"no-such-store": None}}


async def test_what_every_guest_opens_is_over_the_link_that_it_chose(links: LocalLinks) -> None:
    guest = Guest(links, "0.2.0-draft")
    select(guest.call, ["wasi:keyvalue/store"], "second")

    for name in ("default", ""):
        bucket = await guest.ok("open", name)
        assert (bucket.link, bucket.name) == ("second", "")


async def test_guest_without_a_link_is_denied(links: LocalLinks) -> None:
    guest = Guest(links, "0.2.0-draft")
    bucket = await guest.ok("open", "default")

    links.links = (_link("second", bucket="second"),)

    denied = {"err": {"access-denied": None}}
    assert await guest.do("open", "default") == denied
    assert await guest.do("[method]bucket.get", bucket, "a") == denied
    assert await guest.do("[method]bucket.set", bucket, "a", b"") == denied
    assert await guest.do("increment", bucket, "a", 1) == denied
    assert await guest.do("get-many", bucket, ["a"]) == denied


async def test_failures_of_the_store_are_errors_and_not_traps(links: LocalLinks) -> None:
    guest = Guest(links, "0.2.0-draft2")
    bucket = await guest.ok("open", "default")
    cas = await guest.ok("[static]cas.new", bucket, "a")

    for failure in (Unreachable("no server"), TimedOut("too late")):
        links.failure = failure
        other = {"other": f"{failure.code}: {failure.message}"}
        assert await guest.do("[method]bucket.get", bucket, "a") == {"err": other}
        assert await guest.do("swap", cas, b"") == {"err": {"store-error": other}}


async def test_component_counts_visits_in_a_real_sandbox(
    links: LocalLinks, compiler: Compiler, engine: Engine
) -> None:
    compiled = await compiler.compile(COUNTER)
    imports = keyvalue_interfaces(compiled.type, links)

    async with InSandbox(engine, compiled, imports) as guest:

        async def visits(function: str, *args: str) -> Any:
            return await guest.call(function, *args, interface="demo:counter/visits")

        assert [await visits("visit", "home") for _ in range(3)] == [{"ok": 1}, {"ok": 2}, {"ok": 3}]
        assert await visits("visit-in", "other", "home") == {"ok": 1}
        assert await visits("seen", "home") == {"ok": "3"}
        assert await visits("forget", "home") == {"ok": None}
        assert await visits("seen", "home") == {"ok": None}
        links.links = ()
        assert await visits("visit", "home") == {"err": "access-denied"}
