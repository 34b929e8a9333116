"""A notebook queries a store in one line, and gets the rows as pandas, Polars or Arrow objects."""

import subprocess
import sys
from pathlib import Path

import pandas
import polars
import pyarrow as pa
import pytest
from store_factory import begin_run, with_errors, write_shard

from emtta_core import open_store
from emtta_core.errors import EmttaError, StoreError, UsageError
from emtta_core.store import CellKey, Store

SQL = "SELECT domain, wer, created_at FROM cells INNER JOIN runs USING (run_id) WHERE method = $method"


@pytest.fixture
def store_location(location: str) -> str:
    store = Store.open(location, create=True)
    begin_run(store, "run", [("noise", "babble", "source"), ("noise", "vacuum", "source")])
    for domain, errors in (("babble", 1), ("vacuum", 2)):
        write_shard(store, CellKey("run", domain, "source"), {"a": [with_errors(errors)], "b": [with_errors(errors)]})
    return location


def test_pandas_polars_and_arrow_rows_agree(store_location: str) -> None:
    with open_store(store_location) as store:
        found = store.sql(f"{SQL} ORDER BY domain", method="source")
    assert isinstance(found.df(), pandas.DataFrame)
    assert isinstance(found.pl(), polars.DataFrame)
    assert isinstance(found.arrow(), pa.Table)
    assert list(found.df()["wer"]) == found.pl()["wer"].to_list() == found.arrow()["wer"].to_pylist() == [25.0, 50.0]
    assert str(found.df()["created_at"].dt.tz) == found.pl()["created_at"].dtype.time_zone == "UTC"


def test_report_takes_run_and_parameters(store_location: str) -> None:
    store = open_store(store_location)
    assert store.report("domains", run="run", group="noise").df().shape[0] == 2
    assert store.report("worsened", limit=3).rows == []
    assert store.report("runs").records[0]["run_id"] == "run"
    assert repr(store) == f"open_store({store_location!r})"


def test_usage_errors_are_explained(store_location: str, tmp_path: Path) -> None:
    store = open_store(store_location)
    with pytest.raises(UsageError, match="unknown run 'no'; choose from: run"):
        store.report("domains", run="no")
    with pytest.raises(UsageError, match=r"the query's \$method has no value; give one"):
        store.sql(SQL)
    with pytest.raises(UsageError, match="unknown parameter of the query, 'domain'; choose from: method"):
        store.sql(SQL, method="source", domain="babble")
    assert len(store.sql(SQL.replace("$method", "$Method"), method="source").rows) == 2  # DuckDB ignores case
    with pytest.raises(StoreError, match="there is no store at"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="a store cannot be at ''; name a folder"):
        open_store("")


def test_missing_library_names_install(store_location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_store(store_location).sql("SELECT 1 AS x")
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(EmttaError, match=r"pl\(\) needs the package polars, .*: pip install polars"):
        found.pl()
    assert found.rows == [(1,)]


def test_import_loads_no_duckdb_or_prefect() -> None:
    script = (
        "import sys, emtta_core; assert 'open_store' in dir(emtta_core); heavy = {'duckdb', 'prefect', 'torch'}; "
        "assert not heavy & set(sys.modules), 'emtta_core'; import emtta_core.adaptation, emtta_core.model; "
        "assert not {'duckdb', 'prefect'} & set(sys.modules), 'the method'"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
