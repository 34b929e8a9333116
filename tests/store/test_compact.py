"""Compaction changes no row and no answer, even with concurrent readers, and wherever it is killed."""

import random
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from store_factory import begin_run, end_attempt, one_run, with_errors, write_shard

from emtta_core.errors import StoreError, UsageError
from emtta_core.store import Catalogue, CellKey, Store, views
from emtta_core.store import catalogue as catalogue_module
from emtta_core.store.backend import Backend
from emtta_core.store.compaction import compact, plan_compaction
from emtta_core.store.lease import lease
from emtta_core.store.tables import TABLES

CELLS = [("noise", "babble", "source"), ("noise", "babble", "em-tok"), ("accent", "scots", "em-tok")]
KEYS = [CellKey("run", domain, method) for _, domain, method in CELLS]
PACKED = ["hypotheses", "steps", "scores", "cells"]
TABLES_IN_SQL = [f"raw.{table}" for table in TABLES]
ROOTS = [*TABLES_IN_SQL, "utterances"]
"""The sources of every other view: if these have the same rows, so do all views."""


class Killed(BaseException):
    """Raised where the process would be killed."""


def fill(store: Store, run_id: str = "run", seed: int = 0) -> None:
    """Write a run with stopped, failed, stale and repeated attempts, in several shards each."""
    rng = random.Random(seed)
    begin_run(store, run_id, CELLS, utterances=8)
    for group, domain, method in CELLS:
        key = CellKey(run_id, domain, method)
        for _ in range(rng.randint(1, 3)):
            attempt = store.begin_attempt(key)
            attempt_at(store, key, attempt, rng)
            if rng.random() < 0.7:
                end_attempt(store, key, group=group, attempt=attempt, error=rng.choice([None, "out of memory"]))


def attempt_at(store: Store, key: CellKey, attempt: int, rng: random.Random) -> None:
    names = rng.sample("abcdefgh", rng.randint(3, 8))
    for shard, part in enumerate((names[:2], names[2:])):
        write_shard(
            store,
            key,
            {
                name: rng.choice([None, [with_errors(rng.randint(0, 4)), with_errors(rng.randint(0, 4))]])
                for name in part
            },
            attempt=attempt,
            shard=shard,
            cell_id=rng.choice([None, None, None, "stale"]),
            scored=rng.random() < 0.8,
        )


def answers(store: Store, catalogue: Catalogue | None = None, names: Sequence[str] = ROOTS) -> dict[str, list[str]]:
    """Every row of some tables and views, sorted, with floats rounded to nine decimals."""
    if catalogue is None:
        with Catalogue(store) as catalogue:
            return answers(store, catalogue, names)
    return {name: sorted(map(written, catalogue.query(f"FROM {name}").rows)) for name in names}


def written(row: tuple[object, ...]) -> str:
    return repr([round(value, 9) if isinstance(value, float) else value for value in row])


def done(store: Store) -> list[object]:
    """What a resumed run would read."""
    return [(key, sorted(store.done(key, f"{key.domain}.{key.method}").items()), store.cells(key)) for key in KEYS]


def rows_files(store: Store) -> list[str]:
    return [entry.name for folder in (*PACKED, "packs") for entry in store.backend.list(folder)]


@pytest.fixture
def store(usual_location: str) -> Store:
    store = Store.open(usual_location, create=True)
    fill(store)
    fill(store, "other", seed=1)
    return store


def test_compaction_keeps_all_answers(store: Store) -> None:
    names = [*TABLES_IN_SQL, *(f'"{view}"' for view in views())]
    with Catalogue(store) as opened, Catalogue(store) as cached:
        cached.cache_rows()  # which makes views four times as fast
        before, every = answers(store, opened), answers(store, cached, names)
        resumed, files = done(store), len(rows_files(store))
        compact(store, "run")
        cached.cache_rows()
        assert answers(store) == answers(store, opened) == before
        assert answers(store, cached, names) == every
    assert done(store) == resumed
    of_the_run = [name for name in rows_files(store) if "run_id=run/" in name]
    assert [name.split("/")[1] for name in of_the_run] == ["cells", "steps", "utterances"]
    assert all(name.startswith("packs/") for name in of_the_run)
    assert len(rows_files(store)) < files


