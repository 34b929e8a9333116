"""The worker's side: do the jobs that come in, one after another, and say how they go."""

import logging
import os
import queue
import sys
import threading
from pathlib import Path
from typing import TextIO

from emtta_core.network import DiscreetFormatter
from emtta_core.pipeline.attempt import CellReport, InterruptedRunError, describe
from emtta_core.pipeline.evaluate import evaluate_job
from emtta_core.pipeline.faults import is_device_lost, is_transient
from emtta_core.pipeline.job import Job
from emtta_core.pipeline.progress import Event
from emtta_core.store import Store
from emtta_core.worker.messages import STOP, JobFailed, to_line

log = logging.getLogger("emtta.worker")

GRACE = 30.0
"""Seconds in which a worker whose owner is gone finishes its shard, before it ends all the same."""


class Server:
    """Does jobs, and tells their owner how they go; an owner that is gone is an owner that asks to stop."""

    def __init__(self, answers: TextIO) -> None:
        """Write to `answers` what becomes of the jobs."""
        self._answers = answers
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stop = threading.Event()

    def serve(self, jobs: TextIO) -> None:
        """Do the jobs that come in, a line each, until there are no more."""
        threading.Thread(target=self._listen, args=(jobs,), daemon=True).start()
        while (line := self._waiting.get()) is not None:
            self.do(Job.model_validate_json(line))

    def _listen(self, jobs: TextIO) -> None:
        """Take down what the owner says."""
        for line in jobs:
            if line.strip() == STOP:
                self._stop.set()
            else:
                self._waiting.put(line)
        self._stop.set()
        self._waiting.put(None)
        # A cell that hangs must not outlive its owner; the timer's thread does not keep a process that ends by itself.
        timer = threading.Timer(GRACE, os._exit, [1])
        timer.daemon = True
        timer.start()

    def do(self, job: Job) -> None:
        """Do one job."""
        log.info("%s of run %s on %s", job.cell.name, job.run_id, job.model.device)
        try:
            answer: CellReport | JobFailed = evaluate_job(
                job, Store.open(job.store), progress=self._say, stop=self._stop.is_set
            )
        except Exception as error:
            log.exception("%s failed", job.cell.name)
            interrupted = isinstance(error, InterruptedRunError)
            answer = JobFailed(describe(error), is_transient(error), interrupted, is_device_lost(error))
        self._say(answer)

    def _say(self, answer: Event | CellReport | JobFailed) -> None:
        """Tell the owner; one that is gone need not be told."""
        try:
            self._answers.write(to_line(answer) + "\n")
            self._answers.flush()
        except BrokenPipeError:
            self._stop.set()


def main(source: str) -> None:
    """Do the job in a file, or with `-` those that come in on standard input, and answer on standard output."""
    # Libraries print; what is not an answer goes where errors go.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(DiscreetFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    server = Server(answers)
    if source == "-":
        server.serve(sys.stdin)
    else:
        server.do(Job.model_validate_json(Path(source).read_text(encoding="utf-8")))
