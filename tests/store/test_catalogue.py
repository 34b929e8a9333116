"""SQL queries read a store in any state, and change nothing in it."""

import logging
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import new_location
from store_factory import begin_run, with_errors, write_shard

from emtta_core.errors import EmttaError, StoreError, UsageError
from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.store import Catalogue, CellKey, Store, reports, views
from emtta_core.store.compaction import compact
from emtta_core.store.parquet import parquet
from emtta_core.store.schema import VERSION_KEY
from emtta_core.store.tables import TABLES


def one_run(store: Store, run_id: str, errors: int = 1) -> None:
    begin_run(store, run_id, [("noise", "babble", "source")])
    write_shard(store, CellKey(run_id, "babble", "source"), {"a": [with_errors(errors)], "b": [with_errors(errors)]})


def files(store: Store, folder: str) -> list[str]:
    """The names of the Parquet files below a folder of the store."""
    return [entry.name for entry in store.backend.list(folder) if entry.name.endswith(".parquet")]


SLOW = pytest.mark.slow


def each_table(first: object, second: object) -> pytest.MarkDecorator:
    """Try both kinds of damage on every table; all cases are slow but one on a sharded table and one on `runs`."""
    quick = [("hypotheses", first), ("runs", second)]
    others = [(table, kind) for table in ("hypotheses", "runs", "steps", "scores", "plans") for kind in (first, second)]
    slow = [pytest.param(*case, marks=SLOW) for case in others if case not in quick]
    return pytest.mark.parametrize(("table", "damage"), [*quick, *slow])


@pytest.fixture(scope="module", params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(new_location(request, tmp_path_factory.mktemp("place")), create=True)
    one_run(store, "run")
    return store


@pytest.fixture(scope="module")
def catalogue(store: Store) -> Catalogue:
    return Catalogue(store)


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """A run whose rows are in memory, which makes reports fast."""
    store = Store.open(tmp_path_factory.mktemp("cached"), create=True)
    one_run(store, "run")
    catalogue = Catalogue(store)
    catalogue.cache_rows()
    return catalogue


@pytest.mark.parametrize("damage", [b"", b"no database of views", None])
def test_views_cache_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None) -> None:
    """Views are bound once and cached; a damaged cache is rebuilt, and one that cannot be written is ignored."""
    empty, folder = Store.open(tmp_path / "store", create=True), tmp_path / "cache"
    monkeypatch.setenv("EMTTA_CACHE", str(folder) if damage is not None else "/proc/nowhere")
    shown = []
    for _ in range(3):
        with Catalogue(empty) as catalogue:
            columns = "table_catalog, table_schema, table_name"
            shown.append(catalogue.query(f"SELECT {columns} FROM information_schema.tables ORDER BY ALL").rows)
            assert catalogue.query("FROM cells").rows == []
        if damage is not None:
            (file,) = (folder / "views").iterdir()
            bound = file.read_bytes()
            assert bound != damage
            file.write_bytes(damage)
    assert shown[1:] == shown[:1] * 2
    assert ("memory", "main", "cells") in shown[0]


def test_empty_store_answers_every_query(tmp_path: Path, cached: Catalogue) -> None:
    empty = Catalogue(Store.open(tmp_path, create=True))
    for name in views():
        rows = empty.query(f'SELECT * FROM "{name}"').rows
        assert rows == [] or name in {"methods", "paper"}  # whose rows are in the SQL itself
    for table in TABLES.values():
        found = empty.query(f"SELECT * FROM raw.{table.name}")
        assert found.rows == []
        assert set(found.columns) == {*table.schema.names, *(table.keys or ("corpus_id",))}
    empty.cache_rows()
    for name in reports():
        assert empty.report(name).rows == []
        if name not in ("methods", "matrix"):  # with a column for each group or method of the run
            assert empty.report(name).table.schema == cached.report(name).table.schema


def test_column_types_do_not_need_files(tmp_path: Path, cached: Catalogue) -> None:
    with Catalogue(Store.open(tmp_path, create=True)) as empty, Catalogue(cached.store) as full:
        for name in views():
            sql = f'DESCRIBE SELECT * FROM "{name}"'
            assert empty.query(sql).rows == full.query(sql).rows


