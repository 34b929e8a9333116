"""A worker on a Ray cluster, and the mailbox through which it and the flow that began its cells talk."""

import contextlib
import io
import logging
import os
import platform
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import ray
from ray.exceptions import RayError

from emtta_core.errors import EmttaError
from emtta_core.pipeline.evaluate import evaluate_job
from emtta_core.pipeline.events import Event
from emtta_core.pipeline.job import Begun, CellReport, Job, describe
from emtta_core.store import Store


@dataclass(frozen=True, slots=True)
class Taken:
    """A worker has taken up a cell."""

    host: str  # its machine
    process: int  # its number there
    device: str  # what the store calls the device that it computes on


Message = Taken | Event


class Mailbox:
    """Keeps the messages of jobs until the flow fetches them, and the flow's wish to stop until a job sends one.

    It is an actor of Ray's, which calls one method at a time. One that is lost is begun again, empty: its messages were
    for those who watch.
    """

    def __init__(self) -> None:
        self._messages: list[tuple[str, Message]] = []
        self._stopping = False

    def send(self, job: str, message: Message) -> bool:
        """Take a message of the job of this name, and return whether it is to end after its shard."""
        self._messages.append((job, message))
        return self._stopping

    def exchange(self, stopping: bool) -> list[tuple[str, Message]]:
        """Take whether cells are to end after their shard, and return the messages since the last time."""
        self._stopping = stopping
        messages, self._messages = self._messages, []
        return messages


log = logging.getLogger("emtta.worker")

SERVER_TIMEOUT = 10.0
"""Seconds in which Prefect's server must answer a machine of the cluster."""


def execute(mailbox: Any, job: Job) -> CellReport:
    """Evaluate a cell in this process of Ray's.

    Args:
        mailbox: the handle of the actor `Mailbox` that is told how it goes.
        job: the cell, on `cpu`, or on `cuda:0` where Ray lets this process see no other GPU.

    Raises:
        ModelError: this machine has another model of that name.
        Exception: whatever ends the attempt; it is recorded.
    """
    begun, stopping = Begun(job), False

    def send(message: Message) -> None:
        nonlocal stopping
        begun.hear(message)
        with contextlib.suppress(RayError):  # a mailbox that is lost costs what is shown, and no result
            stopping = ray.get(mailbox.send.remote(job.name, message))

    gpus = ray.get_gpu_ids() if job.model.device.startswith("cuda") else []
    device = f"cuda:{gpus[0]}" if gpus else job.model.device
    send(Taken(platform.node(), os.getpid(), device))
    store = Store.open(job.store)
    with _logged() as text:
        try:
            log.info("%s of run %s on %s", job.name, job.run_id, device)
            return evaluate_job(job.on(job.model.device, device), store, progress=send, stop=lambda: stopping)
        except Exception:
            log.exception("%s failed", job.name)
            raise
        finally:
            begun.keep_log(text.getvalue().encode())


def check_machine(store: str, run_id: str, server: str, release: str, host: str) -> str | None:
    """What keeps this machine from executing cells of a run; None where nothing does.

    Args:
        store: the store's location.
        run_id: the run, which must be recorded there.
        server: the address of Prefect's API, as in `http://127.0.0.1:4200/api`.
        release: of emtta, on the machine of the flow.
        host: the name of that machine.
    """
    here = version("emtta")
    if here != release:
        return f"it has emtta {here}, and the flow has {release}; install the same release on every machine"
    try:
        Store.open(store).run(run_id)
    except EmttaError as error:
        return (
            f"the run is not in the store that it sees at {store} ({describe(error)}); "
            "use a folder that all machines share under one path, or s3://BUCKET/PREFIX"
        )
    try:
        urllib.request.urlopen(f"{server}/health", timeout=SERVER_TIMEOUT).close()
    except urllib.error.HTTPError:
        return None  # it answers; what it answers is for Prefect to judge
    except OSError as error:
        return (
            f"it does not reach Prefect's server at {server} ({describe(error)}); start one that all machines reach "
            "on the flow's machine (emtta server --background --host 0.0.0.0), and name "
            f"it there: export PREFECT_API_URL=http://{host}:4200/api"
        )
    return None


@contextmanager
def _logged() -> Iterator[io.StringIO]:
    root, text = logging.getLogger(), io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield text
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
