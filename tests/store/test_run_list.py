"""The list of runs equals the report `runs`, but rereads only runs whose files have changed."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from store_factory import begin_run, end_attempt, one_run, with_errors, write_shard

from emtta_core.store import Catalogue, CellKey, LinkRow, Store, run_list
from emtta_core.store.compaction import compact
from emtta_core.store.run_list import RunList

CELLS = [("noise", "babble", "source"), ("noise", "babble", "em-tok-b")]


def add_half(store: Store, run_id: str, day: int = 24) -> None:
    """Add a run with one of its two cells done, and an utterance in error."""
    begin_run(store, run_id, CELLS, created_at=datetime(2026, 11, day, tzinfo=UTC))
    key = CellKey(run_id, "babble", "source")
    write_shard(store, key, {"a": [with_errors(1)], "b": None}, attempt=store.begin_attempt(key))
    end_attempt(store, key, group="noise")


def rest(store: Store) -> None:
    """Age all files beyond the resolution of a file system's clock."""
    for path in Path(store.location).rglob("*.parquet"):
        if time.time() - path.stat().st_mtime < 100:
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 3_600_000_000_000))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Runs of every kind: complete, packed, packed and continued, half done, reusing results, and planned only."""
    store = Store.open(tmp_path / "store", create=True)
    for name in ("complete", "packed", "gone-on", "maker"):
        one_run(store, name)
    compact(store, "packed")
    compact(store, "gone-on")
    key = CellKey("gone-on", "babble", "source")
    write_shard(store, key, {"a": [with_errors(0)]}, attempt=store.begin_attempt(key))
    end_attempt(store, key, group="noise", attempt=2)
    add_half(store, "half")
    begin_run(store, "reusing", [CELLS[0]])
    link = LinkRow(domain="babble", method="source", cell_id="babble.source", utterance_id="a", source_domain="babble",
                   source_method="source", source_cell_id="babble.source", source_attempt=1)  # fmt: skip
    store.write_links("reusing", "maker", [link])
    begin_run(store, "planned", CELLS)
    rest(store)
    return store


@pytest.fixture
def read_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[set[str]]]:
    """The runs that each refresh reads."""
    looks: list[set[str]] = []

    class Noting(Catalogue):
        def report(self, name: str, run: str | None = None, **parameters: object) -> Any:
            found = super().report(name, run, **parameters)
            looks.append({row["run_id"] for row in found.records})
            return found

    monkeypatch.setattr(run_list, "Catalogue", Noting)
    yield looks


def expected(store: Store) -> Any:
    with Catalogue(store) as catalogue:
        return catalogue.report("runs").table


def settle(store: Store) -> None:
    """Age all folders beyond the resolution of a file system's clock."""
    for path in Path(store.location).rglob("*/"):
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 3_600_000_000_000))


def check_same(store: Store) -> None:
    """Check that a new list equals the report, including types and order."""
    found = RunList(store).refresh()
    assert found.table.equals(expected(store))
    assert found.shared_cells


def test_new_schema_rereads_all_runs(store: Store, read_again: list[set[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    RunList(store).refresh()
    read_again.clear()
    monkeypatch.setattr(run_list, "SCHEMA_VERSION", run_list.SCHEMA_VERSION + 1)
    RunList(store).refresh()
    assert len(read_again.pop()) == 7


def test_list_always_equals_report(store: Store, read_again: list[set[str]]) -> None:
    check_same(store)
    assert len(read_again.pop()) == 7
    check_same(store)
    assert not read_again, "all are cached"
    one_run(store, "new")
    check_same(store)
    assert read_again.pop() == {"new"}
    key = CellKey("half", "babble", "em-tok-b")
    write_shard(store, key, {"a": [with_errors(1)], "b": [with_errors(1)]}, attempt=store.begin_attempt(key))
    rest(store)
    check_same(store)
    assert read_again.pop() >= {"half"}
    check_same(store)
    compact(store, "complete")
    rest(store)
    check_same(store)
    assert read_again.pop() == {"complete"}
    store.backend.remove(["runs/run_id=half/run.parquet"])
    check_same(store)
    assert not read_again
    for number in range(30):  # too many to be listed one by one
        one_run(store, f"more-{number}")
    check_same(store)
    assert len(read_again.pop()) == 30


def test_empty_store_has_empty_list(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "empty", create=True)
    check_same(store)
    check_same(store)


def test_reuse_source_change_rereads_run(store: Store, read_again: list[set[str]]) -> None:
    check_same(store)
    (before,) = (row for row in RunList(store).refresh().records if row["run_id"] == "reusing")
    assert before["reused"] == 1
    name = "scores/run_id=maker/domain=babble/method=source/seed=none/001-00000.parquet"
    store.backend.remove([name])
    rest(store)
    check_same(store)
    assert read_again[-1] == {"maker", "reusing"}


def test_fresh_write_is_not_cached(store: Store, read_again: list[set[str]]) -> None:
    one_run(store, "new")
    listed = RunList(store)
    first = listed.refresh()
    assert listed.refresh() is first
    read_again.clear()
    check_same(store)
    assert read_again == [{"new"}]


def test_unreadable_file_is_always_named(
    store: Store, read_again: list[set[str]], caplog: pytest.LogCaptureFixture
) -> None:
    check_same(store)
    name = "scores/run_id=half/domain=babble/method=source/seed=none/001-00000.parquet"
    store.backend.write(name, store.backend.read(name)[:-30])
    rest(store)
    for _ in range(2):
        caplog.clear()
        read_again.clear()
        assert RunList(store).refresh().table.num_rows == 7
        assert name in caplog.text
        assert read_again == [{"half"}]
    store.backend.write("runs/run.parquet", b"")
    caplog.clear()
    check_same(store)
    assert "runs/run.parquet: no file of the store has a path like this" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"rows": "AAAA"}',
        *(pytest.param(content, marks=pytest.mark.slow) for content in (b"{}", b'{"rows": 1}', b"[]")),
    ],
)
def test_damaged_cache_does_no_harm(
    content: bytes, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMTTA_CACHE", str(tmp_path / "cache"))
    check_same(store)
    (file,) = (tmp_path / "cache" / "runs").iterdir()
    file.write_bytes(content)
    check_same(store)
    file.unlink()
    file.mkdir()
    check_same(store)


def test_only_changed_folders_are_relisted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = RunList(store)
    runs.refresh()
    settle(store)
    assert runs.refresh().table.equals(expected(store))
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    before = runs.refresh().table
    monkeypatch.undo()
    assert [path for path in listed if path.startswith(store.location)] == []
    assert before.equals(expected(store))
    add_half(store, "newer", day=25)
    again = runs.refresh().table
    assert not again.equals(before)
    assert again.equals(expected(store))


def test_quick_changes_are_seen(store: Store) -> None:
    """A folder that has just changed is listed every time, as two changes may have the same timestamp."""
    runs = RunList(store)
    for turn in range(3):
        add_half(store, f"new-{turn}")
        assert runs.refresh().table.equals(expected(store))
        store.backend.remove([f"runs/run_id=new-{turn}/run.parquet"])
        assert runs.refresh().table.equals(expected(store))
