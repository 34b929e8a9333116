"""No query writes to the store, or reads anything outside it."""

import hashlib
from pathlib import Path

import pytest
from conftest import new_location
from s3_server import S3Server
from store_factory import begin_run, with_errors, write_shard

from emtta_core.errors import EmttaError, UsageError
from emtta_core.store import Catalogue, CellKey, Store
from emtta_core.store.tables import TABLES


@pytest.fixture(scope="module", params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(new_location(request, tmp_path_factory.mktemp("place")), create=True)
    begin_run(store, "run", [("noise", "babble", "source")])
    write_shard(store, CellKey("run", "babble", "source"), {"a": [with_errors(1)], "b": [with_errors(1)]})
    return store


@pytest.fixture(scope="module")
def catalogue(store: Store) -> Catalogue:
    return Catalogue(store)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("outside") / "store", create=True)


def content(store: Store) -> dict[str, str]:
    """A digest of every file of a store."""
    names = [entry.name for table in TABLES for entry in store.backend.list(table)]
    return {name: hashlib.sha256(store.backend.read(name)).hexdigest() for name in names}


WRITES = [
    "COPY (SELECT 1) TO '{store}/x.csv'",
    "COPY (SELECT 1) TO '{store}' (FORMAT parquet, PARTITION_BY (x))",
    "WITH x AS (COPY (SELECT 1) TO '{store}/x.csv') SELECT * FROM x",
    "SELECT * FROM (WITH x AS (COPY (SELECT 1) TO '{store}/x.csv') SELECT * FROM x)",
    "SELECT 1 WHERE EXISTS (WITH x AS (COPY (SELECT 1) TO '{store}/x.csv') SELECT * FROM x)",
    "WITH RECURSIVE y AS (SELECT 1 UNION ALL (WITH x AS (COPY (SELECT 1) TO '{store}/x.csv') SELECT 2)) FROM y",
    "FROM query('SELECT 1')",
    "SELECT 1; COPY (SELECT 1) TO '{store}/x.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{store}/x.csv'",
    "EXPORT DATABASE '{store}/x'",
    "IMPORT DATABASE '{store}/x'",
    "ATTACH '{store}/x.duckdb'",
    "DETACH memory",
    "USE memory",
    "CREATE TABLE x AS SELECT 1",
    "CREATE OR REPLACE VIEW cells AS SELECT 1",
    "CREATE MACRO cells() AS 1",
    "CREATE SECRET x (TYPE s3)",
    "ALTER VIEW cells RENAME TO x",
    "COMMENT ON VIEW cells IS 'x'",
    "DROP VIEW cells",
    "INSERT INTO cells VALUES (1)",
    "DELETE FROM cells",
    "SET enable_external_access = true",
    "SET VARIABLE files_of_scores = ['/etc/passwd']",
    "RESET lock_configuration",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{store}/x'",
    "PRAGMA enable_profiling",
    "CALL pragma_version()",
    "CALL enable_logging(storage = 'file')",
    "FROM enable_logging(storage = 'file', storage_path = '{store}/log')",
    "FROM enable_profiling(save_location = '{store}/x.json')",
    "FROM checkpoint()",
    "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT write_log('x')",
    "PREPARE x AS SELECT 1",
    "BEGIN",
    "CHECKPOINT",
    "VACUUM",
]


@pytest.mark.parametrize("sql", WRITES)
def test_queries_never_write(sql: str, catalogue: Catalogue, store: Store) -> None:
    before = content(store)
    with pytest.raises(UsageError, match=r"cannot write to the store|cannot be used here"):
        catalogue.query(sql.replace("{store}", store.location))
    assert content(store) == before
    assert catalogue.query("SELECT count(*) FROM cells").rows == [(1,)]


