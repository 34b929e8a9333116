"""Both sides of a worker process: its owner sends it jobs; it runs them and answers in lines of JSON."""

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from pydantic import TypeAdapter, ValidationError

from emtta_core.errors import EmttaError
from emtta_core.faults import TransientError, is_device_lost, is_transient
from emtta_core.pipeline.events import AttemptBegun, CellFinished, Event, Listener, UtterancesDone
from emtta_core.pipeline.job import CellReport, InterruptedRunError, Job, describe
from emtta_core.sanitize import SanitizingFormatter
from emtta_core.store import Store
from emtta_core.worker.devices import Device

STOP = "stop"
"""The line with which the owner asks the worker to end its cell after the current shard."""


@dataclass(frozen=True, slots=True)
class JobFailed:
    """A job ended with an error, which the worker has recorded."""

    error: str  # a one-line description
    transient: bool  # whether another attempt may succeed
    interrupted: bool  # whether it ended because the owner asked for it
    device_lost: bool = False  # whether the process cannot run another job because it has lost its device


Message = AttemptBegun | UtterancesDone | CellFinished | CellReport | JobFailed

# Output of the other process is validated, as a library there may have written a line of its own.
_KINDS: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind) for kind in (AttemptBegun, UtterancesDone, CellFinished, CellReport, JobFailed)
}


class GarbageError(EmttaError):
    """A worker wrote a line that is not a message."""


def to_line(message: Event | CellReport | JobFailed) -> str:
    """A message as a line, without the line break."""
    return json.dumps({"kind": type(message).__name__, "answer": asdict(message)})


