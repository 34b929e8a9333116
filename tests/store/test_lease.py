"""One process at a time works on a run: the lease of a dead process is taken over, that of a live one never.

A process that slept until its lease was taken over notices, and leaves its successor alone.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
import time_machine

from emtta_core.errors import StoreError
from emtta_core.store import Store
from emtta_core.store.backend import Backend
from emtta_core.store.lease import (
    HOST_NAMESPACE,
    STALE,
    Holder,
    LeaseLostError,
    _machine,
    _started,
    holder,
    lease,
    remove_old_leases,
)

FIRST = "leases/mine/000001.json"

HOLD = """
import sys, time
from emtta_core.store import Store
from emtta_core.store.lease import lease
with lease(Store.open(sys.argv[1]), "mine"):
    print("held", flush=True)
    time.sleep(600)
"""


def leave(store: Store, name: str = FIRST, **other: object) -> Holder:
    """Leave the lease of a process like this one, except for the given fields."""
    left = replace(Holder.this_process(), **other)  # type: ignore[arg-type]
    store.backend.write(name, json.dumps(asdict(left)).encode())
    return left


def grow_old(store: Store) -> None:
    """Make the lease stale."""
    path = Path(store.location) / FIRST
    before = path.stat().st_mtime - STALE - 1
    os.utime(path, (before, before))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture
def other(store: Store) -> Iterator[subprocess.Popen[str]]:
    """Another process that is working on the run."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, store.location], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_one_holder_then_free(store: Store) -> None:
    assert holder(store, "mine") is None
    with lease(store, "mine"):
        found = holder(store, "mine")
        assert found is not None
        assert found.process == os.getpid()
        assert holder(store, "yours") is None
    assert holder(store, "mine") is None
    for _ in range(3):
        with lease(store, "mine"):
            assert holder(store, "mine") is not None
    assert [entry.size for entry in store.backend.list("leases")] == [0]  # one released lease is kept, empty


def test_second_process_is_refused(store: Store, other: subprocess.Popen[str]) -> None:
    message = rf"the run 'mine' is being worked on by process {other.pid} on \S+ since 2\d\d\d-.*; wait for it"
    with pytest.raises(StoreError, match=message), lease(store, "mine"):
        pass
    assert str(other.pid) in str(holder(store, "mine"))


