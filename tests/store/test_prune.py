"""Pruning removes what was asked for, never the last complete run, and leaves no partial run visible."""

import os
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import Command
from store_factory import begin_run, end_attempt, with_errors, write_shard

from emtta_core.errors import UsageError
from emtta_core.store import Catalogue, CellKey, PreparedRow, Store
from emtta_core.store.compaction import compact
from emtta_core.store.lease import lease
from emtta_core.store.pruning import Keep, plan_pruning, prune

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = datetime.now(UTC) + timedelta(days=2)
"""A time at which files written now are old."""


def add(
    store: Store, run_id: str, *, days: int, suite: str = "test", complete: bool = True, packed: bool = False
) -> None:
    """Write a run that began `days` days ago, with a log."""
    key = CellKey(run_id, "babble", "source")
    begin_run(store, run_id, [("noise", "babble", "source")], created_at=NOW - timedelta(days=days))
    store.write_run(run_id, replace(store.run(run_id), suite=suite))
    texts = {"a": [with_errors(1)], "b": [with_errors(1)]} if complete else {"a": [with_errors(1)]}
    write_shard(store, key, texts, attempt=store.begin_attempt(key))
    end_attempt(store, key, group="noise")
    store.write_log(key, 1, b"a line\n")
    with store.run_log(run_id) as log:
        log.write_text("another\n")
    if packed:
        compact(store, run_id)


def prepare(store: Store, corpus_id: str) -> None:
    """Write a prepared corpus of two shards."""
    for shard in range(2):
        row = PreparedRow(
            utterance_id=f"u{shard}",
            audio=None,
            text="a",
            language="en",
            speaker="s",
            seconds=0.0,
            corruption=None,
            snr_db=None,
            error="silent",
        )
        store.write_prepared(corpus_id, shard, [row])
    store.finish_prepared(corpus_id, shards=2, utterances=2)


def gone(store: Store, keep: str, *, suite: str | None = None, now: datetime = NOW) -> list[str]:
    """Prune, and return the names of the removed runs."""
    return [run.name for run in prune(store, plan_pruning(store, Keep.parse(keep), suite=suite, now=now)).runs]


def shown(store: Store) -> dict[str, set[str]]:
    """The runs in each view."""
    with Catalogue(store) as catalogue:
        views = ("runs", "groups", "cells", "utterances", "steps", "attempts", "planned")
        return {view: {row[0] for row in catalogue.query(f"SELECT run_id FROM {view}").rows} for view in views}


def files(store: Store, run_id: str) -> list[str]:
    folders = ("hypotheses", "steps", "scores", "cells", "packs", "plans", "runs", "logs", "leases")
    names = [entry.name for folder in folders for entry in store.backend.list(folder)]
    return [
        name
        for name in names
        if f"run_id={run_id}/" in name or f"leases/{run_id}/" in name or name.endswith(f"/{run_id}.log")
    ]


@pytest.fixture
def store(usual_location: str) -> Store:
    return Store.open(usual_location, create=True)


def test_newest_runs_per_suite_are_kept(store: Store) -> None:
    for days in (1, 2, 3):
        add(store, f"first-{days}", days=days, suite="first", packed=True)
    add(store, "second-9", days=9, suite="second")
    assert gone(store, "2") == ["first-3"]
    assert set(store.runs()) == {"first-1", "first-2", "second-9"}
    assert files(store, "first-3") == ["leases/first-3/000002.json"], "a mark, so that its number is not given again"
    assert all(runs <= set(store.runs()) for runs in shown(store).values())


def test_runs_younger_than_limit_are_kept(store: Store) -> None:
    for days in (1, 29, 31, 40):
        add(store, f"run-{days}", days=days)
    assert gone(store, "30d") == ["run-40", "run-31"]
    assert gone(store, "5w") == []
    assert gone(store, "25h") == ["run-29"]


