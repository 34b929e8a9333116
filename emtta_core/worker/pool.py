"""Evaluation of cells on this machine, in worker processes, one for each slot of a device, or in this process."""

import queue
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from emtta_core.errors import UsageError
from emtta_core.pipeline.events import Event, Listener
from emtta_core.pipeline.job import AttemptTracker, CellReport, InterruptedRunError, Job
from emtta_core.store import Store
from emtta_core.worker.devices import Device, share_cores
from emtta_core.worker.worker import StoppedWorkerError, Worker, WorkerLostError


class OwnProcess:
    """Runs jobs in the calling threads."""

    def __init__(self, devices: Sequence[Device], progress: Listener, stop: Callable[[], bool]) -> None:
        """Use the device of these slots; for `progress` and `stop` see `WorkerPool`.

        Raises:
            UsageError: they are on several devices.
        """
        names = sorted({device.name for device in devices})
        if len(names) > 1:
            raise UsageError(f"one process can only use one device, not {', '.join(names)}; use --isolation process")
        self._device, self._progress, self._stop = names[0], progress, stop

    def do(self, job: Job) -> CellReport:
        """Evaluate a cell.

        Raises:
            Exception: whatever ends the attempt; it is recorded.
        """
        from emtta_core.pipeline.evaluate import evaluate_job  # imports torch, which a pool of processes never needs

        placed_job, attempts = job.on(self._device, self._device), AttemptTracker(job)

        def listen(event: Event) -> None:
            attempts.observe(event)
            self._progress(event)

        share_cores(job.runtime, self._device)
        with attempts.log_kept():
            return evaluate_job(placed_job, Store.open(job.store), progress=listen, stop=self._stop)


class WorkerPool:
    """Worker processes and the device slots where they run. A slot is a token: its holder may compute there.

    Use it as a context manager, which ends the processes on exit.
    """

    def __init__(self, devices: Sequence[Device], progress: Listener, stop: Callable[[], bool]) -> None:
        """Create a slot for each of `devices`, from `choose_devices`.

        `progress` receives the events of cells; `stop` returns whether cells should end after their shard.
        """
        self._progress, self._stop, self._ended = progress, stop, False
        self._free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self._logs = tempfile.TemporaryDirectory(prefix="emtta-worker-")
        self._slots = [_Slot(device, Path(self._logs.name) / f"{number}.log") for number, device in enumerate(devices)]
        for slot in self._slots:
            self._free.put(slot)

    def __enter__(self) -> Self:
        """Start the processes, so that their imports overlap with the preparation of domains."""
        for slot in self._slots:
            slot.worker()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Set the flag first, so that threads that get a slot from now on do not start anything.
        self._ended = True
        for slot in self._slots:
            slot.end()
        for _ in self._slots:  # threads that still hold one record how their cell ended
            self._free.get()
        for slot in self._slots:
            self._free.put(slot)
        self._logs.cleanup()

    def do(self, job: Job) -> CellReport:
        """Run a job on the next free worker.

        Raises:
            WorkerLostError: its process was lost, which is recorded as a failed attempt.
            InterruptedRunError: the run was asked to stop, or has ended.
            EmttaError: the job failed.
        """
        slot = self._free.get()
        if self._ended:  # a retry that came too late
            self._free.put(slot)
            raise InterruptedRunError("the run has ended; what is finished is kept")
        attempts = AttemptTracker(job)

        def listen(event: Event) -> None:
            attempts.observe(event)
            self._progress(event)

        worker = slot.worker()
        # A process writes one log for all its cells; this cell's part begins here.
        size = slot.log_size()
        try:
            return worker.do(job, timeout=job.timeout, progress=listen, stop=self._stop)
        except (WorkerLostError, StoppedWorkerError) as error:
            attempts.fail(Store.open(job.store), error, listen, slot.device.name)
            raise
        finally:
            attempts.keep_log(slot.log_since(size))
            self._free.put(slot)


class _Slot:
    """A slot on a device, and its process, if any."""

    def __init__(self, device: Device, log: Path) -> None:
        self.device, self._log = device, log
        self._worker: Worker | None = None

    def worker(self) -> Worker:
        if self._worker is None or not self._worker.alive:
            self._worker = Worker(self.device, self._log)
        return self._worker

    def log_size(self) -> int:
        # The bytes in the log so far.
        return self._log.stat().st_size if self._log.exists() else 0

    def log_since(self, offset: int) -> bytes:
        return self._log.read_bytes()[offset:]

    def end(self) -> None:
        if self._worker is not None:
            self._worker.end()
