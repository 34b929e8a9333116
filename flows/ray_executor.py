"""Execute cells on the machines of a Ray cluster, as task runs on Prefect's `RayTaskRunner`.

The flow itself prepares the domains: their corpora are on its machine, and only the store is accessible everywhere.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

import ray
from httpx import HTTPError
from prefect import Task, get_client
from prefect.exceptions import PrefectException
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options
from prefect_ray.task_runners import PrefectRayFuture
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from emtta_core.errors import EmttaError, UsageError
from emtta_core.pipeline.events import CellFinished, channel
from emtta_core.pipeline.job import AttemptTracker, CellReport, Job, describe
from emtta_core.pipeline.run import Run
from emtta_core.store import Store
from emtta_core.worker.ray import JobStarted, Mailbox, Message, check_machine, execute
from flows.executor import LostTaskError, error_of

POLL = 0.2
"""Seconds between polls of the mailbox."""
CONNECT_TIMEOUT = 10.0
"""Seconds in which the head of a cluster must answer; Ray itself would wait for minutes."""
CHECK_TIMEOUT = 300.0
"""Seconds in which a machine must confirm that it can reach the store: time for its first Python process to start."""


@dataclass(slots=True)
class _Work:
    """A cell submitted to the cluster, and what its worker has reported so far."""

    job: Job
    future: "PrefectRayFuture[CellReport]"
    attempts: AttemptTracker
    started: JobStarted | None = None
    started_at: float = 0.0
    stop_reason: str | None = None  # why this process ended it


class RayExecutor:
    """The machines of a Ray cluster: a cell takes a GPU, or a CPU if the model runs on CPUs."""

    def __init__(self, run: Run, store: Store, address: str | None, cells: int) -> None:
        """Set up the executor for a run.

        Args:
            run: the run.
            store: the store; every machine of the cluster must be able to reach it.
            address: the cluster's address, such as `HOST:6379`; None: the one this machine belongs to, or a temporary
                cluster of only this machine.
            cells: the number of cells to execute.
        """
        self._run, self._store, self._address = run, store, address or os.environ.get("RAY_ADDRESS")
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._work: dict[PrefectFuture[CellReport], _Work] = {}
        self._stack = ExitStack()
        self.size = cells

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._runner = stack.enter_context(_connected(self._address))
            with get_client(sync_client=True) as client:
                self._server = str(client.api_url).rstrip("/")
            self._options = self._choose_devices()
            self._check_machines()
            # If its machine is lost, Ray starts it again on another.
            self._mailbox: Any = ray.remote(Mailbox).options(num_cpus=0, max_restarts=-1).remote()
            stack.callback(ray.kill, self._mailbox)
            listener = threading.Thread(target=self._listen, name="emtta-ray", daemon=True)
            listener.start()
            stack.callback(listener.join)
            stack.callback(self._closing.set)
            # Setup is complete: from here on `__exit__` cleans up; had a step failed, the end of this block would have.
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def submit(self, task: Task[..., CellReport], job: Job) -> PrefectFuture[CellReport]:
        """Submit a cell."""
        placed_job = job.on("cuda:0" if "num_gpus" in self._options else "cpu", "")
        do = partial(execute, self._mailbox)
        # Without the address, a worker would start its own temporary server.
        with temporary_settings({PREFECT_API_URL: self._server}), remote_options(**self._options), self._lock:
            work = _Work(
                placed_job, self._runner.submit(task, {"job": placed_job, "execute": do}), AttemptTracker(placed_job)
            )
            self._work[work.future] = work
        future: PrefectFuture[CellReport] = work.future
        return future

    def error_of(self, future: PrefectFuture[CellReport]) -> BaseException | None:
        """The error that ended a finished cell, None if it is complete; after a `LostTaskError` it may be resumed."""
        # The mailbox may still hold the worker's last messages, which say how the cell ended.
        error = error_of(future)
        self._exchange()
        with self._lock:
            work = self._work.pop(future)
        if error is not None and future.state.is_crashed():
            if work.started is None and channel.stopping():
                return LostTaskError("not started: the run was asked to stop")
            crash = LostTaskError(_crash_reason(work, error))
            device = "none" if work.started is None else work.started.device
            work.attempts.fail(self._store, crash, channel.publish, device)
            _report_crash(future, crash)
            return crash
        unreported = work.attempts.unreported  # its worker's messages were lost with a mailbox
        for cell in unreported if error is None or len(unreported) == len(work.job.cells) else ():
            report = future.result() if error is None else None
            done = 0 if report is None else report.done + report.reused
            channel.publish(
                CellFinished(
                    cell.name,
                    utterances=done,
                    errors=0 if report is None else report.errors,
                    wer=None if report is None else report.wer,
                    seconds=0.0 if report is None else report.seconds,
                    error=None if error is None else describe(error),
                )
            )
        return error

    def _choose_devices(self) -> dict[str, Any]:
        # The resources that a cell takes, and how many cells can run at once; raises UsageError if the cluster lacks
        # them.
        resources, requested = ray.cluster_resources(), self._run.suite.model.device
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        on_gpu = gpus > 0 if requested == "auto" else requested.startswith("cuda")
        if cpus == 0 or (on_gpu and gpus == 0):
            raise UsageError(
                f"the suite's model.device is {requested!r}, but the Ray cluster has {cpus} CPUs and {gpus} GPUs for "
                "tasks; add machines (ray start --address=…), or change the suite"
            )
        options: dict[str, Any] = {"max_retries": 0, "num_cpus": 1}
        if not on_gpu:
            self.size = min(cpus, self.size)
            return options
        # Ray counts fractions of a GPU, so that several cells share one.
        share = self._run.suite.runtime.workers or 1
        self.size = min(gpus * share, self.size)
        return options | {"num_gpus": 1 / share}

    def _check_machines(self) -> None:
        # Each machine that may get cells checks whether it can execute them; raises an EmttaError that names one that
        # cannot.
        needed = "GPU" if "num_gpus" in self._options else "CPU"
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get(needed, 0) > 0]
        checks = []
        for node in nodes:
            on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task: Any = ray.remote(check_machine).options(num_cpus=0, max_retries=0, scheduling_strategy=on_node)
            checks.append(
                task.remote(
                    self._store.location, self._run.run_id, self._server, version("emtta"), socket.gethostname()
                )
            )
        # Results are collected after all have been started: each may have to start its machine's first Python process.
        for node, check in zip(nodes, checks, strict=True):
            try:
                problem = ray.get(check, timeout=CHECK_TIMEOUT)
            except Exception as error:
                problem = f"it cannot run emtta: {describe(error)}"
            if problem is not None:
                raise EmttaError(f"the machine {node['NodeManagerHostname']} of Ray's cluster: {problem}")

    def _listen(self) -> None:
        # Pass on the events of cells, and end those that take too long, until everything has finished.
        while not self._closing.wait(POLL):
            self._exchange()
            with self._lock:
                for work in self._work.values():
                    self._end_overdue(work)

    def _exchange(self) -> None:
        with self._lock:
            try:
                messages = ray.get(self._mailbox.exchange.remote(channel.stopping()), timeout=CONNECT_TIMEOUT)
            except RayError:
                return  # it is being started again
            for job, message in messages:
                for work in self._work.values():
                    if work.job.name == job:
                        _note(work, message)
                if not isinstance(message, JobStarted):
                    channel.publish(message)

    def _end_overdue(self, work: _Work) -> None:
        # End a cell that has taken too long, or that is still waiting for a machine when the run is to stop.
        timeout = work.job.timeout
        if work.stop_reason is not None:
            return
        if work.started is None:
            if channel.stopping():
                work.stop_reason = "the run was asked to stop"
                ray.cancel(work.future.wrapped_future)
        elif timeout is not None and time.monotonic() - work.started_at > timeout:
            work.stop_reason = (
                f"the attempt took longer than {timeout:g} s (runtime.timeout), and its process was ended"
            )
            ray.cancel(work.future.wrapped_future, force=True)


def _note(work: _Work, message: Message) -> None:
    if isinstance(message, JobStarted):
        work.started, work.started_at = message, time.monotonic()
    else:
        work.attempts.observe(message)


def _report_crash(future: PrefectFuture[CellReport], crash: LostTaskError) -> None:
    # Mark Prefect's record of a lost task run as lost, if there is one: the process that updated it is gone.
    with suppress(PrefectException, HTTPError), get_client(sync_client=True) as client:
        client.set_task_run_state(future.task_run_id, Crashed(message=str(crash)), force=True)


def _crash_reason(work: _Work, error: BaseException) -> str:
    if work.stop_reason is not None:
        return work.stop_reason
    if work.started is None:
        return f"Ray could not start the cell: {describe(error)}"
    worker = f"the Ray worker {work.started.process} on {work.started.host}"
    return f"{worker} was lost during its cell: {describe(error)}"


@contextmanager
def _connected(address: str | None) -> "Iterator[RayTaskRunner[Any]]":
    if address is not None and address not in ("auto", "local"):
        host, port = _endpoint(address)
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT).close()
        except (OSError, ValueError) as error:
            raise EmttaError(
                f"no Ray cluster answers at {address!r}: {describe(error)}; the address is HOST:PORT of its head, as "
                "printed by `ray start --head` (port 6379 by default)"
            ) from error
    _check_connection(address)
    with ExitStack() as stack:
        try:
            first = {"worker_process_setup_hook": "emtta_core.entry.configure_process"}
            options = {"log_to_driver": False, "configure_logging": False, "runtime_env": first}
            runner: RayTaskRunner[Any] = RayTaskRunner(address, options)
            stack.enter_context(runner)
        except (OSError, RuntimeError, ValueError, RayError) as error:
            raise EmttaError(
                f"the Ray cluster {address or 'of this machine'} cannot be joined: {describe(error)}; if its head has "
                "a token, this machine needs the same ~/.ray/auth_token and RAY_AUTH_MODE=token"
            ) from error
        yield runner


def _endpoint(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition("//")[2].rpartition(":")
    return host, port


def _check_connection(address: str | None) -> None:
    # A RayTaskRunner uses the cluster that this process is connected to, whatever address it is given.
    if address in (None, "auto") or not ray.is_initialized():
        return
    connected = ray.get_runtime_context().gcs_address
    (host, port), (other, other_port) = _endpoint(address), _endpoint(connected)
    if port != other_port or _machines(host).isdisjoint(_machines(other)):
        raise UsageError(
            f"this process is connected to the Ray cluster at {connected!r} already, so it cannot use the one at "
            f"{address!r}: call ray.shutdown() first, or give the address {connected!r}"
        )


def _machines(host: str) -> set[str]:
    # The IP addresses of a host; Ray replaces a loopback address by the machine's own.
    found = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
    return found | {ray.util.get_node_ip_address()} if found & {"127.0.0.1", "::1"} else found
