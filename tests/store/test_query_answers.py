"""Query results support every DuckDB type in every format, within limits; a refused query gets a hint."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Command
from store_factory import one_run

from emtta_core.errors import EmttaError, UsageError
from emtta_core.report.view_server import Viewer
from emtta_core.store import Catalogue, Store
from emtta_core.store.parquet import parquet
from emtta_core.store.queries import Limits, parse_size

HUGE = 2**127 - 1
YEAR_29000 = 852_984_432_000_000_000
"""Microseconds since 1970."""
VALUES: dict[str, tuple[str, Any]] = {
    "interval": ("INTERVAL '1 day 2 hours'", "1 day 02:00:00"),
    "interval in a list": ("[INTERVAL 3 months, NULL]", ["3 months", None]),
    "interval in a struct": ("{'took': INTERVAL '90 seconds'}", {"took": "00:01:30"}),
    "map": ("MAP {'a': 1, 'b': NULL}", {"a": 1, "b": None}),
    "map of numbers to intervals": ("MAP {7: INTERVAL 1 day}", {7: "1 day"}),
    "map with nested keys": ("MAP {[1, 2]: 'x'}", {"[1, 2]": "x"}),
    "empty map": ("MAP {}", {}),
    "struct": ("{'a': 1, 'b': [1, 2]}", {"a": 1, "b": [1, 2]}),
    "unnamed struct": ("ROW(1, 'x')", "(1, x)"),
    "list of lists": ("[[1], [], NULL]", [[1], [], None]),
    "array": ("array_value(1, 2, 3)", [1, 2, 3]),
    "union": ("union_value(n := 2)", "2"),
    "list of unions": ("[union_value(t := 'x')]", ["x"]),
    "enum": ("'a'::ENUM('a', 'b')", "a"),
    "blob": (r"'\xAA\x00'::BLOB", b"\xaa\x00"),
    "bit": ("'0101'::BIT", "0101"),
    "uuid": ("'8709f0e2-339f-4769-9636-1aaa0980e2e5'::UUID", "8709f0e2-339f-4769-9636-1aaa0980e2e5"),
    "hugeint": (f"{HUGE}::HUGEINT", Decimal(HUGE)),
    "uhugeint": (f"{2**128 - 1}::UHUGEINT", str(2**128 - 1)),
    "bignum": (f"'{10**50}'::BIGNUM", str(10**50)),
    "decimal": ("1.23::DECIMAL(10, 3)", Decimal("1.230")),
    "long decimal": (f"{10**28 + 1}.5::DECIMAL(38, 1)", Decimal(f"{10**28 + 1}.5")),
    "boolean": ("true", True),
    "json": ("""'{"a": 1}'::JSON""", '{"a": 1}'),
    "variant": ("[1]::VARIANT", "[1]"),
    "time": ("TIME '01:02:03.5'", time(1, 2, 3, 500_000)),
    "time with zone": ("'01:02:03+02'::TIMETZ", "01:02:03+02"),
    "date": ("DATE '2026-11-23'", date(2026, 11, 23)),
    "timestamp": ("TIMESTAMP '2026-11-23 01:02:03'", datetime(2026, 11, 23, 1, 2, 3)),
    "timestamp with zone": ("TIMESTAMPTZ '2026-11-23 01:02:03+02'", datetime(2026, 11, 22, 23, 2, 3, tzinfo=UTC)),
    "nanoseconds": ("'2026-11-23 01:02:03.123456789'::TIMESTAMP_NS", "2026-11-23 01:02:03.123456789"),
    "infinite date": ("DATE 'infinity'", "infinity"),
    "date after 9999": ("TIMESTAMP '29000-01-01'", "29000-01-01 00:00:00"),
    "date before the year 1": ("[DATE '0044-03-15 (BC)']", ["0044-03-15 (BC)"]),
    "null": ("NULL", None),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(tmp_path_factory.mktemp("answers") / "store", create=True)
    one_run(store, "run")
    return store


@pytest.fixture(scope="module")
def catalogue(store: Store) -> Iterator[Catalogue]:
    with Catalogue(store) as catalogue:
        yield catalogue


def plain(value: Any) -> Any:
    """The JSON form of a value."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):
        exact = int(value) if value == int(value) else float(value)
        return exact if Decimal(repr(exact)) == value else str(value)
    return value.isoformat() if isinstance(value, date | datetime | time) else value


