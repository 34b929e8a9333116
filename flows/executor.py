"""Executors for the cells of a run: processes on this machine, this process, or the machines of a cluster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from prefect import Task
from prefect.futures import PrefectFuture

from emtta_core.pipeline.events import channel
from emtta_core.pipeline.job import CellReport, Job
from emtta_core.pipeline.run import Run
from emtta_core.store import Store
from emtta_core.suite import Isolation
from emtta_core.worker.devices import choose_devices
from emtta_core.worker.pool import OwnProcess, WorkerPool
from emtta_core.worker.worker import WorkerLostError
from flows.runner import Runner, check_runner


class LostTaskError(WorkerLostError):
    """A task run was lost with its process, so Prefect could not retry it."""


class Executor(Protocol):
    """Executes cells, each as a task run."""

    size: int
    """The number of cells executed at once."""

    def submit(self, task: Task[..., CellReport], job: Job) -> PrefectFuture[CellReport]:
        """Submit a cell."""

    def error_of(self, future: PrefectFuture[CellReport]) -> BaseException | None:
        """The error that ended a finished cell, None if it is complete; after a `LostTaskError` it may be resumed."""


class Threads:
    """Threads of the flow, each of which executes one cell and waits for it."""

    def __init__(self, execute: Callable[[Job], CellReport], size: int) -> None:
        """Execute cells with `execute`, `size` at once."""
        self._execute, self.size = execute, size

    def submit(self, task: Task[..., CellReport], job: Job) -> PrefectFuture[CellReport]:
        """Submit a cell."""
        return task.submit(job, self._execute)

    def error_of(self, future: PrefectFuture[CellReport]) -> BaseException | None:
        """The error that ended a finished cell, None if it is complete."""
        return error_of(future)


@contextmanager
def start_executor(
    run: Run,
    store: Store,
    runner: Runner,
    ray_address: str | None,
    devices: str | None,
    isolation: Isolation | None,
    cells: int,
) -> Iterator[Executor]:
    """Yield an executor for the given number of cells of a run; its processes end with the `with` block.

    Omitted options default to the run's suite.

    Raises:
        UsageError: an option does not apply to the runner, or there is no such device.
        EmttaError: the runner's package is missing, or its cluster cannot execute the run.
    """
    check_runner(runner, ray_address, devices, isolation)
    if runner == "ray":
        from flows.ray_executor import RayExecutor

        with RayExecutor(run, store, ray_address, cells) as executor:
            yield executor
        return
    runtime = run.suite.runtime
    slots = choose_devices(devices or run.suite.model.device, runtime)[:cells]
    if (isolation or runtime.isolation) == "process":
        with WorkerPool(slots, channel.publish, channel.stopping) as workers:
            yield Threads(workers.do, len(slots))
    else:
        yield Threads(OwnProcess(slots, channel.publish, channel.stopping).do, len(slots))


def error_of(future: PrefectFuture[Any]) -> BaseException | None:
    """The error, exception or crash, that ended a finished task run; None if it succeeded."""
    future.wait()  # until then its state is stale
    try:
        future.result(raise_on_failure=True)
    except Exception as error:
        return error
    return None
