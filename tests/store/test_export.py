"""Any DuckDB client, without emtta, reads from an exported file the figures that emtta shows."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from conftest import Command
from store_factory import begin_run, end_attempt, with_errors, write_shard

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
    """Write a run with complete cells, one with an error, and a missing one."""
    cells = [("noise", domain, method) for domain in ("a", "b") for method in ("source", "em-tok")]
    begin_run(store, run_id, cells, created_at=datetime(2026, 1, day, tzinfo=UTC))
    for method, errors in (("source", 2), ("em-tok", 1)):
        key = CellKey(run_id, "a", method)
        write_shard(
            store, key, {"x": [with_errors(2), with_errors(errors)], "y": [with_errors(1), with_errors(errors)]}
        )
        end_attempt(store, key, group="noise")
    write_shard(store, CellKey(run_id, "b", "source"), {"x": [with_errors(4)], "y": None})


def read(file: Path, folder: Path) -> dict[str, object]:
    """The rows of each view, as read by a process in another folder, without emtta."""
    command = [sys.executable, "-I", "-c", CLIENT, str(file.absolute())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ask(file: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(file), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def expected(store: Store) -> dict[str, list[str]]:
    with Catalogue(store) as catalogue:
        catalogue.cache_rows()
        found = {name: catalogue.query(f'SELECT COLUMNS(*)::VARCHAR FROM "{name}"').rows for name in views()}
    return {name: sorted(map(repr, rows)) for name, rows in found.items()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two runs, the first of them compacted."""
    store = Store.open(tmp_path_factory.mktemp("export") / "quo'te [x]" / "store", create=True)
    fill(store, "first", day=1)
    fill(store, "second", day=2)
    compact(store, "first")
    return store


@pytest.fixture(scope="module")
def rows(store: Store) -> dict[str, list[str]]:
    """The rows of each view of `store`, as emtta returns them."""
    return expected(store)


@pytest.fixture
def own(store: Store, tmp_path: Path) -> Store:
    """A copy of `store` that a test may change."""
    return Store.open(shutil.copytree(store.location, tmp_path / "quo'te [x]" / "own"))


def test_bare_client_sees_every_view(store: Store, rows: dict[str, list[str]], tmp_path: Path) -> None:
    file = tmp_path / "results.duckdb"
    done = export(store, file)
    found = read(file, tmp_path)
    assert found["about"] == [[store.location, False]]
    assert done.left_out == ("edits",)
    assert found["rows"] == {name: rows[name] for name in rows if name != "edits"}
    assert len(found["rows"]["utterances"]) == 12
    assert [path.name for path in tmp_path.iterdir()] == ["results.duckdb"]


def test_copied_rows_outlive_store(own: Store, rows: dict[str, list[str]], tmp_path: Path) -> None:
    file = tmp_path / "results.duckdb"
    done = export(own, file, copy=True)
    Path(own.location).rename(tmp_path / "gone")
    found = read(file, tmp_path)
    assert (found["about"], done.left_out) == ([[own.location, True]], ())
    assert found["rows"] == rows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone", "quo'te [x]", "results.duckdb"]


def test_selected_runs_replace_earlier_export(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "results.duckdb"
    export(store, file)
    assert export(store, file, run_ids=["second"]).runs == 1
    assert ask(file, "SELECT run_id FROM runs") == [("second",)]


def test_next_export_includes_new_run(own: Store, tmp_path: Path) -> None:
    file = tmp_path / "results.duckdb"
    export(own, file)
    fill(own, "third", day=3)
    assert len(ask(file, "FROM runs")) == 2
    export(own, file)
    assert len(ask(file, "FROM runs")) == 3


@pytest.mark.parametrize("copy", [False, True])
def test_empty_store_has_empty_views(tmp_path: Path, copy: bool) -> None:
    export(Store.open(tmp_path / "store", create=True), tmp_path / "x.duckdb", copy=copy)
    with duckdb.connect(str(tmp_path / "x.duckdb"), read_only=True) as connection:
        counts = {
            name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()
            for name in views()
            if copy or name != "edits"
        }
    assert {name for name, count in counts.items() if count != (0,)} == {"methods", "paper"}


@pytest.mark.parametrize("copy", [False, True])
def test_damaged_file_loses_only_its_rows(own: Store, tmp_path: Path, copy: bool) -> None:
    name = "scores/run_id=second/domain=a/method=source/seed=none/001-00000.parquet"
    content = own.backend.read(name)
    length = int.from_bytes(content[-8:-4], "little")
    own.backend.write(name, content[: -8 - length] + bytes([0xFF] * length) + content[-8:])
    export(own, tmp_path / "x.duckdb", copy=copy)
    assert len(ask(tmp_path / "x.duckdb", "FROM utterances")) == 10


def test_bucket_export_needs_copy(s3: object, tmp_path: Path) -> None:
    store = Store.open(f"s3://{s3.bucket()}/store", create=True)
    fill(store, "run")
    with pytest.raises(UsageError, match=r"is in a bucket, .*; add --copy"):
        export(store, tmp_path / "x.duckdb")
    export(store, tmp_path / "x.duckdb", copy=True)
    assert read(tmp_path / "x.duckdb", tmp_path)["rows"] == expected(store)


def test_export_has_column_comments(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path / "x.duckdb")
    with duckdb.connect(str(tmp_path / "x.duckdb"), read_only=True) as connection:
        comments = connection.execute(
            "SELECT schema_name || '.' || table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
        (about,) = connection.execute(
            "SELECT comment FROM duckdb_views() WHERE schema_name = 'main' AND view_name = 'cells'"
        ).fetchone()
    columns = {(table, column): meaning for table, column, meaning in comments}
    for view in views().values():
        assert view.name == "edits" or all(
            columns[f"main.{view.name}", name] == view.columns[name] for name in view.columns
        )
    assert columns["raw.steps", "entropy"] == meanings(TABLES["steps"])["entropy"]
    assert about.endswith("Grain: one row per planned cell (run, domain, method, seed).")


def test_command_overwrites_only_exports(store: Store, tmp_path: Path, emtta: Command) -> None:
    other = tmp_path / "other.duckdb"
    other.write_text("mine")
    for file, words in (
        (other, "exists and is not an earlier export; remove it, or name another file"),
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
    assert "left out, as they need emtta's functions: edits" in done.err
    assert "emtta catalog export" in emtta("catalog", "export", "--help").out.split("Examples")[1]