def in_csv(value: Any) -> str:
    """A plain value as a CSV field: text unchanged, everything else as JSON."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("kind", VALUES)
def test_every_type_fits_every_format(kind: str, catalogue: Catalogue) -> None:
    sql, expected = VALUES[kind]
    found = catalogue.query(f"SELECT {sql} AS x, 1 AS y")
    assert found.rows == [(expected, 1)]
    assert json.loads(found.json()) == [{"x": plain(expected), "y": 1}]
    ((text, _),) = list(csv.reader(io.StringIO(found.csv())))[1:]
    assert text == in_csv(plain(expected))
    for form in (found.markdown(), found.latex()):
        assert "Decimal(" not in form
        assert "datetime" not in form
        assert "MonthDayNano" not in form
        assert "b'" not in form
    path = io.BytesIO(found.parquet())
    assert pq.read_table(path).num_rows == 1
    assert found.pl().height == 1
    assert len(found.df()) == 1


def test_parquet_reads_back_in_duckdb(catalogue: Catalogue, tmp_path: Path) -> None:
    columns = ", ".join(f'{sql} AS "{kind}"' for kind, (sql, _) in VALUES.items())
    path = tmp_path / "answer.parquet"
    path.write_bytes(catalogue.query(f"SELECT {columns}").parquet())
    (row,) = duckdb.connect().execute(f"SELECT map, \"interval in a list\", bit, hugeint FROM '{path}'").fetchall()
    assert row == ({"a": 1, "b": None}, ["3 months", None], "0101", HUGE)


def test_duplicate_columns_are_kept(catalogue: Catalogue) -> None:
    found = catalogue.query("SELECT 1 AS x, 2 AS x")
    assert pq.read_table(io.BytesIO(found.parquet())).column_names == ["x", "x_1"]
    assert found.pl().columns == ["x", "x_1"]
    assert found.csv() == "x,x\n1,2\n"


ENDLESS = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT max(x) FROM t"


def test_endless_query_times_out(store: Store) -> None:
    with Catalogue(store, limits=Limits(seconds=0.3)) as catalogue:
        with pytest.raises(EmttaError, match=r"the query was stopped at the time limit of 0\.3 s; .*Limits\(seconds="):
            catalogue.query(ENDLESS)
        assert catalogue.query("SELECT 1").rows == [(1,)], "and the next is answered"


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        (
            "SELECT list(range) FROM range(1000000000)",
            r"the query was stopped at the memory limit of 100\.0 MB; .*Limits\(memory=",
        ),
        ("SELECT * FROM range(100000000000)", r"its result is larger than 12\.5 MB.*LIMIT.*Limits\(memory="),
    ],
)
def test_memory_hungry_query_is_stopped(sql: str, words: str, store: Store) -> None:
    with Catalogue(store, limits=Limits(memory=100_000_000)) as catalogue:
        with pytest.raises(EmttaError, match=words):
            catalogue.query(sql)
        assert catalogue.query("SELECT 1").rows == [(1,)]


@pytest.mark.parametrize("verb", ["sql", "report", "view"])
def test_every_query_command_takes_limits(verb: str, emtta: Command, store: Store) -> None:
    words = {"sql": ["SELECT 1"], "report": ["domains"], "view": ["--no-browser"]}[verb]
    for option, value, message in (
        ("--timeout", "-1", "a time limit of -1 s is out of range"),
        ("--memory", "much", "'much' is not an amount of memory"),
        ("--memory", "1kB", "a memory limit of 1.0 kB is too small; give at least 50.0 MB"),
    ):
        outcome = emtta(verb, *words, option, value, "--store", store.location)
        assert outcome.code == 2
        assert message in " ".join(outcome.err.split())


def test_stopped_query_names_its_limit(emtta: Command, store: Store) -> None:
    outcome = emtta("sql", ENDLESS, "--timeout", "0.2", "--store", store.location)
    assert (outcome.code, outcome.out) == (1, "")
    assert "time limit of 0.2 s" in outcome.err
    assert "bug" not in outcome.err


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 * 10**9), ("512 MiB", 2**29), ("0.5gb", 5 * 10**8), ("70000000B", 70_000_000)]
)
def test_size_is_number_and_unit(text: str, size: int) -> None:
    assert parse_size(text) == size
    with pytest.raises(UsageError, match="write a number and a unit"):
        parse_size(text[:-1])


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT group FROM groups", 'write the column in double quotes: "group"'),
        ("SELECT method, group, wer FROM groups", 'double quotes: "group"'),
        ("SELECT count(*) FROM cells GROUP BY group", 'double quotes: "group"'),
        ("FROM groups WHERE group = 'noise'", 'double quotes: "group"'),
        ("SELECT window FROM windows", 'double quotes: "window"'),
        ("FROM utterance", 'Did you mean "utterances"?'),
        ("FROM nowhere", "views: attempts, best, cells"),
        ("FROM leaderboard", "show it with: emtta report leaderboard"),
        ("SELECT wers FROM cells", '"wer"'),
        ("SELECT text FROM cells", "text is a column of: prepared"),
        ('FROM cells WHERE domain = "BA"', "write it in single quotes: 'BA'"),
        ("FROM cells WHERE domain = BA", "write it in single quotes: 'BA'"),
    ],
)
def test_refused_query_gets_hint(sql: str, words: str, catalogue: Catalogue) -> None:
    with pytest.raises(EmttaError) as refusal:
        catalogue.query(sql)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT grou FROM groups GROUP BY method",
        "SELECT 'group' FRM groups",
        'SELECT "group" FRM groups -- group',
        "SELECT max(wer) OVER w FRM cells WINDOW w AS (PARTITION BY method)",
    ],
)
def test_valid_keyword_gets_no_hint(sql: str, catalogue: Catalogue) -> None:
    with pytest.raises(EmttaError) as refusal:
        catalogue.query(sql)
    assert "double quotes" not in str(refusal.value)


def test_time_beyond_python_is_text(emtta: Command, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    one_run(store, "late")
    one_run(store, "good")
    for table in (
        "runs/run_id=late/run.parquet",
        "cells/run_id=late/domain=babble/method=source/seed=none/001.parquet",
    ):
        rows = pq.read_table(io.BytesIO(store.backend.read(table)))
        for number, field in enumerate(rows.schema):
            if field.type == pa.timestamp("us", tz="UTC"):
                time = pa.array([YEAR_29000], pa.int64()).cast(field.type)
                rows = rows.set_column(number, field, time)
        store.backend.write(table, parquet(rows))
    for words, code in (
        (("list", "--format", "json"), 0),
        (("list", "--format", "csv"), 0),
        (("list",), 0),
        (("report", "leaderboard", "--run", "late"), 0),
        (("report", "failures", "--run", "late"), 0),
        (("report", "html", "--run", "late", "--out", str(tmp_path / "page.html")), 1),
        (("sql", "SELECT created_at FROM runs UNION ALL SELECT started_at FROM attempts", "--format", "csv"), 0),
        (("status", "late"), 1),
        (("rerun", "late", "--dry-run"), 1),
        (("compare", "late", "good"), 1),
        (("compact", "late"), 1),
        (("prune", "--keep", "1", "--yes"), 0),
        (("catalog", "export", str(tmp_path / "out.duckdb"), "--copy"), 0),
        (("check", store.location), 1),
    ):
        given = words if words[0] == "check" else (*words, "--store", store.location)
        outcome = emtta(*given)
        assert outcome.code == code, (words, outcome.err)
        assert "unexpected error" not in outcome.err
        if words[0] == "list":
            assert "29000-01-01" in outcome.out
        if code:
            assert "run_id=late/run.parquet" in " ".join((outcome.err + outcome.out).split()).replace(" ", ""), words
    assert store.backend.exists("runs/run_id=late/run.parquet"), "a run whose record cannot be read stays"
    assert "29000-01-01" in Viewer(store).answer("/").content.decode()
