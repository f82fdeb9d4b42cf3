"""What crosses the bus for a job can be told apart again, however it was cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.errors import Invalid
from lattice.jobs import STDERR, STDOUT, JobSpec, Outcome, OutputReader, outcome_of, output_header
from lattice.model import ComponentSpec

DIGEST = "sha256:" + "0" * 64
PIECES = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(min_size=1, max_size=50)))


def joined(pieces: list[tuple[int, bytes]]) -> dict[int, bytes]:
    return {stream: b"".join(data for of, data in pieces if of == stream) for stream in (STDOUT, STDERR)}


@given(PIECES, st.integers(1, 60))
def test_outputs_are_told_apart_in_pieces_of_any_size(pieces: list[tuple[int, bytes]], size: int) -> None:
    sent = b"".join(output_header(stream, len(data)) + data for stream, data in pieces)
    reader = OutputReader()

    received = [
        piece for start in range(0, len(sent), size) for piece in reader.feed(sent[start : start + size])
    ]

    assert joined(received) == joined(pieces)


def test_a_stream_that_is_not_known_is_invalid() -> None:
    with pytest.raises(Invalid, match="stream 7"):
        list(OutputReader().feed(output_header(7, 1) + b"x"))


@given(st.integers(0, 255), st.text())
def test_how_a_job_ended_survives_its_way_as_trailers(code: int, reason: str) -> None:
    outcome = Outcome(exit_code=code, reason=reason)

    assert outcome_of(outcome.trailers()) == outcome


@pytest.mark.parametrize("trailers", [{}, {"exit-code": ""}, {"exit-code": "-1"}, {"exit-code": "1000"}])
def test_an_end_without_an_exit_code_is_invalid(trailers: dict[str, str]) -> None:
    with pytest.raises(Invalid, match="exit-code"):
        outcome_of(trailers)


def link(source: str = "tool", **fields: object) -> dict[str, object]:
    return {"source": source, "interface": "wasi:keyvalue", "target": "cache", **fields}


@pytest.mark.parametrize(
    ("links", "reason"),
    [
        ([link("shop")], "link source 'shop' is not the job 'tool'"),
        ([link(), link()], "links has .* twice"),
        ([link(name=f"l-{number}") for number in range(17)], "number of links is 17"),
        ([link(configuration={"a": "x" * 5000})], "wasi:keyvalue has more than 4 KiB: .* a configuration"),
    ],
)
def test_links_that_are_not_the_jobs_own_or_too_much_to_tell_are_refused(
    links: list[dict[str, object]], reason: str
) -> None:
    component = ComponentSpec(name="tool", digest=DIGEST).to_dict()

    with pytest.raises(Invalid, match=reason):
        JobSpec.from_dict({"component": component, "links": links})


@pytest.mark.parametrize(
    "fields", [{"arguments": ["a\0b"]}, {"arguments": ["x" * 200_000]}, {"timeout_seconds": 0}]
)
def test_what_no_program_can_be_given_is_refused(fields: dict[str, object]) -> None:
    component = ComponentSpec(name="tool", digest=DIGEST).to_dict()

    with pytest.raises(Invalid):
        JobSpec.from_dict({"component": component, **fields})
