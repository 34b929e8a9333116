"""An exported file gives any DuckDB client, which knows nothing of emtta, the figures that emtta gives."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from conftest import Command
from store_factory import begin_run, end_attempt, heard, write_shard

from emtta_core.errors import UsageError
from emtta_core.store import Catalogue, CellKey, Store, views
from emtta_core.store.compaction import compact
from emtta_core.store.describe import meanings
from emtta_core.store.export import export
from emtta_core.store.tables import TABLES

CLIENT = """
import json, sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
connection.execute("SET TimeZone = 'UTC'")
views = connection.execute(
    "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main' AND table_name <> 'about'"
).fetchall()
as_text = 'SELECT COLUMNS(*)::VARCHAR FROM "{}"'
rows = {name: sorted(map(repr, connection.execute(as_text.format(name)).fetchall())) for (name,) in views}
assert not {"emtta_core", "flows"} & {name.partition(".")[0] for name in sys.modules}
json.dump({"rows": rows, "about": connection.execute("SELECT store, copied FROM about").fetchall()}, sys.stdout)
"""


def fill(store: Store, run_id: str, day: int = 1) -> None:
    """Write a run with a complete cell, one with an error, and one that is missing."""
    cells = [("noise", domain, method) for domain in ("a", "b") for method in ("source", "em-tok")]
    begin_run(store, run_id, cells, created_at=datetime(2026, 1, day, tzinfo=UTC))
    for method, errors in (("source", 2), ("em-tok", 1)):
        key = CellKey(run_id, "a", method)
        write_shard(store, key, {"x": [heard(2), heard(errors)], "y": [heard(1), heard(errors)]})
        end_attempt(store, key, group="noise")
    write_shard(store, CellKey(run_id, "b", "source"), {"x": [heard(4)], "y": None})


def read(file: Path, folder: Path) -> dict[str, object]:
    """Return the rows of each view as a process sees them that is somewhere else, and has no emtta."""
    command = [sys.executable, "-I", "-c", CLIENT, str(file.absolute())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def expected(store: Store) -> dict[str, list[str]]:
    with Catalogue(store) as catalogue:
        found = {name: catalogue.query(f'SELECT COLUMNS(*)::VARCHAR FROM "{name}"').rows for name in views()}
    return {name: sorted(map(repr, rows)) for name, rows in found.items()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "quo'te [x]" / "store", create=True)
    fill(store, "first", day=1)
    fill(store, "second", day=2)
    return store


@pytest.mark.parametrize("copy", [False, True])
def test_bare_client_sees_every_view(store: Store, tmp_path: Path, copy: bool) -> None:
    compact(store, "first")
    file = tmp_path / "results.duckdb"
    done = export(store, file, copy=copy)
    rows = expected(store)
    found = read(file, tmp_path)
    assert found["about"] == [[store.location, copy]]
    assert done.left_out == (() if copy else ("edits",))
    assert found["rows"] == {name: rows[name] for name in rows if copy or name != "edits"}
    assert len(found["rows"]["utterances"]) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quo'te [x]", "results.duckdb"]


def test_copied_rows_outlive_store(store: Store, tmp_path: Path) -> None:
    rows = expected(store)
    export(store, tmp_path / "results.duckdb", copy=True)
    Path(store.location).rename(tmp_path / "gone")
    assert read(tmp_path / "results.duckdb", tmp_path)["rows"] == rows


def test_selected_runs_replace_earlier(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "results.duckdb"
    export(store, file)
    assert export(store, file, run_ids=["second"]).runs == 1
    runs = read(file, tmp_path)["rows"]["runs"]
    assert len(runs) == 1
    assert "'second'" in runs[0]


def test_later_run_appears_next_time(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "results.duckdb"
    export(store, file)
    fill(store, "third", day=3)
    assert len(read(file, tmp_path)["rows"]["runs"]) == 2
    export(store, file)
    assert len(read(file, tmp_path)["rows"]["runs"]) == 3


@pytest.mark.parametrize("copy", [False, True])
def test_empty_store_gives_empty_views(tmp_path: Path, copy: bool) -> None:
    export(Store.open(tmp_path / "store", create=True), tmp_path / "x.duckdb", copy=copy)
    rows = read(tmp_path / "x.duckdb", tmp_path)["rows"]
    assert {name for name, found in rows.items() if found} == {"methods", "paper"}


@pytest.mark.parametrize("copy", [False, True])
def test_damaged_file_loses_only_its_rows(store: Store, tmp_path: Path, copy: bool) -> None:
    name = "scores/run_id=first/domain=a/method=source/seed=none/001-00000.parquet"
    content = store.backend.read(name)
    length = int.from_bytes(content[-8:-4], "little")
    store.backend.write(name, content[: -8 - length] + bytes([0xFF] * length) + content[-8:])
    export(store, tmp_path / "x.duckdb", copy=copy)
    assert len(read(tmp_path / "x.duckdb", tmp_path)["rows"]["utterances"]) == 10


def test_bucket_is_exported_with_rows(s3: object, tmp_path: Path) -> None:
    store = Store.open(f"s3://{s3.bucket()}/store", create=True)
    fill(store, "run")
    with pytest.raises(UsageError, match=r"is in a bucket, .*; add --copy"):
        export(store, tmp_path / "x.duckdb")
    export(store, tmp_path / "x.duckdb", copy=True)
    assert read(tmp_path / "x.duckdb", tmp_path)["rows"] == expected(store)


def test_comments_are_written(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path / "x.duckdb")
    with duckdb.connect(str(tmp_path / "x.duckdb"), read_only=True) as connection:
        said = connection.execute(
            "SELECT schema_name || '.' || table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
        (about,) = connection.execute(
            "SELECT comment FROM duckdb_views() WHERE schema_name = 'main' AND view_name = 'cells'"
        ).fetchone()
    columns = {(table, column): meaning for table, column, meaning in said}
    for view in views().values():
        assert view.name == "edits" or all(
            columns[f"main.{view.name}", name] == view.columns[name] for name in view.columns
        )
    assert columns["raw.steps", "entropy"] == meanings(TABLES["steps"])["entropy"]
    assert about.endswith("Grain: one row per planned cell (run, domain, method, seed).")


def test_command_refuses_to_spoil(store: Store, tmp_path: Path, emtta: Command) -> None:
    other = tmp_path / "other.duckdb"
    other.write_text("mine")
    for file, words in (
        (other, "is there, and is no earlier export; remove it, or name another file"),
        (tmp_path / "no" / "folder.duckdb", "there is no folder"),
    ):
        outcome = emtta("catalog", "export", file, "--store", store.location)
        assert outcome.code == 2
        assert words in outcome.err
    assert other.read_text() == "mine"
    unknown = emtta("catalog", "export", tmp_path / "x.duckdb", "--run", "third", "--store", store.location)
    assert (unknown.code, "unknown run 'third'; choose from: first, second" in unknown.err) == (2, True)
    done = emtta("catalog", "export", tmp_path / "x.duckdb", "--store", store.location)
    assert done.code == 0
    assert "2 runs" in done.err
    assert "left out, needing emtta's own functions: edits" in done.err
    assert "emtta catalog export" in emtta("catalog", "export", "--help").out.split("Examples")[1]