def test_last_complete_run_is_kept(store: Store) -> None:
    add(store, "old", days=100)
    add(store, "older", days=200)
    add(store, "unfinished", days=1, complete=False)
    pruning = plan_pruning(store, Keep.parse("1"), now=NOW)
    assert pruning.spared == {"old": "it is the last complete run of the suite test"}
    assert gone(store, "1") == ["older"]
    assert set(store.runs()) == {"old", "unfinished"}


def test_busy_run_is_kept(store: Store) -> None:
    add(store, "new", days=1)
    for run_id in ("busy", "busy-later"):
        add(store, run_id, days=50, complete=False)
    with lease(store, "busy"):
        pruning = plan_pruning(store, Keep.parse("1"), now=NOW)
        assert [run.name for run in pruning.runs] == ["busy-later"]
        assert "is working on it" in pruning.spared["busy"]
        with lease(store, "busy-later"):
            done = prune(store, pruning)
        assert done.runs == []
        assert "is being worked on by process" in done.spared["busy-later"]
    assert set(store.runs()) == {"new", "busy", "busy-later"}


def test_only_named_suite_is_pruned(store: Store) -> None:
    for suite in ("first", "second"):
        for days in (1, 2):
            add(store, f"{suite}-{days}", days=days, suite=suite)
    assert gone(store, "1", suite="second") == ["second-2"]
    with pytest.raises(UsageError, match=r"unknown suite 'third'; choose from: first, second"):
        plan_pruning(store, Keep.parse("1"), suite="third")


def test_unreferenced_audio_is_removed(store: Store) -> None:
    for corpus in ("corpus-babble", "corpus-orphan"):
        prepare(store, corpus)
    add(store, "old", days=9)
    add(store, "new", days=1)
    assert plan_pruning(store, Keep.parse("1"), keep_prepared=True, now=LATER).corpora == ()
    assert plan_pruning(store, Keep.parse("1"), now=NOW).corpora == [], "it is new, and may be for a run to come"
    pruning = plan_pruning(store, Keep.parse("1"), now=LATER)
    assert [corpus.name for corpus in pruning.corpora] == ["corpus-orphan"]
    assert pruning.size == sum(removal.size for removal in (*pruning.runs, *pruning.corpora)) > 0
    prune(store, pruning)
    assert store.prepared("corpus-orphan") is None
    assert store.prepared("corpus-babble") is not None


def test_newly_needed_audio_is_kept(store: Store) -> None:
    add(store, "new", days=1)
    prepare(store, "corpus-scots")
    pruning = plan_pruning(store, Keep.parse("1"), now=LATER)
    assert [corpus.name for corpus in pruning.corpora] == ["corpus-scots"]
    begin_run(store, "newest", [("accent", "scots", "source")])
    assert prune(store, pruning).corpora == []
    assert store.prepared("corpus-scots") is not None


