"""The guestbook: HTTP, key-value, blobs and messages together, on two nodes of which one is killed.

The C version is committed. Those in JavaScript and Python are tested where they have been built.
"""

from __future__ import annotations

import http.client
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from ctl.client import ControlClient
from lattice.bus import Message
from tests.e2e.processes import EXAMPLES, Lattice, until
from tests.e2e.questions import holders
from tests.ports import own_port

COMPILE_SECONDS = 200.0
"""What two nodes may take for an engine of 18 MB, side by side on a busy machine."""

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(COMPILE_SECONDS + 100)]

NAME = "guestbook"
SUBJECT = "guestbook.entries"
MESSAGING = "wasmcloud:messaging"
BLOBSTORE = "wasi:blobstore"
LINKS = (("wasi:keyvalue", "keyvalue-nats"), (BLOBSTORE, "blobstore-nats"))
ROUTE: tuple[dict[str, Any], ...] = ({"kind": "http", "configuration": {"prefix": "/guestbook"}},)
MOST_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Answer:
    """A response over HTTP."""

    status: int
    body: bytes


def ask(port: int, method: str, path: str, body: bytes | None) -> Answer:
    """One request on a connection of its own; blocks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, f"/guestbook{path}", body)
        response = connection.getresponse()
        return Answer(response.status, response.read())
    finally:
        connection.close()


class Guestbook:
    """A lattice of two nodes that listen, and the guestbook on one of them."""

    def __init__(self, lattice: Lattice) -> None:
        self.lattice = lattice
        self.messages: list[bytes] = []
        self._ports: dict[str, int] = {}

    async def start(self) -> None:
        """Start the nodes."""
        for name in ("a", "b"):
            self._ports[name] = own_port()
            self.lattice.node(name, "--http", f"127.0.0.1:{self._ports[name]}").start()
        await self.lattice.settled()

    async def deploy(self, client: ControlClient, file: Path, *, publish: str = SUBJECT) -> None:
        """Deploy it with its links and its route, and return when it answers at both nodes."""
        await client.put_link(NAME, MESSAGING, "messaging-nats", configuration={"publish": publish})
        await self.lattice.deploy(file, name=NAME, links=LINKS, triggers=ROUTE, waits=False)
        for node in self._ports:
            await until(partial(self.counts, node, 0), seconds=COMPILE_SECONDS, what=f"{node} serves it")

    async def request(
        self, node: str, method: str = "GET", path: str = "", body: bytes | None = None
    ) -> Answer:
        """What the node's listener answers."""
        return await anyio.to_thread.run_sync(ask, self._ports[node], method, path, body)

    async def sign(self, node: str, text: bytes) -> bytes:
        """Add an entry; what the guestbook says."""
        answer = await self.request(node, "POST", "", text)
        assert answer.status == 201, answer
        return answer.body

    async def counts(self, node: str, entries: int) -> bool:
        """Whether it has so many entries; not when it does not answer."""
        with suppress(OSError, http.client.HTTPException):
            return await self.request(node) == Answer(200, b"entries: %d\n" % entries)
        return False

    async def wait_for_messages(self, *texts: bytes) -> None:
        """Return when just these have come."""

        async def have_come() -> bool:
            return self.messages == list(texts)

        await until(have_come, what=f"messages {texts}")

    def keep(self, message: Message) -> None:
        """What the subscriber does with a message."""
        self.messages.append(message.data)


@pytest.fixture
async def guestbook(tmp_path: Path) -> AsyncIterator[Guestbook]:
    """Two nodes, a subscriber, nothing deployed."""
    async with Lattice(tmp_path, "guests") as lattice:
        guestbook = Guestbook(lattice)
        await guestbook.start()
        async with lattice.bus() as bus:
            await bus.subscribe(SUBJECT, guestbook.keep)
            yield guestbook


@pytest.fixture
async def client(guestbook: Guestbook) -> AsyncIterator[ControlClient]:
    async with guestbook.lattice.connect() as client:
        yield client


@pytest.fixture(params=["c", "javascript", "python"])
def file(request: pytest.FixtureRequest) -> Path:
    """The component, in each language."""
    file: Path = EXAMPLES / NAME / request.param / "guestbook.wasm"
    if not file.exists() and request.param != "c":
        pytest.skip(f"not built: make -C examples/guestbook/{request.param}")
    return file