def from_line(line: str) -> Message:
    """The message in a line.

    Raises:
        GarbageError: it is not a message.
    """
    try:
        content = json.loads(line)
        message: Message = _KINDS[content["kind"]].validate_python(content["answer"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise GarbageError(f"the worker process wrote {line[:80]!r}, which is not an answer") from error
    return message


POLL = 0.2
"""Seconds between checks of the clock and of the stop request."""


class WorkerLostError(TransientError):
    """A worker process ended during its job, or was killed because it hung or wrote an invalid answer."""


class StoppedWorkerError(InterruptedRunError):
    """A worker process was ended by its owner during its job, together with the run."""


class JobFailedError(EmttaError):
    """A job failed, and would fail again."""


class TransientJobError(TransientError):
    """A job failed for a reason that may be temporary."""


class Worker:
    """A process that runs jobs, one after another."""

    def __init__(self, device: Device, log: Path) -> None:
        """Start the process, detached from the terminal, so that Ctrl-C reaches only its owner."""
        self.device, self.log = device, log
        with log.open("ab") as file:
            # A session of its own, so that it can be killed with all its child processes by its process group.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "emtta_core.worker", "-"],  # -P: nothing from the current folder
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=os.environ | dict(device.environment),
                start_new_session=True,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        self._stopped = False
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """The id of the process and of its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can take another job."""
        return self._process.poll() is None

    def do(self, job: Job, *, timeout: float | None, progress: Listener, stop: Callable[[], bool]) -> CellReport:
        """Run a job.

        Args:
            job: the job; it runs on this worker's device.
            timeout: seconds after which the process is killed; None: never.
            progress: receives the events of the worker.
            stop: polled; true asks the worker to end after its shard.

        Raises:
            WorkerLostError: the process ended, or was killed.
            StoppedWorkerError: it was ended by `end`.
            JobFailedError: the job failed, and the worker has recorded it.
            TransientJobError: likewise, but the reason may be temporary.
            InterruptedRunError: it ended because `stop` returned true.
        """
        started, stop_requested = time.monotonic(), False
        self._send(job.on(self.device.torch_name, self.device.name).model_dump_json())
        # One loop watches everything that can happen: the timeout, a stop request, an answer, a silent death. A
        # blocking read would miss the first two.
        while True:
            if timeout is not None and time.monotonic() - started > timeout:
                self.kill()
                raise WorkerLostError(
                    f"the attempt took longer than {timeout:g} s (runtime.timeout), so its process was killed"
                )
            if not stop_requested and stop():
                self._send(STOP)
                stop_requested = True
            try:
                line = self._lines.get(timeout=POLL)
            except queue.Empty:
                continue
            if line is None and self._stopped:
                raise StoppedWorkerError("the run was ended during the cell; finished work is kept")
            if line is None:
                raise WorkerLostError(f"the worker process on {self.device.name} {self._exit_reason()}")
            try:
                message = from_line(line)
            except GarbageError as error:
                self.kill()
                raise WorkerLostError(f"{error}; it was killed") from error
            if isinstance(message, CellReport):
                return message
            if isinstance(message, JobFailed):
                if message.device_lost:  # otherwise it would fail one job after another, as fast as they arrive
                    self.kill()
                raise _error_of(message)
            progress(message)

    def close(self) -> None:
        """Let it end: immediately if it is idle, otherwise after its shard."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def end(self) -> None:
        """End it for good and immediately, as its owner ends."""
        self._stopped = True
        self.kill()

    def kill(self) -> None:
        """Kill it and all its child processes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _send(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        # In a separate thread, since a pipe, unlike a queue, cannot be read with a timeout.
        for line in self._process.stdout:
            self._lines.put(line)
        # Wait for it, so that it leaves no zombie and its exit code is known.
        self._process.wait()
        self._lines.put(None)

    def _exit_reason(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"ended with exit code {code} during its cell"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = "; the system may have been out of memory" if name == "SIGKILL" else ""
        return f"was ended by {name} during its cell{hint}"


def _error_of(failed: JobFailed) -> EmttaError:
    if failed.interrupted:
        return InterruptedRunError(failed.error)
    return TransientJobError(failed.error) if failed.transient else JobFailedError(failed.error)


log = logging.getLogger("emtta.worker")

GRACE = 30.0
"""Seconds in which a worker whose owner is gone may finish its shard before it exits anyway."""


class Server:
    """Runs jobs and reports on them to their owner; the owner's disappearance counts as a stop request."""

    def __init__(self, output: TextIO) -> None:
        """Report on the jobs by writing to `output`."""
        self._output = output
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stop = threading.Event()

    def serve(self, jobs: TextIO) -> None:
        """Run incoming jobs, one per line, until there are no more."""
        threading.Thread(target=self._listen, args=(jobs,), daemon=True).start()
        while (line := self._waiting.get()) is not None:
            self.do(Job.model_validate_json(line))

    def _listen(self, jobs: TextIO) -> None:
        # The end of this pipe means that the owner has closed it or has ended in some way.
        for line in jobs:
            if line.strip() == STOP:
                self._stop.set()
            else:
                self._waiting.put(line)
        self._stop.set()
        self._waiting.put(None)
        # A cell that hangs must not outlive its owner; the timer is a daemon thread and does not delay a normal exit.
        timer = threading.Timer(GRACE, os._exit, [1])
        timer.daemon = True
        timer.start()

    def do(self, job: Job) -> None:
        """Run one job."""
        from emtta_core.pipeline.evaluate import evaluate_job  # imports torch, which the owner of a process never needs

        log.info("%s of run %s on %s", job.name, job.run_id, job.model.device)
        try:
            message: CellReport | JobFailed = evaluate_job(
                job, Store.open(job.store), progress=self._send_message, stop=self._stop.is_set
            )
        except Exception as error:
            log.exception("%s failed", job.name)
            interrupted = isinstance(error, InterruptedRunError)
            message = JobFailed(describe(error), is_transient(error), interrupted, is_device_lost(error))
        self._send_message(message)

    def _send_message(self, message: Event | CellReport | JobFailed) -> None:
        try:
            self._output.write(to_line(message) + "\n")
            self._output.flush()
        except BrokenPipeError:
            self._stop.set()


def main(source: str) -> None:
    """Run the job in a file, or with `-` those from standard input, and answer on standard output."""
    # Libraries print; anything that is not an answer goes to standard error.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SanitizingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    server = Server(output)
    if source == "-":
        server.serve(sys.stdin)
    else:
        server.do(Job.model_validate_json(Path(source).read_text(encoding="utf-8")))
