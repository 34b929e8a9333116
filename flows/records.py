"""Waiting for Prefect's server to have the records of all task runs, which are lost where the process ends too soon."""

import time

import httpx
from prefect import get_client, get_run_logger
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun
from prefect.runtime import flow_run

PAGE = 200
"""The most task runs that the server gives at once."""


def wait_for_records(expected: int, *, timeout: float = 60.0, poll: float = 0.2) -> bool:
    """Wait, inside a flow run, until the server shows all of its task runs in a final state, or no longer answers.

    Args:
        expected: how many task runs there are.
        timeout: seconds after which to go on; the store has the results in any case.
        poll: seconds between two looks.

    Returns:
        Whether the server still answers.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            runs = _task_runs()
        except httpx.TransportError as error:
            get_run_logger().warning("Prefect's server no longer answers (%s); the store has all results", error)
            return False
        final = sum(run.state is not None and run.state.is_final() for run in runs)
        if final >= expected:
            return True
        if time.monotonic() > deadline:
            get_run_logger().warning("Prefect has %d of %d task records; the store has all results", final, expected)
            return True
        time.sleep(poll)


def _task_runs() -> list[TaskRun]:
    """Return the task runs of the current flow run, as the server has them."""
    runs: list[TaskRun] = []
    this_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.get_id()]))
    with get_client(sync_client=True) as client:
        while True:
            page = client.read_task_runs(flow_run_filter=this_run, limit=PAGE, offset=len(runs))
            runs += page
            if len(page) < PAGE:
                return runs
