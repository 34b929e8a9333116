"""A worker on a Ray cluster, and the mailbox for its communication with the flow that started its cells."""

import contextlib
import logging
import os
import platform
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import ray
from ray.exceptions import RayError

from emtta_core.errors import EmttaError
from emtta_core.pipeline.evaluate import evaluate_job
from emtta_core.pipeline.events import Event
from emtta_core.pipeline.job import AttemptTracker, CellReport, Job, describe
from emtta_core.store import Store


@dataclass(frozen=True, slots=True)
class JobStarted:
    """A worker has started a cell."""

    host: str  # its machine
    process: int  # its process id
    device: str  # the store's name of the device that it uses


Message = JobStarted | Event


class Mailbox:
    """Keeps the messages of jobs until the flow fetches them, and the flow's stop request until a job sends one.

    It is a Ray actor, which runs one method at a time. If it is lost, it is restarted empty; its messages are only for
    display.
    """

    def __init__(self) -> None:
        self._messages: list[tuple[str, Message]] = []
        self._stopping = False

    def send(self, job: str, message: Message) -> bool:
        """Store a message of a job, and return whether the job should end after its shard."""
        self._messages.append((job, message))
        return self._stopping

    def exchange(self, stopping: bool) -> list[tuple[str, Message]]:
        """Set whether cells should end after their shard, and return the messages since the last call."""
        self._stopping = stopping
        messages, self._messages = self._messages, []
        return messages


log = logging.getLogger("emtta.worker")

SERVER_TIMEOUT = 10.0
"""Seconds within which Prefect's server must answer a machine of the cluster."""


def execute(mailbox: Any, job: Job) -> CellReport:
    """Evaluate a cell in this Ray process.

    Args:
        mailbox: the handle of the actor `Mailbox` that receives its progress.
        job: the cell, on `cpu`, or on `cuda:0` if Ray has assigned this process a GPU.

    Raises:
        ModelError: this machine has a different model of that name.
        Exception: whatever ends the attempt; it is recorded.
    """
    attempts, stopping = AttemptTracker(job), False

    def send(message: Message) -> None:
        nonlocal stopping
        attempts.observe(message)
        with contextlib.suppress(RayError):  # losing the mailbox affects only the display, not results
            stopping = ray.get(mailbox.send.remote(job.name, message))

    gpus = ray.get_gpu_ids() if job.model.device.startswith("cuda") else []
    device = f"cuda:{gpus[0]}" if gpus else job.model.device
    send(JobStarted(platform.node(), os.getpid(), device))
    store = Store.open(job.store)
    logging.getLogger().setLevel(logging.INFO)
    with attempts.log_kept():
        log.info("%s of run %s on %s", job.name, job.run_id, device)
        return evaluate_job(job.on(job.model.device, device), store, progress=send, stop=lambda: stopping)


def check_machine(store: str, run_id: str, server: str, release: str, host: str) -> str | None:
    """Why this machine cannot execute cells of a run; None if it can.

    Args:
        store: the store's location.
        run_id: the run, which must be recorded there.
        server: the address of Prefect's API, such as `http://127.0.0.1:4200/api`.
        release: emtta's release on the machine of the flow.
        host: the name of that machine.
    """
    installed = version("emtta")
    if installed != release:
        return f"it has emtta {installed}, but the flow has {release}; install the same release on every machine"
    try:
        Store.open(store).run(run_id)
    except EmttaError as error:
        return (
            f"the run is not in its store at {store} ({describe(error)}); "
            "use a folder that all machines share under the same path, or s3://BUCKET/PREFIX"
        )
    try:
        urllib.request.urlopen(f"{server}/health", timeout=SERVER_TIMEOUT).close()
    except urllib.error.HTTPError:
        return None  # it answers; the answer itself is Prefect's concern
    except OSError as error:
        return (
            f"it cannot reach Prefect's server at {server} ({describe(error)}); start one that all machines can reach "
            "on the flow's machine (emtta server --background --host 0.0.0.0), and set "
            f"its address there: export PREFECT_API_URL=http://{host}:4200/api"
        )
    return None