@pytest.mark.parametrize(
    "source",
    [
        "'{outside}'",
        "'{store}/../{name}'",
        "'{store}/link.csv'",
        "'/etc/passwd.csv'",
        "'file:///etc/passwd.csv'",
        "read_parquet('{outside}')",
        "read_parquet('{folder}/*')",
        "read_parquet(['{store}/../{name}'])",
        "(SELECT * FROM parquet_metadata('{outside}'))",
        "parquet_schema('/etc/passwd')",
        "read_parquet('http://127.0.0.1:9/x.parquet')",
        "'https://example.org/x.parquet'",
        "'s3://bucket/x.parquet'",
    ],
)
def test_queries_open_no_outside_file(source: str, folder: Store) -> None:
    outside = Path(folder.location).parent / "secret.csv"
    outside.write_text("a\n1\n")
    link = Path(folder.location) / "link.csv"
    if not link.is_symlink():
        link.symlink_to(outside)
    asked = source.format(outside=outside, folder=outside.parent, store=folder.location, name=outside.name)
    with pytest.raises(EmttaError, match="disabled by configuration"):
        Catalogue(folder).query(f"SELECT * FROM {asked}")


@pytest.mark.parametrize(
    "source",
    [
        *("read_text('/etc/passwd')", "read_blob('/etc/passwd')", "read_csv('/etc/passwd')", "read_json('/etc/x')"),
        *("system.main.read_text('/etc/passwd')", "READ_TEXT('/etc/passwd')", "\"read_text\"('/etc/passwd')"),
        *("sniff_csv('/etc/passwd')", "glob('/etc/*')", "read_duckdb('/etc/x')", "query_table('cells')"),
        *("duckdb_secrets()", "duckdb_logs()", "which_secret('s3://x', 's3')", "arrow_scan(1, 2, 3)"),
    ],
)
@pytest.mark.parametrize(
    "where", ["SELECT * FROM {}", "SELECT (SELECT count(*) FROM {})", "FROM cells, LATERAL (FROM {})"]
)
def test_other_read_functions_are_refused(source: str, where: str, folder: Store) -> None:
    with pytest.raises(UsageError, match=r"cannot be used here; FROM accepts .*read_parquet"):
        Catalogue(folder).query(where.format(source))


def test_bucket_exposes_no_other_object(s3: S3Server) -> None:
    bucket = s3.bucket()
    store = Store.open(f"s3://{bucket}/mine", create=True)
    begin_run(store, "run", [("noise", "babble", "source")])
    other = Store.open(f"s3://{bucket}/other", create=True)
    begin_run(other, "run", [("noise", "babble", "source")])
    mine, theirs = (f"{location}/runs/run_id=run/run.parquet" for location in (store.location, other.location))
    catalogue = Catalogue(store)
    assert len(catalogue.query(f"SELECT suite FROM '{mine}'").rows) == 1
    with pytest.raises(EmttaError, match="disabled by configuration"):
        catalogue.query(f"SELECT suite FROM '{theirs}'")


def test_queries_cannot_see_environment(folder: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMTTA_SECRET", "hidden")
    with pytest.raises(EmttaError, match="getenv does not exist"):
        Catalogue(folder).query("SELECT getenv('EMTTA_SECRET')")


def test_spill_avoids_working_directory(folder: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.location)
    (place,) = Catalogue(folder).query("SELECT current_setting('temp_directory')").rows[0]
    assert Path(place).is_absolute()
    assert Path(folder.location) not in Path(place).parents


@pytest.mark.parametrize(
    "sql",
    [
        "DESCRIBE cells",
        "SHOW TABLES",
        "SUMMARIZE cells",
        "VALUES (1)",
        "FROM range(3)",
        "FROM unnest([1, 2])",
        "FROM duckdb_functions()",
        "PIVOT cells ON method IN ('source') USING max(wer)",
        "WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM a WHERE x < 3) FROM a",
    ],
)
def test_read_only_queries_are_answered(sql: str, folder: Store) -> None:
    assert Catalogue(folder).query(sql).columns
