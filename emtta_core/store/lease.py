"""The lease: who works at a run, so that no second process does at the same time.

A lease is a small file. Its holder renews it now and then; one that was killed does not, and its lease is taken over:
at once where it was a process of this machine, else when it was not renewed for `STALE` seconds.
"""

import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from emtta_core.errors import StoreError
from emtta_core.store.store import Store

log = logging.getLogger("emtta.store")

RENEWAL = 30.0
"""Seconds between two renewals."""

STALE = 600.0
"""Seconds without a renewal after which a process of another machine counts as dead, by the store's own clock."""

SETTLING = 0.3
"""Seconds in which several who take a lease over at once find out who wrote last."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who works at a run.

    Attributes:
        host: the machine's name.
        process: its number there.
        started: when the process started, in the system's ticks since its boot; 0 where the system does not say.
        since: when it began to work at the run, UTC, as ISO 8601.
        token: its own, unlike any other.
    """

    host: str
    process: int
    started: int
    since: str
    token: str

    @classmethod
    def this_process(cls) -> "Holder":
        """Return this process as a holder from now on."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(platform.node(), os.getpid(), _started(os.getpid()), now, uuid.uuid4().hex)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.since}"


def holder(store: Store, run_id: str) -> Holder | None:
    """Return who works at a run; None where nobody does, or whoever did is dead."""
    try:
        found = Holder(**json.loads(store.place.read(_file(run_id))))
    except (OSError, ValueError, TypeError):
        return None
    lives = _lives(found) if found.host == platform.node() else _age(store, run_id) < STALE
    return found if lives else None


@contextmanager
def lease(store: Store, run_id: str) -> Iterator[None]:
    """Work at a run, alone, inside the `with` block.

    Raises:
        StoreError: another process works at it; names it.
    """
    own, name = Holder.this_process(), _file(run_id)
    _take(store, run_id, own)
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(store, name, own, done), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()
        with suppress(OSError, StoreError):
            if _token(store, name) == own.token:
                store.place.remove([name])


def _take(store: Store, run_id: str, own: Holder) -> None:
    """Take the lease of a run, or raise."""
    name, content = _file(run_id), json.dumps(asdict(own)).encode()
    if store.place.write_new(name, content):
        return
    other = holder(store, run_id)
    if other is None:  # left behind by one that is dead; of several who take it, the last to write has it
        store.place.write(name, content)
        time.sleep(SETTLING)
        if _token(store, name) == own.token:
            return
        other = holder(store, run_id)
    raise StoreError(
        f"the run {run_id!r} is being worked at by {other or 'another process'}; wait for it, or end it, and try again "
        f"(of a machine that is gone for good, delete {store.place.url(name)})"
    )


def _renew(store: Store, name: str, own: Holder, done: threading.Event) -> None:
    """Write the lease anew until `done`."""
    while not done.wait(RENEWAL):
        try:
            store.place.write(name, json.dumps(asdict(own)).encode())
        except StoreError as error:
            log.warning("the lease %s could not be renewed: %s", name, error)


def _age(store: Store, run_id: str) -> float:
    """Return how many seconds ago a lease was renewed, by the clock of whoever keeps the store.

    This machine's clock may be wrong, or have been set back: a file that is written now says what time it is there.
    """
    probe = f"leases/{run_id}.{uuid.uuid4().hex}.now"
    try:
        store.place.write(probe, b"")
        modified = {entry.name: entry.modified for entry in store.place.list("leases")}
    except StoreError:  # a store that can only be read
        modified = {}
    finally:
        with suppress(OSError, StoreError):
            store.place.remove([probe])
    return modified.get(probe, time.time()) - modified.get(_file(run_id), 0.0)


def _file(run_id: str) -> str:
    """Return the file of a run's lease."""
    return f"leases/{run_id}.json"


def _token(store: Store, name: str) -> str | None:
    """Return whose a lease is."""
    try:
        return str(json.loads(store.place.read(name))["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _lives(found: Holder) -> bool:
    """Return whether a process of this machine is still there, and no other by its number."""
    try:
        os.kill(found.process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(found.process) == found.started


def _started(process: int) -> int:
    """Return when a process started, in ticks since the boot; 0 where the system does not say."""
    try:
        line = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return int(line.rpartition(")")[2].split()[19])  # the fields after the name, which may hold anything
    except (OSError, ValueError, IndexError):
        return 0