def test_unreadable_plan_keeps_all_audio(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    add(store, "new", days=1)
    prepare(store, "corpus-babble")
    store.backend.write("plans/run_id=new/plan.parquet", b"PAR1")
    assert plan_pruning(store, Keep.parse("1"), now=LATER).corpora == ()


def test_unreadable_run_is_kept(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    for days in (1, 2):
        add(store, f"run-{days}", days=days)
    store.backend.write("runs/run_id=run-2/run.parquet", b"PAR1")
    assert plan_pruning(store, Keep.parse("1"), now=LATER).runs == ()
    assert files(store, "run-2") != []


class Killed(BaseException):
    """Raised where the process would be killed."""


@pytest.mark.slow
@pytest.mark.parametrize("complete", [True, False])
def test_killed_pruning_is_resumable(complete: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "store", create=True)
    add(store, "new", days=1)
    add(store, "old", days=9, complete=complete, packed=complete)
    whole, names = shown(store), [name for name in files(store, "old") if not name.startswith("leases/")]
    content = {name: store.backend.read(name) for name in names}
    remove, left = store.backend.remove, 0

    def removing(names: Iterable[str]) -> None:
        nonlocal left
        for name in names:
            if not name.startswith("leases/"):
                if not left:
                    raise Killed
                left -= 1
            remove([name])

    for steps in range(100):
        for name, written in content.items():
            store.backend.write(name, written)
        left = steps
        with monkeypatch.context() as patch:
            patch.setattr(store.backend, "remove", removing)
            try:
                assert gone(store, "1") == ["old"]
            except Killed:
                pass
            else:
                break
        assert ("old" in store.runs()) == (steps == 0)
        now = shown(store)
        if "old" in now["planned"]:  # all rows remain as long as the plan does
            assert {view: runs for view, runs in now.items() if view != "runs"} == {
                view: runs for view, runs in whole.items() if view != "runs"
            }
        else:
            assert all("old" not in runs for runs in now.values())
        if steps:
            assert gone(store, "1", now=NOW) == [], "what is new may be a run that begins"
        assert gone(store, "1", now=LATER) == ["old"]
        assert [name for name in files(store, "old") if "leases" not in name] == []
    assert steps >= 4
    assert [name for name in files(store, "old") if "leases" not in name] == []


@pytest.mark.parametrize("keep", ["0", "0d", "-1", "30 d", "30m", "d", "1.5d", "all", "٣d"])
def test_invalid_count_or_age_is_refused(keep: str, emtta: Command, tmp_path: Path) -> None:
    Store.open(tmp_path / "store", create=True)
    outcome = emtta("prune", f"--keep={keep}", "--store", tmp_path / "store")
    assert outcome.code == 2
    assert f"--keep {keep!r} is neither" in " ".join(outcome.err.split())
    assert "as 12h, 30d or 8w" in " ".join(outcome.err.split())


@pytest.fixture
def command_store(tmp_path: Path) -> Store:
    """A store with three old runs of one suite, and an old orphaned corpus."""
    store = Store.open(tmp_path / "store", create=True)
    for days in (3000, 3001, 3002):
        add(store, f"run-{days}", days=days, packed=True)
    prepare(store, "corpus-orphan")
    old = time.time() - 200_000
    for path in (tmp_path / "store" / "prepared" / "corpus-orphan").iterdir():
        os.utime(path, (old, old))
    return store


def test_command_previews_removals(command_store: Store, emtta: Command) -> None:
    arguments = ("prune", "--keep", "1", "--store", command_store.location)
    outcome = emtta(*arguments, "--dry-run")
    assert outcome.code == 0
    assert "would remove 2 runs and 1 prepared corpus" in outcome.err
    assert all(name in outcome.out for name in ("run-3001", "run-3002", "corpus-orphan"))
    assert len(command_store.runs()) == 3
    outcome = emtta(*arguments)
    assert outcome.code == 2
    assert "there is no terminal; add --yes" in outcome.err
    size = sum(path.stat().st_size for path in Path(command_store.location).rglob("*") if path.is_file())
    outcome = emtta(*arguments, "--yes")
    assert outcome.code == 0
    assert "removed 2 runs and 1 prepared corpus" in outcome.err
    assert list(command_store.runs()) == ["run-3000"]
    freed = size - sum(path.stat().st_size for path in Path(command_store.location).rglob("*") if path.is_file())
    assert f"{freed / 1000:.1f} kB" in outcome.err
    assert "nothing to remove" in emtta(*arguments, "--yes").err


def test_command_compacts_and_reports(tmp_path: Path, emtta: Command) -> None:
    store = Store.open(tmp_path / "store", create=True)
    add(store, "run", days=1, complete=False)
    arguments = ("compact", "run", "--store", store.location)
    assert "would merge 4 files" in emtta(*arguments, "--dry-run").err
    assert store.backend.list("packs") == []
    outcome = emtta(*arguments)
    assert outcome.code == 0
    assert "4 files" in outcome.err
    assert "are now 3" in outcome.err
    assert "nothing to do, its rows are in 3 files" in emtta(*arguments).err
    assert emtta("compact", "nothing", "--store", store.location).code == 2
    with lease(store, "run"):
        assert "nothing to do" in emtta(*arguments).err
