"""One process at a time works at a run; the lease of one that is dead is taken over, and no living one's is."""

import json
import os
import signal
import subprocess
import sys
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
from emtta_core.store.lease import STALE, Holder, holder, lease

NAME = "leases/mine.json"

HOLD = """
import sys, time
from emtta_core.store import Store
from emtta_core.store.lease import lease
with lease(Store.open(sys.argv[1]), "mine"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture
def other(store: Store) -> Iterator[subprocess.Popen[str]]:
    """Another process that works at the run."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, store.location], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_run_is_worked_at_by_one_and_free_afterwards(store: Store) -> None:
    assert holder(store, "mine") is None
    with lease(store, "mine"):
        found = holder(store, "mine")
        assert found is not None
        assert found.process == os.getpid()
        assert holder(store, "yours") is None
    assert holder(store, "mine") is None
    assert not store.place.exists(NAME)


def test_a_second_process_is_refused_with_the_firsts_name(store: Store, other: subprocess.Popen[str]) -> None:
    message = rf"the run 'mine' is being worked at by process {other.pid} on \S+ since 2\d\d\d-.*; wait for it"
    with pytest.raises(StoreError, match=message), lease(store, "mine"):
        pass
    assert str(other.pid) in str(holder(store, "mine"))


def test_the_lease_of_a_killed_process_is_taken_over_at_once(store: Store, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert holder(store, "mine") is None
    with lease(store, "mine"):
        found = holder(store, "mine")
        assert found is not None
        assert found.process == os.getpid()


def test_another_process_of_the_same_number_is_not_the_holder(store: Store) -> None:
    dead = replace(Holder.this_process(), started=1)
    store.place.write(NAME, json.dumps(asdict(dead)).encode())
    assert holder(store, "mine") is None


def test_a_process_of_another_machine_is_dead_when_it_has_not_renewed(store: Store) -> None:
    far = replace(Holder.this_process(), host="elsewhere", process=1)
    store.place.write(NAME, json.dumps(asdict(far)).encode())
    with pytest.raises(StoreError, match="process 1 on elsewhere"), lease(store, "mine"):
        pass
    path = Path(store.location) / NAME
    before = path.stat().st_mtime - STALE - 1
    os.utime(path, (before, before))
    with lease(store, "mine"):
        found = holder(store, "mine")
        assert found is not None
        assert found.host != "elsewhere"


def test_a_clock_that_is_wrong_takes_no_lease_over_and_keeps_none(store: Store) -> None:
    far = replace(Holder.this_process(), host="elsewhere", process=1)
    store.place.write(NAME, json.dumps(asdict(far)).encode())
    with time_machine.travel(datetime.now(UTC) + timedelta(days=2)), pytest.raises(StoreError), lease(store, "mine"):
        pass
    path = Path(store.location) / NAME
    before = path.stat().st_mtime - STALE - 1
    os.utime(path, (before, before))
    with time_machine.travel(datetime.now(UTC) - timedelta(days=2)), lease(store, "mine"):
        found = holder(store, "mine")
        assert found is not None
        assert found.host != "elsewhere"
    assert [entry.name for entry in store.place.list("leases")] == []


def test_of_several_who_take_over_one_alone_gets_it(store: Store) -> None:
    dead = replace(Holder.this_process(), started=1)
    store.place.write(NAME, json.dumps(asdict(dead)).encode())
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


def test_a_lease_that_cannot_be_read_is_nobodys(store: Store) -> None:
    store.place.write(NAME, b"{ not json")
    assert holder(store, "mine") is None
    with lease(store, "mine"):
        assert holder(store, "mine") is not None
