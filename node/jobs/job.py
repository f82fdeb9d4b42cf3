"""One job from its beginning to its end."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio

from lattice.errors import LatticeError
from lattice.failures import internal_failure
from lattice.jobs import FAILED, STOPPED, JobSpec, Outcome
from lattice.streams import ByteReceiver, DelegatingReceiver
from node.jobs.program import LoggedOutput, Program, StreamedOutput

NAME_LENGTH = 46
"""Of its name as part of its id, which is a component's name too."""

END_SECONDS = 5.0
"""How long telling how a job ended may take when nobody reads its output."""


def job_id(name: str) -> str:
    """The id of a new job: its name, and what nobody can guess.

    Capabilities know the job by it, so that it shares grants and secrets with nothing that is deployed.
    """
    return f"{name[:NAME_LENGTH].rstrip('-')}-{secrets.token_hex(8)}"


class Job:
    """The mutable state is how it ended, and whether somebody stopped it."""

    def __init__(self, spec: JobSpec) -> None:
        self.id = job_id(spec.component.name)
        self.spec = spec
        self.component = replace(spec.component, name=self.id)
        """Who it is to the capabilities that it uses."""
        self.links = tuple(replace(link, source=self.id) for link in spec.links)
        """Its own, whatever their source was: it can't speak for anybody else."""
        self.warnings: tuple[str, ...] = ()
        """What it was given and could not use when it began."""
        self.started_at = time.time()
        self.outcome: Outcome | None = None
        self._scope = anyio.CancelScope()

    def stop(self) -> None:
        """End the guest; whoever reads the output learns that it was stopped."""
        self._scope.cancel()

    async def run(
        self, program: Program, source: ByteReceiver | None, output: StreamedOutput | LoggedOutput
    ) -> Outcome:
        """Run to the end, and say how it was. Raises nothing: only the reader of its output waits for it."""
        outcome = Outcome(exit_code=STOPPED, reason="it was stopped")
        try:
            with self._scope:
                outcome = await program.run(source, output.write)
        except LatticeError as error:  # its reader is lost
            outcome = Outcome(exit_code=STOPPED, reason=error.message)
        except Exception:
            internal = internal_failure("job.failed", self.id)
            outcome = Outcome(exit_code=FAILED, reason=internal.message)
        with anyio.move_on_after(END_SECONDS, shield=True), suppress(LatticeError):
            await output.end(outcome)
        self.outcome = outcome
        return outcome

    def description(self) -> Mapping[str, Any]:
        """For people."""
        return {
            "job": self.id,
            "name": self.spec.component.name,
            "digest": self.spec.component.digest,
            "is_detached": self.spec.is_detached,
            "since_seconds": time.time() - self.started_at,
            "warnings": list(self.warnings),
            "links": [f"{link.interface}={link.target}" for link in self.links],
        }


class JobOutput(DelegatingReceiver):
    """The output of a job as its caller reads it; who closes it early stops the job."""

    def __init__(self, inner: ByteReceiver, stop: Callable[[], None]) -> None:
        super().__init__(inner)
        self._stop = stop

    async def aclose(self) -> None:
        self._stop()
        await super().aclose()
