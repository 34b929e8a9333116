"""The task that owns a cell: adapt, score, store."""

from collections.abc import Callable

from prefect import task

from emtta_core.pipeline.attempt import CellReport
from emtta_core.pipeline.job import Job
from tasks.options import UNCACHED


@task(name="evaluate-cell", task_run_name="{job.cell.domain}/{job.cell.method}", **UNCACHED)
def evaluate(job: Job, carry_out: Callable[[Job], CellReport]) -> CellReport:
    """Evaluate a cell whose domain is prepared; utterances that are done are left alone.

    Args:
        job: which cell, and how.
        carry_out: does it, here or in a process of its own.
    """
    return carry_out(job)