async def test_entries_outlive_the_node_that_took_them(
    file: Path, guestbook: Guestbook, client: ControlClient
) -> None:
    await guestbook.deploy(client, file)
    [holder] = await holders(client, NAME)
    entrance = "b" if holder == "a" else "a"

    assert await guestbook.sign(entrance, b"Ada was here") == b"entry 1\n"
    guestbook.lattice[holder].kill()
    await until(lambda: guestbook.counts(entrance, 1), what="the other node has taken over")
    assert await guestbook.sign(entrance, b"Grace, too") == b"entry 2\n"

    assert await guestbook.request(entrance, path="/1") == Answer(200, b"Ada was here")
    assert await guestbook.request(entrance, path="/2?again") == Answer(200, b"Grace, too")
    await guestbook.wait_for_messages(b"Ada was here", b"Grace, too")


class Signers:
    """Guests who sign all at once at one node, and write down what was confirmed."""

    def __init__(self, guestbook: Guestbook, entrance: str) -> None:
        self.confirmed: dict[int, bytes] = {}
        self.is_open = True
        self._guestbook = guestbook
        self._entrance = entrance

    async def sign(self, name: str) -> None:
        """Sign until closed; what fails is not written down."""
        entries = 0
        while self.is_open:
            text = f"{name}, {entries}".encode()
            entries += 1
            with suppress(OSError, http.client.HTTPException):
                answer = await self._guestbook.request(self._entrance, "POST", "", text)
                if answer.status == 201:
                    number = int(answer.body.split()[1])
                    assert number not in self.confirmed
                    self.confirmed[number] = text

    async def wait_for(self, more: int) -> None:
        """Return when so many more are confirmed than now."""
        enough = len(self.confirmed) + more

        async def are_there() -> bool:
            return len(self.confirmed) >= enough

        await until(are_there, what=f"{enough} entries are confirmed")


async def test_what_was_confirmed_is_kept_when_the_node_dies_at_work(
    file: Path, guestbook: Guestbook, client: ControlClient
) -> None:
    await guestbook.deploy(client, file)
    [holder] = await holders(client, NAME)
    entrance = "b" if holder == "a" else "a"
    signers = Signers(guestbook, entrance)

    async with anyio.create_task_group() as tasks:
        for name in ("Ada", "Grace", "Edith", "Barbara"):
            tasks.start_soon(signers.sign, name)
        await signers.wait_for(20)
        guestbook.lattice[holder].kill()
        await signers.wait_for(20)
        signers.is_open = False

    for number, text in signers.confirmed.items():
        assert await guestbook.request(entrance, path=f"/{number}") == Answer(200, text)


async def test_it_refuses_what_it_does_not_take(
    file: Path, guestbook: Guestbook, client: ControlClient
) -> None:
    await guestbook.deploy(client, file)
    largest = bytes(range(256)) * (MOST_BYTES // 256)

    too_large = await guestbook.request("a", "POST", "", largest + b"!")
    changed = await guestbook.request("a", "PUT", "/1", b"no")
    missing = await guestbook.request("a", path="/1")

    assert [too_large.status, changed.status, missing.status] == [413, 405, 404]
    assert await guestbook.sign("a", largest) == b"entry 1\n"
    assert (await guestbook.request("b", path="/1")).body == largest
    assert await guestbook.sign("b", b"") == b"entry 2\n"
    assert await guestbook.request("a", path="/2") == Answer(200, b"")


async def test_it_says_what_it_was_not_granted(
    file: Path, guestbook: Guestbook, client: ControlClient
) -> None:
    await guestbook.deploy(client, file, publish="somewhere.else")

    said = await guestbook.sign("a", b"Ada was here")
    await client.delete_link(NAME, BLOBSTORE)
    await until(lambda: _has_status(guestbook, 503), what="blobs are denied")
    denied = await guestbook.request("a", path="/1")
    await client.put_link(NAME, BLOBSTORE, "blobstore-nats")
    await until(lambda: _has_status(guestbook, 200), what="blobs are granted again")

    assert said.startswith(b"entry 1, but nobody was told") and b"publish=guestbook.entries" in said
    assert b"latticectl link put guestbook wasi:blobstore" in denied.body
    assert guestbook.messages == []


async def _has_status(guestbook: Guestbook, status: int) -> bool:
    return (await guestbook.request("a", path="/1")).status == status
