"""The owner's side of a worker process: start it, give it jobs, and end it when it hangs, lies or is gone."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from emtta_core.errors import EmttaError
from emtta_core.pipeline.attempt import CellReport, InterruptedRunError
from emtta_core.pipeline.faults import TransientError
from emtta_core.pipeline.job import Job
from emtta_core.pipeline.progress import Listener
from emtta_core.worker.devices import Device
from emtta_core.worker.messages import STOP, GarbageError, JobFailed, from_line

POLL = 0.2
"""Seconds between two looks at the clock and at the wish to stop."""


class WorkerLostError(TransientError):
    """A worker process ended in the middle of its job, or was ended since it hung or said what is no answer."""


class UnwantedError(InterruptedRunError):
    """A worker process was ended by its owner in the middle of its job, with the run."""


class JobFailedError(EmttaError):
    """A job failed, and so it would again."""


class PassingError(TransientError):
    """A job failed of something that may pass."""


class Worker:
    """A process that does jobs, one after another.

    Attributes:
        device: where it computes.
        log: the file that it writes its log to.
    """

    def __init__(self, device: Device, log: Path) -> None:
        """Start the process; it is not a child of the terminal, so that Ctrl-C is its owner's alone."""
        self.device, self.log = device, log
        with log.open("ab") as file:
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
        self._unwanted = False
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """Of the process, and of its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can take another job."""
        return self._process.poll() is None

    def do(self, job: Job, *, timeout: float | None, progress: Listener, stop: Callable[[], bool]) -> CellReport:
        """Have a job done.

        Args:
            job: which; it is done on this worker's device.
            timeout: seconds after which the process is ended; None: never.
            progress: is told what the worker tells.
            stop: is asked now and then; true asks the worker to end after its shard.

        Raises:
            WorkerLostError: the process ended, or was ended.
            UnwantedError: it was ended by `end`.
            JobFailedError: the job failed, and the worker has recorded it.
            PassingError: likewise, but it may pass.
            InterruptedRunError: it ended since `stop` said so.
        """
        began, asked = time.monotonic(), False
        self._send(job.on(self.device.torch_name, self.device.name).model_dump_json())
        while True:
            if timeout is not None and time.monotonic() - began > timeout:
                self.kill()
                raise WorkerLostError(
                    f"the attempt took longer than {timeout:g} s (runtime.timeout), and its process was ended"
                )
            if not asked and stop():
                self._send(STOP)
                asked = True
            try:
                line = self._lines.get(timeout=POLL)
            except queue.Empty:
                continue
            if line is None and self._unwanted:
                raise UnwantedError("the run was ended in the middle of the cell; what is finished is kept")
            if line is None:
                raise WorkerLostError(f"the worker process on {self.device.name} {self._ending()}")
            try:
                answer = from_line(line)
            except GarbageError as error:
                self.kill()
                raise WorkerLostError(f"{error}; it was ended") from error
            if isinstance(answer, CellReport):
                return answer
            if isinstance(answer, JobFailed):
                if answer.device_lost:  # else it would fail one job after another, as fast as they come
                    self.kill()
                raise _error_of(answer)
            progress(answer)

    def close(self) -> None:
        """Let it end: at once if it has nothing to do, else after its shard."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def end(self) -> None:
        """End it for good, now: its owner ends."""
        self._unwanted = True
        self.kill()

    def kill(self) -> None:
        """End it and all that it started, now."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _send(self, line: str) -> None:
        """Say something; one that is gone is found out when it is listened to."""
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        """Take down what it says, until it has ended."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._process.wait()
        self._lines.put(None)

    def _ending(self) -> str:
        """Return how the process ended, in words."""
        code = self._process.wait()
        if code >= 0:
            return f"ended with exit code {code} in the middle of its cell"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = "; the system may have been out of memory" if name == "SIGKILL" else ""
        return f"was ended by {name} in the middle of its cell{hint}"


def _error_of(failed: JobFailed) -> EmttaError:
    """Return a worker's failure as an exception here."""
    if failed.interrupted:
        return InterruptedRunError(failed.error)
    return PassingError(failed.error) if failed.transient else JobFailedError(failed.error)
