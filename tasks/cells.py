"""The tasks of a run: prepare a domain, and evaluate a cell; Prefect keeps no result, and retries transient faults."""

from collections.abc import Callable
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from emtta_core.faults import is_transient
from emtta_core.pipeline.events import channel
from emtta_core.pipeline.job import CellReport, Job
from emtta_core.pipeline.preparation import Prepared, prepare_domain
from emtta_core.store import Store
from emtta_core.suite import Domain, Runtime
from tasks.passwords import hide_passwords

# Results and caches of Prefect are left unused: the store says what is done, and it looks whether the files are there.
UNCACHED: dict[str, Any] = {"persist_result": False, "cache_policy": NO_CACHE}


def retry_options(runtime: Runtime) -> dict[str, Any]:
    """The retry options of a task for a suite: exponential backoff with jitter, after transient faults alone."""
    return {
        "retries": runtime.retries,
        "retry_delay_seconds": exponential_backoff(backoff_factor=runtime.retry_delay),
        "retry_jitter_factor": 0.2,
        "retry_condition_fn": worth_retrying,
    }


def worth_retrying(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Whether what ended a task run is transient and the run goes on; Prefect asks before it tries again."""
    try:
        state.result(raise_on_failure=True)
    except Exception as error:
        return is_transient(error) and not channel.stopping()
    return False


@task(name="prepare", task_run_name="prepare {domain.name}", **UNCACHED)
@hide_passwords()
def prepare(domain: Domain, corpus_id: str, store: str, limit: int | None, retry_errors: bool) -> Prepared:
    """Prepare a domain, unless its audio is in the store; `retry_errors` prepares anew what is there with errors."""
    return prepare_domain(domain, corpus_id, Store.open(store), limit, retry_errors=retry_errors)


@task(name="evaluate-cell", task_run_name="{job.name}", **UNCACHED)
@hide_passwords()
def evaluate(job: Job, execute: Callable[[Job], CellReport]) -> CellReport:
    """Evaluate a cell, or a stream, whose domains are prepared; utterances that are done are left alone."""
    return execute(job)