def test_views_derive_from_the_roots() -> None:
    other = {view.name for view in views().values() if re.search(r"\b(open|settled)\.", view.sql)}
    assert other == {"utterances"}


def test_compacting_twice_changes_nothing(store: Store) -> None:
    compact(store, "run")
    files = {entry.name: entry.tag for entry in store.backend.list("packs")}
    assert not plan_compaction(store, "run").needed
    compact(store, "run")
    assert {entry.name: entry.tag for entry in store.backend.list("packs")} == files


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_later_attempts_count(seed: int, store: Store) -> None:
    twin = Store.open(f"{store.location}-twin", create=True)  # never compacted
    fill(twin)
    fill(twin, "other", seed=1)
    for step in range(2):
        compact(store, "run")
        key = KEYS[(seed + step) % len(KEYS)]
        numbers = [each.begin_attempt(key) for each in (store, twin)]
        assert numbers[0] >= numbers[1], "no attempt number is reused"
        number = max(numbers)
        for each in (store, twin):
            attempt_at(each, key, number, random.Random(100 * seed + step))
            end_attempt(each, key, group="noise", attempt=number)
        assert answers(store) == answers(twin)
        assert done(store) == done(twin)
    compact(store, "run")
    assert answers(store) == answers(twin)


def test_number_is_never_reused(store: Store) -> None:
    given = {store.begin_attempt(KEYS[0]) for _ in range(2)}
    compact(store, "run")
    given |= {store.begin_attempt(KEYS[0]) for _ in range(2)}
    compact(store, "run")
    given.add(store.begin_attempt(KEYS[0]))
    assert len(given) == 5


class KillingBackend(Backend):
    """A backend that allows a number of writes and removals, and kills the process at the next one."""

    def __init__(self, backend: Backend, steps: int) -> None:
        super().__init__(backend.location)
        self._backend, self._left = backend, steps
        for name in (
            "is_there",
            "make",
            "check_writable",
            "attach",
            "list",
            "exists",
            "read",
            "read_all",
            "read_tails",
            "appending",
        ):
            setattr(self, name, getattr(backend, name))

    def _step(self) -> None:
        if not self._left:
            raise Killed
        self._left -= 1

    def write(self, name: str, content: bytes) -> None:
        self._step()
        self._backend.write(name, content)

    def write_new(self, name: str, content: bytes) -> bool:
        self._step()
        return self._backend.write_new(name, content)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._step()
            self._backend.remove([name])


KillingBackend.__abstractmethods__ = frozenset()  # the other methods are the wrapped backend's


def killed_after(store: Store, steps: int) -> bool:
    """Compact, with a kill after some steps; return whether it was killed."""
    try:
        compact(Store(KillingBackend(store.backend, steps)), "run")
    except Killed:
        store.backend.remove([entry.name for entry in store.backend.list("leases/run")])  # its process is dead
        return True
    return False


def test_kill_at_any_step_is_harmless(store: Store) -> None:
    before, resumed = answers(store), done(store)
    steps = 0
    while killed_after(store, steps):
        assert answers(store) == before
        assert done(store) == resumed
        steps += 1
    assert steps >= 3, "at least one pack of each kind was written before the last step"
    assert answers(store) == before
    assert [name.split("/")[0] for name in rows_files(store) if "run_id=run/" in name] == ["packs"] * 3


@pytest.mark.slow
def test_compaction_does_not_disturb_readers(store: Store) -> None:
    fill(store, "more", seed=2)
    before, resumed = answers(store), done(store)
    wrong: list[str] = []
    rounds = {"fresh": 0, "open": 0, "resuming": 0}
    over = threading.Event()

    def read(kind: str, ask: Callable[[], object], expected: object) -> None:
        while not over.is_set() or not rounds[kind]:
            try:
                if ask() != expected:
                    wrong.append(kind)
            except Exception as error:
                wrong.append(f"{kind}: {error!r}")
            rounds[kind] += 1

    with Catalogue(store) as opened:
        readers = [
            threading.Thread(target=read, args=("fresh", lambda: answers(store), before)),
            threading.Thread(target=read, args=("open", lambda: answers(store, opened), before)),
            threading.Thread(target=read, args=("resuming", lambda: done(store), resumed)),
        ]
        for reader in readers:
            reader.start()
        for run_id in store.runs():
            compact(store, run_id)
        over.set()
        for reader in readers:
            reader.join()
    assert not wrong
    assert all(rounds.values())