def test_killed_holder_is_taken_over(store: Store, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert holder(store, "mine") is None
    with lease(store, "mine"):
        found = holder(store, "mine")
        assert found is not None
        assert found.process == os.getpid()


def test_reused_pid_is_not_holder(store: Store) -> None:
    leave(store, started=1)
    assert holder(store, "mine") is None


def test_silent_remote_holder_is_dead(store: Store) -> None:
    leave(store, host="elsewhere", boot="another", process=1)
    with pytest.raises(StoreError, match="process 1 on elsewhere"), lease(store, "mine"):
        pass
    grow_old(store)
    with lease(store, "mine"):
        found = holder(store, "mine")
        assert found is not None
        assert found.host != "elsewhere"


CONTAINER = "pid:[4026532000]"


@pytest.mark.parametrize(
    ("other", "lives"),
    [
        # another machine of the same name
        ({"boot": "another", "numbers": HOST_NAMESPACE, "machine": "another"}, True),
        ({"numbers": CONTAINER}, True),  # a container of the same name on this machine, with a process of our PID
        ({"boot": "another", "numbers": CONTAINER}, True),  # the same on another machine, with the same image
        ({"boot": "another", "numbers": HOST_NAMESPACE}, False),  # this machine, before it was rebooted
    ],
)
def test_machine_identity_ignores_names(
    store: Store, monkeypatch: pytest.MonkeyPatch, other: dict[str, str], lives: bool
) -> None:
    _, boot, numbers = _machine()
    monkeypatch.setattr("emtta_core.store.lease._machine", lambda: ("this", boot, numbers))
    leave(store, **other)
    assert (holder(store, "mine") is not None) == lives
    grow_old(store)
    assert holder(store, "mine") is None


def test_sleeper_notices_takeover(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("emtta_core.store.lease.RENEWAL", 0.05)
    with lease(store, "mine") as slept:
        slept.check(store)
        successor = leave(store, "leases/mine/000002.json", host="elsewhere", boot="another")
        with pytest.raises(LeaseLostError, match=r"'mine' was taken over by process \d+ on elsewhere since 2"):
            slept.check(store)
        time.sleep(0.2)
        assert "'mine' was taken over by" in caplog.text
        assert holder(store, "mine") == successor
    assert holder(store, "mine") == successor


def test_skipped_number_grants_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(store, started=1)
    write_new = store.backend.write_new

    def hesitate(name: str, content: bytes) -> bool:
        leave(store, "leases/mine/000003.json", host="elsewhere", boot="another")  # the second lease came and went
        store.backend.remove([FIRST])
        return write_new(name, content)

    monkeypatch.setattr(store.backend, "write_new", hesitate)
    with pytest.raises(StoreError, match="on elsewhere since"), lease(store, "mine"):
        pass


def test_staleness_ignores_local_clock(store: Store) -> None:
    leave(store, host="elsewhere", boot="another", process=1)
    with time_machine.travel(datetime.now(UTC) + timedelta(days=2)), pytest.raises(StoreError), lease(store, "mine"):
        pass
    grow_old(store)
    with time_machine.travel(datetime.now(UTC) - timedelta(days=2)), lease(store, "mine"):
        found = holder(store, "mine")
        assert found is not None
        assert found.host != "elsewhere"
    assert [entry.size for entry in store.backend.list("leases")] == [0]


def test_read_only_store_shows_holder(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    far = leave(store, host="elsewhere", boot="another")

    def refuse(*_: object) -> None:
        raise StoreError("Read-only file system")

    monkeypatch.setattr(store.backend, "write", refuse)
    assert holder(store, "mine") == far
    grow_old(store)
    assert holder(store, "mine") is None


def test_only_one_takeover_wins(store: Store) -> None:
    leave(store, started=1)
    begin, end = Barrier(4), Barrier(4)

    def work(_: int) -> bool:
        begin.wait()
        try:
            with lease(store, "mine"):
                end.wait()
                return True
        except StoreError:
            end.wait()
            return False

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(work, range(4))) == 1


@pytest.mark.parametrize("damage", ["not JSON", "an I/O error"])
def test_unreadable_lease_is_not_free(store: Store, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with lease(store, "mine") as held:
        if damage == "not JSON":
            store.backend.write(FIRST, b"{ not json")
        else:
            read = type(store.backend).read

            def stale(backend: Backend, name: str) -> bytes:
                if name == FIRST:
                    raise OSError(errno.ESTALE, "Stale file handle")
                return read(backend, name)

            monkeypatch.setattr(type(store.backend), "read", stale)
        for ask in (lambda: holder(store, "mine"), lambda: lease(store, "mine").__enter__()):
            with pytest.raises(StoreError, match=r"cannot be read .*it is unknown whether the run 'mine'"):
                ask()
        held.check(store)


def test_removed_lease_is_lost(store: Store) -> None:
    with lease(store, "mine") as held:
        store.backend.remove([FIRST])
        with pytest.raises(LeaseLostError, match=r"is gone, .*the run was removed, or begun again"):
            held.check(store)
    assert not store.backend.exists(FIRST), "a process that lost a lease does not write it"


def test_number_is_not_reused(store: Store) -> None:
    sleeper = lease(store, "mine")
    lost = sleeper.__enter__()
    store.backend.remove([FIRST])
    with lease(store, "mine"):
        pass
    with lease(store, "mine"):  # as pruning does
        pass
    remove_old_leases(store, "mine")
    with lease(store, "mine") as other:  # a new run with the same id
        assert other.number > lost.number
        with pytest.raises(LeaseLostError):
            lost.check(store)
    sleeper.__exit__(None, None, None)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports which processes are zombies")
def test_zombie_holds_nothing(store: Store) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    alive = replace(Holder.this_process(), process=child.pid, started=_started(child.pid))
    store.backend.write(FIRST, json.dumps(asdict(alive)).encode())
    assert holder(store, "mine") == alive
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has exited, and is a zombie until it is reaped
    assert holder(store, "mine") is None
    child.communicate()
