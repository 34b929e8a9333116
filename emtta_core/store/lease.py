"""The lease: who works on a run, so that no second process does at the same time.

The leases of a run are small numbered files, and the one of the highest number counts. Its holder renews it now and
then, and empties it when it is done; one that was killed does neither. Whoever comes next takes the next number: at
once where the holder is done, or was a process of this machine that is dead, else when it was not renewed for `STALE`
seconds. A number is given once and never again, so that nobody writes another's lease, however late he wakes up: of a
run that is pruned, the newest lease stays as a mark. What cannot be read is never taken for what is not there.
"""

import json
import logging
import os
import platform
import re
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

BARE = "pid:[4026531836]"
"""The space of process numbers of a machine itself, and of none of its containers (Linux's PROC_PID_INIT_INO)."""

_NUMBER = re.compile(r"([0-9]{6,})\.json")


class LeaseLostError(StoreError):
    """Another process has taken a run over, since this one did not renew its lease in time."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who works on a run."""

    host: str  # the machine's name, which several may have, containers above all
    machine: str  # its id, which it keeps; empty where the system does not say, as do the next two
    boot: str  # the id that it has from one start to the next
    numbers: str  # the space of process numbers, of which each container has its own
    process: int  # its number there
    started: int  # when the process started, in the system's ticks since its boot; 0 where the system does not say
    since: str  # when it began to work on the run, UTC, as ISO 8601
    token: str  # its own, unlike any other

    @classmethod
    def this_process(cls) -> "Holder":
        """This process as a holder from now on."""
        now, process = datetime.now(UTC).isoformat(timespec="seconds"), os.getpid()
        return cls(platform.node(), *_machine(), process, _started(process), now, uuid.uuid4().hex)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.since}"


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that was taken."""

    run_id: str  # of which run
    number: int  # its own

    def check(self, store: Store) -> None:
        """Check that the lease is there still, and that nobody has taken the run over.

        Raises:
            LeaseLostError: another process has, which it names, or the lease was removed.
            StoreError: the lease cannot be read.
        """
        taken = _taken(store, self.run_id)
        newest = max(taken, default=0)
        if newest > self.number:
            other = _read(store, self.run_id, newest) or "another process, which is done"
            raise LeaseLostError(
                f"the run {self.run_id!r} was taken over by {other}, for this process had not renewed its lease for "
                f"{STALE:.0f} s; it writes no more, and what it finished before is kept"
            )
        if self.number not in taken:
            raise LeaseLostError(
                f"the lease of the run {self.run_id!r} is gone, {store.backend.url(_file(self.run_id, self.number))}: "
                "the run was removed, or begun anew; this process writes no more"
            )


def holder(store: Store, run_id: str) -> Holder | None:
    """Who works on a run; None if nobody does, or whoever did is dead.

    Raises:
        StoreError: the lease cannot be read, so that nobody knows.
    """
    newest = max(_taken(store, run_id), default=0)
    found = _read(store, run_id, newest) if newest else None
    return found if found is not None and _lives(store, run_id, newest, found) else None


@contextmanager
def lease(store: Store, run_id: str) -> Iterator[Lease]:
    """Work on a run, alone, inside the `with` block.

    Raises:
        StoreError: another process works on it; names it.
    """
    own = Holder.this_process()
    held = _take(store, run_id, own)
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(store, held, own, done), daemon=True)
    renewing.start()
    try:
        yield held
    finally:
        done.set()
        renewing.join()
        # Emptied and not removed, so that its number stays taken; and only while it is ours, or the run would look free
        # that somebody else works on.
        with suppress(OSError, StoreError):
            held.check(store)
            store.backend.write(_file(run_id, held.number), b"")


def remove_old_leases(store: Store, run_id: str) -> None:
    """Remove the leases of a pruned run, but for the newest: its number must not be given again."""
    store.backend.remove([_file(run_id, number) for number in sorted(_taken(store, run_id))[:-1]])


def _take(store: Store, run_id: str, own: Holder) -> Lease:
    number = max(_taken(store, run_id), default=0) + 1
    # Of several that come here at once one creates the file; the others find it there, and are refused.
    if holder(store, run_id) is None and store.backend.write_new(
        _file(run_id, number), json.dumps(asdict(own)).encode()
    ):
        taken = _taken(store, run_id)
        if max(taken, default=0) == number:  # else others have come and gone since the first look
            store.backend.remove([_file(run_id, other) for other in taken if other < number])
            return Lease(run_id, number)
    other = holder(store, run_id)
    newest = max(_taken(store, run_id), default=number)
    raise StoreError(
        f"the run {run_id!r} is being worked on by {other or 'another process'}; wait for it, or end it, and try again "
        f"(of a machine that is gone for good, delete {store.backend.url(_file(run_id, newest))})"
    )


def _renew(store: Store, held: Lease, own: Holder, done: threading.Event) -> None:
    while not done.wait(RENEWAL):
        try:
            held.check(store)
            store.backend.write(_file(held.run_id, held.number), json.dumps(asdict(own)).encode())
        except LeaseLostError as error:
            log.error("%s", error)
            return
        except StoreError as error:
            log.warning("the lease of the run %s could not be renewed: %s", held.run_id, error)


def _taken(store: Store, run_id: str) -> list[int]:
    names = [entry.name.rpartition("/")[2] for entry in store.backend.list(_folder(run_id))]
    return [int(match[1]) for match in map(_NUMBER.fullmatch, names) if match]


def _read(store: Store, run_id: str, number: int) -> Holder | None:
    # Whose a lease is; None if its holder is done; StoreError where it cannot be read.
    name = _file(run_id, number)
    try:
        content = store.backend.read(name)
        return Holder(**json.loads(content)) if content else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(
            f"the lease {store.backend.url(name)} cannot be read ({error}), so that nobody knows whether the run "
            f"{run_id!r} is being worked on; try again, or delete the file if you know that nobody works on it"
        ) from error


def _lives(store: Store, run_id: str, number: int, found: Holder) -> bool:
    # Whether the holder of a lease is there still, as far as can be told from here.
    machine, boot, numbers = _machine()
    # Only the machine itself can ask for a process, and only among the numbers of one boot and one container. Of any
    # other holder the age of its last renewal must tell.
    if found.host == platform.node():
        if (found.boot, found.numbers) == (boot, numbers):
            return _runs(found)
        if found.machine and found.machine == machine and found.boot != boot and found.numbers == BARE:
            return False  # this machine was started anew since; an image may give its containers one id
    return _age(store, _file(run_id, number)) < STALE


def _age(store: Store, name: str) -> float:
    # How many seconds ago a file was written, by the clock of whoever keeps the store. This machine's clock may be
    # wrong, or have been set back: a file that is written now says what time it is there.
    folder = name.rpartition("/")[0]
    probe = f"{folder}/{uuid.uuid4().hex}.now"
    try:
        with suppress(StoreError):  # a store that can only be read
            store.backend.write(probe, b"")
        modified = {entry.name: entry.modified for entry in store.backend.list(folder)}
    finally:
        with suppress(OSError, StoreError):
            store.backend.remove([probe])
    # Both times are by one clock; of a store that takes no probe, this machine's is all that there is.
    return modified.get(probe, time.time()) - modified.get(name, 0.0)


def _folder(run_id: str) -> str:
    return f"leases/{run_id}"


def _file(run_id: str, number: int) -> str:
    return f"{_folder(run_id)}/{number:06d}.json"


def _runs(found: Holder) -> bool:
    # Whether a process with a number of this space is still there, and no other by its number.
    try:
        os.kill(found.process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # A number is given again, to a process that started later; and a zombie, though it has one, works no more.
    return _started(found.process) == found.started and _state(found.process) not in ("Z", "X")


def _machine() -> tuple[str, str, str]:
    # The id of this machine, of its start, and of this process's space of process numbers; see `Holder`.
    numbers = ""
    with suppress(OSError):
        numbers = str(Path("/proc/self/ns/pid").readlink())
    return _line("/etc/machine-id"), _line("/proc/sys/kernel/random/boot_id"), numbers


def _line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _started(process: int) -> int:
    # When a process started, in ticks since the boot; 0 where the system does not say.
    fields = _stat(process)
    return int(fields[19]) if len(fields) > 19 else 0


def _state(process: int) -> str:
    # The state of a process, as in `S`, or `Z` for one that is dead; empty where the system does not say.
    return next(iter(_stat(process)), "")


def _stat(process: int) -> list[str]:
    try:
        line = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return line.rpartition(")")[2].split()  # behind the name, which may hold anything