def test_view_header_names_all_columns(cached: Catalogue) -> None:
    for view in views().values():
        head = "\n".join(line for line in view.sql.splitlines() if line.startswith("--"))
        assert "-- grain: " in head
        for column in cached.query(f'SELECT * FROM "{view.name}" LIMIT 0').columns:
            assert column in head.replace(",", " ").replace('"', " ").split(), f"{view.name}.{column}"


def test_report_header_names_all_columns(cached: Catalogue) -> None:
    for report in reports().values():
        head = "\n".join(line for line in report.sql.splitlines() if line.startswith("--"))
        named_by_the_run = {"methods": {"noise"}, "matrix": {"source"}}.get(report.name, set())
        for column in set(cached.report(report.name).columns) - named_by_the_run:
            assert column in head.replace(",", " ").split(), f"{report.name}.{column}"


@pytest.mark.parametrize("names", [("20261123", "007"), ("1e5", "true"), ("2026-11-23", "nan")])
def test_numeric_names_stay_text(names: tuple[str, str], usual_location: str) -> None:
    run_id, domain = names
    store = Store.open(usual_location, create=True)
    begin_run(store, run_id, [("noise", domain, "source")])
    write_shard(store, CellKey(run_id, domain, "source"), {"a": [with_errors(1)], "b": [with_errors(1)]})
    catalogue = Catalogue(store)
    assert catalogue.query("SELECT run_id, domain, wer FROM cells").rows == [(run_id, domain, 25.0)]
    assert catalogue.report("leaderboard", run_id).records[0]["wer"] == 25.0


@pytest.mark.parametrize("name", ["plain", "with space", "quo'te", "b[ra]ck*et?", "ü日本"])
def test_store_works_in_any_folder(name: str, tmp_path: Path) -> None:
    store = Store.open(tmp_path / name / "store", create=True)
    one_run(store, "run")
    assert Catalogue(store).query("SELECT wer FROM cells").rows == [(25.0,)]
    store.backend.write("runs/run_id=other/run.parquet", b"PAR1")
    assert Catalogue(store).query("SELECT run_id, state FROM runs").rows == [("run", "complete")]