def test_compaction_during_open_loses_no_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before, make = answers(store), catalogue_module.create_functions

    def meanwhile(connection: object) -> None:
        monkeypatch.setattr(catalogue_module, "create_functions", make)
        make(connection)
        compact(store, "run")  # the listed files are gone when the views are made

    monkeypatch.setattr(catalogue_module, "create_functions", meanwhile)
    assert answers(store) == before


def test_readers_survive_pack_replacement(store: Store) -> None:
    compact(store, "run")
    shown = "SELECT * FROM utterances ORDER BY ALL"
    doubled = (
        "SELECT count(*), count(DISTINCT (run_id, domain, method, attempt, utterance_id)) FROM raw.hypotheses "
        "WHERE attempt < 100"
    )
    with Catalogue(store) as catalogue:
        before = [catalogue.query(query).rows for query in (shown, doubled)]
    wrong: list[object] = []
    over = threading.Event()

    def read() -> None:
        with Catalogue(store) as catalogue:
            while not over.is_set():
                found = [catalogue.query(query).rows for query in (shown, doubled)]
                if found != before:
                    wrong.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    for attempt in range(100, 103):
        write_shard(store, KEYS[0], {"a": [with_errors(4)]}, attempt=attempt, cell_id="stale")
        compact(store, "run")
    over.set()
    reader.join()
    assert not wrong
    assert {name.rpartition("/")[2] for name in rows_files(store) if "/utterances/run_id=run/" in name} == {
        "102.parquet"
    }


def test_only_busy_run_is_refused(store: Store) -> None:
    files = rows_files(store)
    with lease(store, "run"):
        with pytest.raises(StoreError, match="is being worked on by process"):
            compact(store, "run")
        assert rows_files(store) == files
        compact(store, "other")
        assert not [name for name in rows_files(store) if "run_id=other/" in name and not name.startswith("packs/")]


def test_run_without_plan_is_not_compacted(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    one_run(store, "run")
    (entry,) = store.backend.list("plans")
    plan = store.backend.read(entry.name)
    store.backend.remove([entry.name])
    with pytest.raises(StoreError, match=r"plan\.parquet"):
        compact(store, "run")
    assert list(store.backend.list("packs")) == []
    store.backend.write(entry.name, plan)
    compact(store, "run")
    with Catalogue(store) as catalogue:
        assert catalogue.query("SELECT state, done FROM cells").rows == [("complete", 2)]


def test_unknown_run_lists_existing(store: Store) -> None:
    with pytest.raises(UsageError, match=r"unknown run 'x'; choose from: "):
        compact(store, "x")


@pytest.mark.parametrize("table", PACKED)
def test_unreadable_run_is_not_compacted(table: str, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    fill(store)
    name = next(name for name in rows_files(store) if name.startswith(table) and name.endswith(".parquet"))
    store.backend.write(name, store.backend.read(name)[:50])
    with pytest.raises(StoreError, match=r"cannot be read: .*magic bytes not found.* emtta rerun run"):
        compact(store, "run")
    assert name in rows_files(store)


def test_damaged_pack_loses_only_its_run(store: Store) -> None:
    compact(store, "run")
    before = Catalogue(store).query("SELECT * FROM cells WHERE run_id = 'other' ORDER BY position").rows
    pack = next(name for name in rows_files(store) if name.startswith("packs/utterances/"))
    store.backend.write(pack, store.backend.read(pack)[:200])
    catalogue = Catalogue(store)
    assert [file.name for file in catalogue.broken] == [pack]
    assert catalogue.query("SELECT * FROM cells WHERE run_id = 'other' ORDER BY position").rows == before
    assert {state for (state,) in catalogue.query("SELECT state FROM cells WHERE run_id = 'run'").rows} <= {
        "missing",
        "failed",
    }
    assert store.done(KEYS[0], "babble.source") == {}
