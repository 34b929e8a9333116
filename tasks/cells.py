"""The tasks of a run: prepare a domain, and evaluate a cell; Prefect stores no results, and retries transient faults.

Passwords in URLs never reach Prefect, neither in its logs nor in the message of a state.
"""

import logging
from collections.abc import Callable
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging.handlers import APILogHandler, PrefectConsoleHandler
from prefect.tasks import exponential_backoff

from emtta_core.errors import EmttaError
from emtta_core.faults import is_transient
from emtta_core.pipeline.events import channel
from emtta_core.pipeline.job import CellReport, Job
from emtta_core.pipeline.preparation import Prepared, prepare_domain
from emtta_core.sanitize import without_passwords
from emtta_core.store import Store
from emtta_core.suite import Domain, Runtime


class hide_passwords(ContextDecorator):  # noqa: N801 - used like `suppress`
    """Keep passwords from Prefect inside the `with` block, or the flow or task that this decorates.

    Raises:
        EmttaError: in place of, and chained to, an error whose message contains a password.
    """

    # A class, because Ray sends flows and tasks to its machines, and a `contextmanager` generator cannot be pickled.

    def __enter__(self) -> None:
        _configure_handlers()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        message = without_passwords(str(error))
        if isinstance(error, Exception) and message != str(error):
            raise EmttaError(f"{type(error).__name__}: {message}") from error


class _HandlerFormatter(logging.Formatter):
    """Formats like another formatter, without passwords in URLs."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return without_passwords(self._inner.format(record))


def _configure_handlers() -> None:
    # Make Prefect's handlers, for its server and for the screen, hide passwords.
    loggers = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    for handler in [handler for logger in (logging.root, *loggers) for handler in logger.handlers]:
        if isinstance(handler, APILogHandler | PrefectConsoleHandler) and not isinstance(
            handler.formatter, _HandlerFormatter
        ):
            handler.setFormatter(_HandlerFormatter(handler.formatter or logging.Formatter()))


# Prefect's results and caches are not used: the store says what is done, by checking which files exist.
UNCACHED: dict[str, Any] = {"persist_result": False, "cache_policy": NO_CACHE}


def retry_options(runtime: Runtime) -> dict[str, Any]:
    """The retry options of a task for a suite: exponential backoff with jitter, only after transient faults."""
    return {
        "retries": runtime.retries,
        "retry_delay_seconds": exponential_backoff(backoff_factor=runtime.retry_delay),
        "retry_jitter_factor": 0.2,
        "retry_condition_fn": worth_retrying,
    }


def worth_retrying(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Whether the error of a task run is transient and the run continues; Prefect calls this before it retries."""
    try:
        state.result(raise_on_failure=True)
    except Exception as error:
        return is_transient(error) and not channel.stopping()
    return False


@task(name="prepare", task_run_name="prepare {domain.name}", **UNCACHED)
@hide_passwords()
def prepare(domain: Domain, corpus_id: str, store: str, limit: int | None, retry_errors: bool) -> Prepared:
    """Prepare a domain, unless its audio is in the store; `retry_errors` prepares audio with errors again."""
    return prepare_domain(domain, corpus_id, Store.open(store), limit, retry_errors=retry_errors)


@task(name="evaluate-cell", task_run_name="{job.name}", **UNCACHED)
@hide_passwords()
def evaluate(job: Job, execute: Callable[[Job], CellReport]) -> CellReport:
    """Evaluate a cell or a stream whose domains are prepared; finished utterances are skipped."""
    return execute(job)
