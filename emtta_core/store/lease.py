"""Leases, which keep two processes from working on a run at the same time.

The leases of a run are small numbered files, of which the highest number counts. Its holder renews it regularly, and
empties it when it is done; a killed holder does neither. The next process takes the next number: at once if the holder
is done or was a process of this machine that is dead, otherwise once the lease has not been renewed for `STALE`
seconds. A number is never assigned twice, so a process that wakes up late cannot write another's lease; when a run is
pruned, its newest lease stays as a marker. A lease that cannot be read is never treated as missing.
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
"""Seconds without a renewal, by the store's clock, after which a process on another machine counts as dead."""

HOST_NAMESPACE = "pid:[4026531836]"
"""The PID namespace of a machine itself, outside any container (Linux's PROC_PID_INIT_INO)."""

_NUMBER = re.compile(r"([0-9]{6,})\.json")


class LeaseLostError(StoreError):
    """Another process has taken over a run, as this one did not renew its lease in time."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process working on a run."""

    host: str  # the machine's name, which may not be unique, especially in containers
    machine: str  # the machine's permanent id; empty, like the next two, if the system does not provide it
    boot: str  # the id of the machine's current boot
    numbers: str  # the PID namespace, of which each container has its own
    process: int  # its PID in that namespace
    started: int  # when the process started, in system ticks since boot; 0 if the system does not provide it
    since: str  # when it began to work on the run, UTC, as ISO 8601
    token: str  # a unique token

    @classmethod
    def this_process(cls) -> "Holder":
        """This process as a holder, starting now."""
        now, process = datetime.now(UTC).isoformat(timespec="seconds"), os.getpid()
        return cls(platform.node(), *_machine(), process, _started(process), now, uuid.uuid4().hex)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.since}"


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that was taken."""

    run_id: str  # the run
    number: int  # the number of the lease

    def check(self, store: Store) -> None:
        """Check that the lease still exists, and that no other process has taken over the run.

        Raises:
            LeaseLostError: another process has (the message names it), or the lease was removed.
            StoreError: the lease cannot be read.
        """
        numbers = _numbers(store, self.run_id)
        newest = max(numbers, default=0)
        if newest > self.number:
            other = _read(store, self.run_id, newest) or "another process, which has finished"
            raise LeaseLostError(
                f"the run {self.run_id!r} was taken over by {other}, as this process had not renewed its lease for "
                f"{STALE:.0f} s; it stops writing, and what it finished before is kept"
            )
        if self.number not in numbers:
            raise LeaseLostError(
                f"the lease of the run {self.run_id!r} is gone, {store.backend.url(_file(self.run_id, self.number))}: "
                "the run was removed, or begun again; this process stops writing"
            )


def holder(store: Store, run_id: str) -> Holder | None:
    """The process working on a run; None if there is none or it is dead.

    Raises:
        StoreError: the lease cannot be read, so the holder is unknown.
    """
    newest = max(_numbers(store, run_id), default=0)
    current = _read(store, run_id, newest) if newest else None
    return current if current is not None and _is_alive(store, run_id, newest, current) else None


@contextmanager
def lease(store: Store, run_id: str) -> Iterator[Lease]:
    """Hold the run exclusively inside the `with` block.

    Raises:
        StoreError: another process is working on it; the message names it.
    """
    owner = Holder.this_process()
    held = _acquire(store, run_id, owner)
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(store, held, owner, done), daemon=True)
    renewing.start()
    try:
        yield held
    finally:
        done.set()
        renewing.join()
        # Emptied rather than removed, so that its number stays taken; and only while it is ours, as otherwise a run
        # that another process is working on would look free.
        with suppress(OSError, StoreError):
            held.check(store)
            store.backend.write(_file(run_id, held.number), b"")


def remove_old_leases(store: Store, run_id: str) -> None:
    """Remove the leases of a pruned run except the newest, whose number must not be assigned again."""
    store.backend.remove([_file(run_id, number) for number in sorted(_numbers(store, run_id))[:-1]])


def _acquire(store: Store, run_id: str, owner: Holder) -> Lease:
    number = max(_numbers(store, run_id), default=0) + 1
    # Of several processes arriving here at once, one creates the file; the others find it and are refused.
    if holder(store, run_id) is None and store.backend.write_new(
        _file(run_id, number), json.dumps(asdict(owner)).encode()
    ):
        numbers = _numbers(store, run_id)
        if max(numbers, default=0) == number:  # otherwise others have come and gone since the first look
            store.backend.remove([_file(run_id, other) for other in numbers if other < number])
            return Lease(run_id, number)
    other = holder(store, run_id)
    newest = max(_numbers(store, run_id), default=number)
    raise StoreError(
        f"the run {run_id!r} is being worked on by {other or 'another process'}; wait for it, or stop it, and try "
        f"again (if its machine is gone for good, delete {store.backend.url(_file(run_id, newest))})"
    )


def _renew(store: Store, held: Lease, owner: Holder, done: threading.Event) -> None:
    while not done.wait(RENEWAL):
        try:
            held.check(store)
            store.backend.write(_file(held.run_id, held.number), json.dumps(asdict(owner)).encode())
        except LeaseLostError as error:
            log.error("%s", error)
            return
        except StoreError as error:
            log.warning("the lease of the run %s could not be renewed: %s", held.run_id, error)


def _numbers(store: Store, run_id: str) -> list[int]:
    names = [entry.name.rpartition("/")[2] for entry in store.backend.list(_folder(run_id))]
    return [int(match[1]) for match in map(_NUMBER.fullmatch, names) if match]


def _read(store: Store, run_id: str, number: int) -> Holder | None:
    # The holder of a lease; None if the holder is done; raises StoreError if the lease cannot be read.
    name = _file(run_id, number)
    try:
        content = store.backend.read(name)
        return Holder(**json.loads(content)) if content else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(
            f"the lease {store.backend.url(name)} cannot be read ({error}), so it is unknown whether the run "
            f"{run_id!r} is being worked on; try again, or delete the file if you are sure that it is not"
        ) from error


def _is_alive(store: Store, run_id: str, number: int, found: Holder) -> bool:
    # Whether the holder of a lease is still alive, as far as this process can tell.
    machine, boot, numbers = _machine()
    # A process can be looked up only on its own machine, within one boot and one PID namespace. For any other holder,
    # the age of its last renewal decides.
    if found.host == platform.node():
        if (found.boot, found.numbers) == (boot, numbers):
            return _is_running(found)
        if found.machine and found.machine == machine and found.boot != boot and found.numbers == HOST_NAMESPACE:
            return False  # this machine has rebooted since; containers of one image may share a machine id
    return _age(store, _file(run_id, number)) < STALE


def _age(store: Store, name: str) -> float:
    # How many seconds ago a file was written, by the storage's clock. This machine's clock may be wrong or have been
    # set back, so a file is written now to get the storage's time.
    folder = name.rpartition("/")[0]
    probe = f"{folder}/{uuid.uuid4().hex}.now"
    try:
        with suppress(StoreError):  # a read-only store
            store.backend.write(probe, b"")
        modified = {entry.name: entry.modified for entry in store.backend.list(folder)}
    finally:
        with suppress(OSError, StoreError):
            store.backend.remove([probe])
    # Both times are by one clock; if the store is not writable, this machine's clock has to do.
    return modified.get(probe, time.time()) - modified.get(name, 0.0)


def _folder(run_id: str) -> str:
    return f"leases/{run_id}"


def _file(run_id: str, number: int) -> str:
    return f"{_folder(run_id)}/{number:06d}.json"


def _is_running(found: Holder) -> bool:
    # Whether a process of this PID namespace is still alive, rather than another with its PID.
    try:
        os.kill(found.process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # A PID may have been reused by a process that started later; and a zombie has a PID but no longer runs.
    return _started(found.process) == found.started and _state(found.process) not in ("Z", "X")


def _machine() -> tuple[str, str, str]:
    # The ids of this machine, its boot, and this process's PID namespace; see `Holder`.
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
    # When a process started, in ticks since boot; 0 if the system does not provide it.
    fields = _stat(process)
    return int(fields[19]) if len(fields) > 19 else 0


def _state(process: int) -> str:
    # The state of a process, such as `S`, or `Z` for a zombie; empty if the system does not provide it.
    return next(iter(_stat(process)), "")


def _stat(process: int) -> list[str]:
    try:
        line = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return line.rpartition(")")[2].split()  # after the name, which may contain anything
