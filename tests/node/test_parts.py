"""The small parts of a node: identity, micro service, neighbours, stall guard, failure log, pure changes."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from lattice import wire
from lattice.edits import Change
from lattice.errors import Conflict, Invalid, NotFound, Overloaded, Trapped
from lattice.failures import LINES_PER_SECOND, FailureLog
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import Application, ComponentSpec, Link
from lattice.neighbours import neighbours
from node import desired_changes
from node.identity import SEED_FILE, load_identity
from node.micro import EndpointStatistics, MicroService
from node.stall import STALL_SECONDS, StallGuard

DIGEST, OTHER = "sha256:" + "0" * 64, "sha256:" + "1" * 64


# Identity


def test_an_identity_is_made_once_and_private(tmp_path: Path) -> None:
    first = load_identity(tmp_path)

    assert load_identity(tmp_path) == first
    assert first.id.startswith("N") and len(first.id) == 56
    assert (tmp_path / SEED_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"SUAMLK2ZNL35WSMW37E7UD4VZ7ELPKW7DHC3BWBSD2GCZ7IUQQXZIORRBU"]
)
def test_what_is_no_key_of_a_node_is_named_with_the_cure(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SEED_FILE).write_bytes(content)

    with pytest.raises(Invalid, match="remove it to let the node make a new one"):
        load_identity(tmp_path)


# Micro service


async def test_a_node_answers_as_a_micro_service() -> None:
    endpoint = EndpointStatistics(
        name="greeter", subject="s", requests=4, errors=1, last_error="trapped", processing_seconds=0.002
    )
    service = MicroService(
        node_id="N1", version="1.2.3", metadata={"lattice": "x"}, started="now", endpoints=lambda: [endpoint]
    )

    stats = service.reply("STATS")

    assert service.reply("PING")["type"] == "io.nats.micro.v1.ping_response"
    assert service.reply("INFO")["endpoints"][0]["name"] == "greeter"
    assert stats["endpoints"][0]["average_processing_time"] == 500_000
    assert json.dumps(stats)


async def test_discovery_reaches_a_node_by_service_and_by_id() -> None:
    async with MemoryBus(MemoryBroker()) as bus, anyio.create_task_group() as tasks:
        service = MicroService(node_id="N1", version="1", metadata={}, started="now", endpoints=list)
        async with AsyncExitStack() as stack:
            await service.start(bus, tasks, stack)
            for subject in ("$SRV.PING", "$SRV.PING.lattice-node", "$SRV.PING.lattice-node.N1"):
                reply = await bus.request(subject, timeout_seconds=5)
                assert json.loads(reply.data)["id"] == "N1"


# Neighbours


def test_each_node_watches_the_next_two_of_the_ring() -> None:
    nodes = ["a", "b", "c", "d"]

    assert neighbours("a", nodes) == ["b", "c"]
    assert neighbours("d", nodes) == ["a", "b"]
    assert neighbours("a", ["a"]) == []
    assert neighbours("x", ["a"]) == ["a"]


# Stall


async def test_a_node_that_stood_still_is_quiet_until_it_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("node.stall.now", lambda: now)
    guard = StallGuard()
    found = [guard.is_quiet]

    for seconds in (STALL_SECONDS + 0.1, 0.1):
        now += seconds
        found.append(guard.is_quiet)

    assert found == [False, True, True]


# Failures


def test_failures_get_an_id_and_their_log_is_bounded() -> None:
    failures, errors = FailureLog(), [Trapped("x") for _ in range(LINES_PER_SECOND * 3)]

    with capture_logs() as logs:
        for error in errors:
            failures.record("s", wire.CallHeaders(), error)

    assert all(error.error_id for error in errors)
    assert LINES_PER_SECOND <= len(logs) <= 2 * LINES_PER_SECOND + 1
    assert {line["error_id"] for line in logs if "error_id" in line} <= {error.error_id for error in errors}


def test_what_only_concerns_the_caller_is_not_logged() -> None:
    with capture_logs() as logs:
        FailureLog().record("s", wire.CallHeaders(), Overloaded("full"))

    assert logs == []


# Changes of desired state


def spec(**changes: object) -> ComponentSpec:
    return ComponentSpec(name="app", digest=DIGEST, **changes)  # type: ignore[arg-type]


LINK = Link(source="app", interface="demo:kv/store", target="store")


def deployed(*links: Link) -> Application:
    return desired_changes.deployed(spec(), links, [], None)(None, 5)


def test_deploying_the_same_again_changes_nothing() -> None:
    before = deployed(LINK)

    assert desired_changes.deployed(spec(), [LINK], [], None)(before, 6) is before


def test_deploying_keeps_links_and_counts_generations() -> None:
    after = desired_changes.deployed(spec(replicas=3), [], [], None)(deployed(LINK), 6)

    assert (after.generation, after.links, after.components[0].replicas) == (2, (LINK,), 3)


def test_another_generation_than_expected_is_a_conflict() -> None:
    with pytest.raises(Conflict, match="generation 7 was expected, but it is 1"):
        desired_changes.deployed(spec(), [], [], 7)(deployed(), 6)


def test_deleting_leaves_a_tombstone_that_a_later_deploy_supersedes() -> None:
    gone = desired_changes.deleted("app")(deployed(), 6)
    again = desired_changes.deployed(spec(), [], [], None)(gone, 7)

    assert gone.is_deleted
    assert again.supersedes(gone)


@pytest.mark.parametrize(
    "change",
    [
        desired_changes.updated("app", OTHER, None),
        desired_changes.scaled("app", 2),
        desired_changes.deleted("app"),
    ],
)
def test_what_does_not_exist_cannot_be_changed(change: Change) -> None:
    with pytest.raises(NotFound):
        change(None, 1)


def test_a_link_may_come_before_its_source() -> None:
    linked = desired_changes.linked(LINK)(None, 5)
    complete = desired_changes.deployed(spec(), [], [], None)(linked, 6)

    assert linked.components == ()
    assert complete.links_of("app") == (LINK,)


def test_nothing_is_left_of_an_application_without_components_and_links() -> None:
    linked = desired_changes.linked(LINK)(None, 5)

    assert desired_changes.unlinked("app", LINK.identity)(linked, 6).is_deleted
    assert not desired_changes.unlinked("app", LINK.identity)(deployed(LINK), 6).is_deleted


@pytest.mark.parametrize("links", ["x", 5, [5], {"interface": "a:b/c"}])
def test_links_that_are_no_list_of_maps_are_named(links: object) -> None:
    with pytest.raises(Invalid, match="links must be a list of maps"):
        desired_changes.links_from_request({"links": links}, "app")


def test_a_link_of_one_identity_is_replaced() -> None:
    other = Link(source="app", interface="demo:kv/store", target="elsewhere")

    assert desired_changes.linked(other)(deployed(LINK), 6).links == (other,)
    assert desired_changes.unlinked("app", LINK.identity)(deployed(LINK), 6).links == ()
    with pytest.raises(NotFound, match="has no link"):
        desired_changes.unlinked("app", ("app", "demo:other/x", "default"))(deployed(LINK), 6)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"digest": DIGEST}, "name is missing"),
        ({"name": "a b", "digest": DIGEST}, "component name"),
        ({"name": "a", "digest": "x"}, "not a digest"),
        ({"name": "a", "digest": DIGEST, "replicas": 10**7}, "replicas"),
        ({"name": "a", "digest": DIGEST, "limits": {"memory": 1}}, "did you mean"),
        ({"name": "a", "digest": DIGEST, "limits": {"memory_bytes": 1}}, "memory_bytes"),
        ({"name": "a", "digest": DIGEST, "labels": 3}, "labels"),
    ],
)
def test_a_bad_deploy_request_names_the_field(request_: dict[str, object], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        desired_changes.spec_from_request(request_)
