"""`latticectl job stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ctl.command import Group, command, session_of
from ctl.session import Session

if TYPE_CHECKING:
    from ctl.client import ControlClient
    from ctl.models import JobStopped


@click.group(cls=Group)
def job() -> None:
    """End jobs that `latticectl run` began.

    `latticectl get jobs` lists them, `latticectl logs JOB` shows what detached ones wrote.

    \b
    Examples:
      latticectl job stop report-f0304e8f7d7687b9
    """


@command()
@click.argument("job_id", metavar="JOB")
@session_of
def stop(session: Session, job_id: str) -> None:
    """End a job at once, wherever it runs; whoever follows it gets exit code 143.

    \b
    Examples:
      latticectl job stop report-f0304e8f7d7687b9
    """

    async def run(client: ControlClient) -> JobStopped:
        return await client.stop_job(job_id)

    stopped = session.run(run)
    session.output.item(stopped, lambda: f"stopped {stopped.job}")


job.add_command(stop)