@each_table(300, 0)
def test_broken_run_does_not_affect_others(
    table: str, damage: int, usual_location: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store.open(usual_location, create=True)
    one_run(store, "good")
    one_run(store, "bad")
    (name,) = files(store, f"{table}/run_id=bad")
    store.backend.write(name, store.backend.read(name)[:damage])
    with caplog.at_level(logging.WARNING, logger="emtta.store"):
        catalogue = Catalogue(store)
    assert [file.name for file in catalogue.broken] == [name]
    assert store.backend.url(name) in caplog.text
    assert catalogue.query("SELECT state, done, wer FROM cells WHERE run_id = 'good'").rows == [("complete", 2, 25.0)]
    catalogue.cache_rows()
    for report in reports().values():
        catalogue.report(report.name, "good" if "run_id" in report.parameters else None)


def footer_damaged(content: bytes) -> bytes:
    """A Parquet file whose footer has the right place and length, but no valid content."""
    length = int.from_bytes(content[-8:-4], "little")
    return content[: -8 - length] + bytes([0xFF] * length) + content[-8:]


def data_damaged(content: bytes) -> bytes:
    """A Parquet file with an intact footer and damaged columns."""
    length = int.from_bytes(content[-8:-4], "little")
    return content[:4] + bytes([0xFF] * (len(content) - 12 - length)) + content[-8 - length :]


@each_table(data_damaged, footer_damaged)
@pytest.mark.parametrize("names", [("good", "worse"), pytest.param(("good", "bad"), marks=SLOW)])  # last, or first
def test_damaged_file_loses_only_its_rows(
    table: str,
    damage: Callable[[bytes], bytes],
    names: tuple[str, str],
    usual_location: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, bad = names
    store = Store.open(usual_location, create=True)
    one_run(store, good)
    one_run(store, bad)
    (name,) = files(store, f"{table}/run_id={bad}")
    store.backend.write(name, damage(store.backend.read(name)))
    with caplog.at_level(logging.WARNING, logger="emtta.store"):
        catalogue = Catalogue(store)
        rows = catalogue.query("SELECT state, done, wer FROM cells WHERE run_id = $run", {"run": good}).rows
        catalogue.cache_rows()  # reads the broken file even if the query did not
        for report in reports().values():
            catalogue.report(report.name, good if "run_id" in report.parameters else None)
        assert catalogue.query(f"SELECT * FROM raw.{table}").rows
    assert rows == [("complete", 2, 25.0)]
    assert [file.name for file in catalogue.broken] == [name]
    assert caplog.text.count(store.backend.url(name)) == 1


def test_late_damage_breaks_no_query(location: str) -> None:
    store = Store.open(location, create=True)
    one_run(store, "good")
    one_run(store, "bad")
    catalogue = Catalogue(store)
    (name,) = files(store, "scores/run_id=bad")
    store.backend.write(name, data_damaged(store.backend.read(name)))
    assert catalogue.query("SELECT run_id, wer FROM cells ORDER BY run_id").rows == [("bad", None), ("good", 25.0)]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", "the query cannot be parsed: syntax error"),
        ("SELECT no_such_column FROM cells", 'the query failed: .*"no_such_column" not found'),
        ("SELECT domain::INT FROM cells", "the query failed: .*Could not convert string 'babble'"),
    ],
)
def test_invalid_sql_reads_no_file(
    sql: str, message: str, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emtta_core.store.catalogue.scan", lambda *_: pytest.fail("a file was read"))
    with pytest.raises(EmttaError, match=message):
        catalogue.query(sql)


def test_rows_of_other_release_are_skipped(location: str, caplog: pytest.LogCaptureFixture) -> None:
    store = Store.open(location, create=True)
    one_run(store, "run")
    key = CellKey("run", "babble", "source")
    write_shard(store, key, {"a": [with_errors(4)], "b": [with_errors(4)]}, attempt=2)
    newer = [name for table in ("hypotheses", "scores") for name in files(store, table) if "/002-" in name]
    for name in newer:
        rows = pq.read_table(pa.BufferReader(store.backend.read(name)))
        metadata = {**rows.schema.metadata, VERSION_KEY: b"999"}
        store.backend.write(name, parquet(rows.replace_schema_metadata(metadata)))
    with caplog.at_level(logging.WARNING, logger="emtta.store"):
        catalogue = Catalogue(store)
    assert "its schema has version 999" in caplog.text
    assert [file.name for file in catalogue.broken] == newer
    assert catalogue.query("SELECT wer FROM cells").rows == [(25.0,)]
    with pytest.raises(StoreError, match="its schema has version 999, but this release reads"):
        store.done(key, "babble.source")  # otherwise, finished work would be repeated


def test_later_writes_are_seen(location: str) -> None:
    store = Store.open(location, create=True)
    one_run(store, "first")
    catalogue = Catalogue(store)
    one_run(store, "second", errors=2)
    assert catalogue.query("SELECT run_id, wer FROM cells ORDER BY run_id").rows == [("first", 25.0), ("second", 50.0)]


def test_parameters_are_bound(catalogue: Catalogue) -> None:
    assert catalogue.query("SELECT $a || 'x' AS y", {"a": "'; --"}).rows == [("'; --x",)]
    assert catalogue.query("SELECT ? + 1 AS y", [1]).records == [{"y": 2}]


def test_sql_error_quotes_duckdb(catalogue: Catalogue) -> None:
    with pytest.raises(EmttaError, match="syntax error at or near"):
        catalogue.query("SELEC 1")
    with pytest.raises(EmttaError, match="no_such_table does not exist"):
        catalogue.query("SELECT * FROM no_such_table")
    with pytest.raises(EmttaError, match="no_such_column"):
        catalogue.query("SELECT no_such_column FROM cells")
    assert catalogue.query("SELECT 1 AS x").rows == [(1,)], "the catalogue goes on after a mistake"


def test_python_variables_are_invisible(catalogue: Catalogue) -> None:
    secret = pa.table({"x": [1]})
    with pytest.raises(EmttaError, match="secret does not exist"):
        catalogue.query("SELECT * FROM secret")
    assert secret.num_rows == 1


def test_unknown_name_lists_known(catalogue: Catalogue) -> None:
    with pytest.raises(
        UsageError, match=r"unknown report 'x'; choose from: between, coverage, domains, errors, failures, flags"
    ):
        catalogue.report("x")
    with pytest.raises(UsageError, match=r"unknown run 'x'; choose from: run"):
        catalogue.report("leaderboard", "x")
    with pytest.raises(UsageError, match=r"unknown parameter .* 'colour'; choose from: group, method, run_id"):
        catalogue.report("domains", colour="red")
    with pytest.raises(UsageError, match="the report runs covers all runs of the store; leave out run 'run'"):
        catalogue.report("runs", "run")


def test_cached_rows_match_files(usual_location: str) -> None:
    store = Store.open(usual_location, create=True)
    begin_run(store, "run", [("noise", "babble", "source")])
    key = CellKey("run", "babble", "source")
    write_shard(store, key, {"a": [with_errors(1)]})
    with Catalogue(store, runs=["run"]) as catalogue:
        before = {name: catalogue.query(f'FROM "{name}" ORDER BY ALL').rows for name in views()}
        catalogue.cache_rows()
        write_shard(store, key, {"b": [with_errors(1)]}, attempt=2)
        for file in store.backend.list("scores"):
            store.backend.remove([file.name])
        assert before["utterances"]
        for name, rows in before.items():
            assert catalogue.query(f'FROM "{name}" ORDER BY ALL').rows == rows, name
        with pytest.raises(EmttaError, match=r"the query failed: .*nowhere"):
            catalogue.query("FROM nowhere")


def test_recaching_reads_changed_files(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    begin_run(store, "run", [("noise", "babble", "source"), ("noise", "babble", "em-tok")], utterances=2)
    for method in ("source", "em-tok"):
        write_shard(store, CellKey("run", "babble", method), {"a": [with_errors(1)], "b": [with_errors(2)]})
    with Catalogue(store, runs=["run"]) as catalogue:
        for change in (
            lambda: None,
            lambda: update_statistics(store, "run"),
            lambda: write_shard(store, CellKey("run", "babble", "em-tok"), {"b": [with_errors(0)]}, attempt=2),
            lambda: compact(store, "run"),
        ):
            change()
            catalogue.cache_rows()
            with Catalogue(store, runs=["run"]) as fresh:
                fresh.cache_rows()
                for name in ("utterances", "steps", "cells", "groups", "statistics", "best"):
                    query = f'FROM "{name}" ORDER BY ALL'
                    assert catalogue.query(query).rows == fresh.query(query).rows, name
    assert Catalogue(store).query("FROM statistics").rows


def test_cache_skips_damaged_files(location: str) -> None:
    store = Store.open(location, create=True)
    begin_run(store, "run", [("noise", domain, "source") for domain in ("babble", "vacuum")])
    for domain in ("babble", "vacuum"):
        write_shard(store, CellKey("run", domain, "source"), {"a": [with_errors(1)]})
    name = "scores/run_id=run/domain=babble/method=source/seed=none/001-00000.parquet"
    store.backend.write(name, data_damaged(store.backend.read(name)))
    with Catalogue(store, runs=["run"]) as catalogue:
        catalogue.cache_rows()
        assert catalogue.query("SELECT domain, words IS NULL FROM utterances ORDER BY ALL").rows == [("vacuum", False)]
        assert [file.name for file in catalogue.broken] == [name]


def test_only_requested_tables_have_rows(store: Store) -> None:
    begin_run(store, "run", [("noise", "rain", "source")])
    write_shard(store, CellKey("run", "rain", "source"), {"u0": [with_errors(1)]})
    with Catalogue(store, tables=("runs", "plans")) as catalogue:
        counts = [catalogue.query(f"SELECT count(*) FROM raw.{name}").rows for name in ("runs", "plans", "hypotheses")]
    assert counts == [[(1,)], [(1,)], [(0,)]]
