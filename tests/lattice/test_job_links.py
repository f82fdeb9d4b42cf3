"""Links of jobs: told by the node that runs the job, known to all while it runs, gone with it."""

from __future__ import annotations

from dataclasses import replace

from lattice.assignments import PAGE_LINKS, Assignments
from lattice.inventory import Delta, InventoryPage, NodeInfo
from lattice.model import Link, new_application
from lattice.state import ConnectionEnded, NodeLeft, Tick
from tests.lattice.lattices import Lattice, Node, spec

JOB = "tally-0123456789abcdef"


def link(source: str = JOB, name: str = "default", bucket: str = "a") -> Link:
    configuration = {"bucket": bucket}
    return Link(
        source=source, interface="wasi:keyvalue", target="cache", name=name, configuration=configuration
    )


def begun(*links: Link) -> tuple[Node, Lattice]:
    """A node that has told a lattice of a job with these links."""
    node = Node("NA")
    lattice = Lattice(node)
    node.assignments.link_job(JOB, links)
    lattice.report(node)
    return node, lattice


def test_what_a_node_has_told_of_a_job_is_not_told_again() -> None:
    assignments = Assignments("NA", 1)
    first, second = link(), link("other-0123456789abcdef")
    assignments.link_job(first.source, [first])
    assignments.link_job("without-0123456789abcdef", [])

    delta = assignments.take_delta()
    assert delta is not None and (delta.job_links, delta.ended_jobs) == ((first,), ())
    assert assignments.take_delta() is None

    assignments.link_job(second.source, [second])
    assignments.link_job(first.source, [])
    delta = assignments.take_delta()
    assert delta is not None and (delta.job_links, delta.ended_jobs) == ((second,), (JOB,))


def test_a_job_that_ended_before_anybody_was_told_is_never_told_of() -> None:
    assignments = Assignments("NA", 1)
    assignments.link_job(JOB, [link()])
    assignments.link_job(JOB, [])

    assert assignments.take_delta() is None


def test_what_is_told_survives_the_wire() -> None:
    delta = Delta(node="NA", boot=1, inventory=1, job_links=(link(),), ended_jobs=("a",))

    assert Delta.from_dict(delta.to_dict()) == delta
    older = {key: value for key, value in delta.to_dict().items() if key not in ("job_links", "ended_jobs")}
    assert Delta.from_dict(older).job_links == ()


def test_links_of_many_jobs_come_in_pages() -> None:
    node = Node("NA")
    jobs = [f"tally-{number}" for number in range(PAGE_LINKS)]
    for job in jobs:
        node.assignments.link_job(job, [link(job), link(job, "second")])
    node.assignments.take_delta()

    pages = node.assignments.pages(node.info)
    assert [len(page.job_links) for page in pages] == [PAGE_LINKS, PAGE_LINKS]

    lattice = Lattice(node)
    assert [len(lattice.state.links_of(job) or ()) for job in jobs] == [2] * PAGE_LINKS


def test_links_of_a_job_are_known_until_it_ends() -> None:
    node, lattice = begun(link(), link(name="second"))
    assert lattice.state.links_of(JOB) == (link(), link(name="second"))

    assert list(lattice.observed.all_job_links()) == [link(), link(name="second")]

    before = lattice.state.changes
    node.assignments.link_job(JOB, [])
    lattice.report(node)

    assert lattice.state.links_of(JOB) is None
    assert list(lattice.observed.all_job_links()) == []
    assert lattice.state.changes > before


def test_whoever_waits_for_a_link_is_woken_by_it() -> None:
    node = Node("NA")
    lattice = Lattice(node)
    before = lattice.state.changes

    node.assignments.link_job(JOB, [link()])
    lattice.report(node)

    assert lattice.state.changes > before


def test_links_stay_the_same_object_whatever_else_is_told() -> None:
    node, lattice = begun(link())
    known = lattice.state.links_of(JOB)

    node.assignments.link_job("other", [link("other")])
    lattice.report(node)
    for page in node.assignments.pages(node.info):
        lattice.state.apply(InventoryPage.from_dict(page.to_dict()), 0.0)

    assert known and lattice.state.links_of(JOB) is known


def test_links_go_with_the_node_and_come_back_with_it() -> None:
    node, lattice = begun(link())

    lattice.state.apply(Tick(), 3.5)
    assert lattice.state.links_of(JOB) is None
    lattice.state.apply(node.heartbeat(), 4.0)
    assert lattice.state.links_of(JOB) == (link(),)

    lattice.state.apply(ConnectionEnded("S", 7), 4.0)
    lattice.state.apply(Tick(), 4.5)
    assert lattice.state.links_of(JOB) is None


def test_links_of_a_node_that_left_or_began_anew_are_gone() -> None:
    _, left = begun(link())
    left.state.apply(NodeLeft("NA", 1), 0.0)

    node, restarted = begun(link())
    restarted.state.apply(node.heartbeat(boot=2, inventory=0), 0.0)
    info = NodeInfo.from_dict({**node.info.to_dict(), "boot": 2})
    restarted.state.apply(InventoryPage(info=info, inventory=0), 0.0)

    assert left.state.links_of(JOB) is None
    assert restarted.state.links_of(JOB) is None


def test_no_node_can_speak_for_the_job_of_another() -> None:
    _, lattice = begun(link())
    liar = Node("NB")
    lattice.join(liar)

    liar.assignments.link_job(JOB, [link(bucket="stolen")])
    lattice.report(liar)
    assert lattice.state.links_of(JOB) == (link(),)

    liar.assignments.link_job(JOB, [])
    lattice.report(liar)
    assert lattice.state.links_of(JOB) == (link(),)


def test_no_node_can_speak_for_what_is_deployed() -> None:
    node, lattice = begun(link())
    own = replace(link("shop"), target="mine")
    lattice.state.apply(new_application("shop", None, 1, components=[spec("shop")], links=[own]), 0.0)

    node.assignments.link_job("shop", [link("shop")])
    lattice.report(node)

    assert lattice.state.links_of("shop") == (own,)
