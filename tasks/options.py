"""What all tasks have in common: they keep nothing in Prefect, and are tried again after transient faults alone."""

from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from emtta_core.pipeline.faults import is_transient
from emtta_core.pipeline.progress import channel
from emtta_core.suite import Runtime

# Results and caches of Prefect are left unused: the store says what is done, and it looks whether the files are there.
UNCACHED: dict[str, Any] = {"persist_result": False, "cache_policy": NO_CACHE}


def retry_options(runtime: Runtime) -> dict[str, Any]:
    """Return the retry options of a task for a suite: exponential backoff with jitter, after transient faults alone."""
    return {
        "retries": runtime.retries,
        "retry_delay_seconds": exponential_backoff(backoff_factor=runtime.retry_delay),
        "retry_jitter_factor": 0.2,
        "retry_condition_fn": worth_retrying,
    }


def worth_retrying(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Return whether what ended a task run is transient and the run goes on; Prefect asks before it tries again."""
    try:
        state.result(raise_on_failure=True)
    except Exception as error:
        return is_transient(error) and not channel.stopping()
    return False
