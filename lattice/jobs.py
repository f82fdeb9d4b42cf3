"""Jobs: commands that run once on some node, with their input and output streamed. Pure.

A job is a call with streams beside it, to a node that the caller chose: its input is the stream beside the
arguments; its output is the one beside the result, where standard output and error are told apart by a header
before each piece. How it ended stands in the trailers. No node remembers a job after its end.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lattice.errors import Invalid
from lattice.fields import Value, check_range, check_unique
from lattice.model import KIB, ComponentSpec, Link

INTERFACE = "lattice:jobs/run"
FUNCTION = "run"
COMPONENT = "lattice-jobs"
"""What calls that begin jobs name, and nothing that is deployed: who may call a component at its nodes, by a
permission for its name, may begin none."""

STDOUT, STDERR = 1, 2

FAILED, TIMED_OUT, TRAPPED, STOPPED = 125, 124, 134, 143
"""Exit codes of jobs that did not end by themselves, as shells and `timeout` have them."""

MAX_SECONDS = 24 * 3600.0
MAX_ARGUMENTS_BYTES = 128 * KIB
MAX_LINK_BYTES = 4 * KIB
"""Of one link, written as JSON: the node tells all others of it."""
MAX_LINKS = 16

_HEADER = struct.Struct(">BI")
_EXIT_CODE, _REASON = "exit-code", "reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec(Value):
    """What is to be run, and with what."""

    component: ComponentSpec
    """Its name is the job's; the digest may be that of a core module. Replicas and spares mean nothing."""
    arguments: tuple[str, ...] = ()
    """Without the program's own name, which is the component's."""
    timeout_seconds: float = MAX_SECONDS
    links: tuple[Link, ...] = ()
    """Their source is the component's name. The node gives them the job's id instead, so that they are the
    job's own, and are gone with it."""
    is_detached: bool = False
    """Whether it goes on when its caller leaves; its output goes to the log then."""

    def __post_init__(self) -> None:
        check_range(self.timeout_seconds, 0.001, MAX_SECONDS, "timeout_seconds")
        if any("\0" in argument for argument in self.arguments):
            raise Invalid("arguments can't have a zero character")
        if sum(len(argument.encode()) for argument in self.arguments) > MAX_ARGUMENTS_BYTES:
            raise Invalid(f"arguments have more than {MAX_ARGUMENTS_BYTES} bytes: use the input instead")
        _check_links(self.component.name, self.links)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Value):
    """The result of the call: the job runs."""

    job: str
    node: str
    node_name: str = ""
    warnings: tuple[str, ...] = ()
    """What it was given and can't use now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Value):
    """How a job ended."""

    exit_code: int
    reason: str = ""
    """Why, if it did not end by itself."""

    def trailers(self) -> dict[str, str]:
        """As they stand at the end of the job's output."""
        return {_EXIT_CODE: str(self.exit_code), _REASON: self.reason}


def _check_links(job: str, links: tuple[Link, ...]) -> None:
    check_range(len(links), 0, MAX_LINKS, "number of links")
    check_unique((link.identity for link in links), "links")
    for link in links:
        if link.source != job:
            raise Invalid(f"link source {link.source!r} is not the job {job!r}")
        if len(json.dumps(link.to_dict())) > MAX_LINK_BYTES:
            raise Invalid(
                f"the link of {link.interface} has more than {MAX_LINK_BYTES // KIB} KiB: "
                "keep its values in a configuration of the lattice, and name that"
            )


def outcome_of(trailers: Mapping[str, str]) -> Outcome:
    """The inverse of `Outcome.trailers`; raises `Invalid`."""
    code = trailers.get(_EXIT_CODE, "")
    if not code.isdecimal() or len(code) > 3:
        raise Invalid(f"the end of the job's output lacks the trailer `{_EXIT_CODE}`")
    return Outcome(exit_code=int(code), reason=trailers.get(_REASON, ""))


def output_header(stream: int, size: int) -> bytes:
    """What precedes so many bytes of `STDOUT` or `STDERR`."""
    return _HEADER.pack(stream, size)


class OutputReader:
    """Tells the two outputs of a job apart, whatever pieces they come in."""

    # The mutable state is a header that is not whole, and what is left of the piece that it announced.

    def __init__(self) -> None:
        self._header = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The pieces that have come, each with its stream. Raises `Invalid` for a stream that is unknown."""
        rest = memoryview(data)
        while rest:
            if not self._left:
                missing = _HEADER.size - len(self._header)
                self._header += bytes(rest[:missing])
                rest = rest[missing:]
                self._open()
                continue
            piece, rest = rest[: self._left], rest[self._left :]
            self._left -= len(piece)
            yield self._stream, bytes(piece)

    def _open(self) -> None:
        if len(self._header) < _HEADER.size:
            return
        self._stream, self._left = _HEADER.unpack(self._header)
        self._header = b""
        if self._stream not in (STDOUT, STDERR):
            raise Invalid(f"the job's output has a stream {self._stream}, which is not known")
