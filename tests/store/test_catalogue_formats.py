"""Every output format shows the same values, and interprets no text as markup."""

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from emtta_core.store import Catalogue, Result, Store

SQL = """
SELECT * FROM (VALUES
    ('a', 1, 12.3456789, TIMESTAMPTZ '2026-11-23 01:02:03+00', ['x', 'y'], 'pipe | and
line'),
    ('[red]b', NULL, 'nan'::DOUBLE, NULL, [], '<script>')
) AS t (name, count, wer, "at", flags, text)
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return Catalogue(Store.open(tmp_path_factory.mktemp("store"), create=True)).query(SQL)


def test_terminal_rounds_to_two_decimals(result: Result) -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(result.to_table("a title"))
    text = console.file.getvalue()
    assert "a title" in text
    assert "12.35" in text
    assert "12.346" not in text
    assert "[red]b" in text
    assert "—" in text
    assert "2026-11-23 01:02:03" in text


def test_csv_roundtrips(result: Result) -> None:
    rows = list(csv.DictReader(io.StringIO(result.csv())))
    assert rows[0] == {
        "name": "a",
        "count": "1",
        "wer": "12.3456789",
        "at": "2026-11-23T01:02:03+00:00",
        "flags": '["x", "y"]',
        "text": "pipe | and\nline",
    }
    assert (rows[1]["count"], rows[1]["wer"], rows[1]["text"]) == ("", "", "<script>")


def test_json_roundtrips_without_nan(result: Result) -> None:
    rows = json.loads(result.json(), parse_constant=pytest.fail)
    assert rows[0]["wer"] == 12.3456789
    assert rows[0]["flags"] == ["x", "y"]
    assert rows[1] == {"name": "[red]b", "count": None, "wer": None, "at": None, "flags": [], "text": "<script>"}


def test_numbers_and_times_are_formatted(tmp_path: Path) -> None:
    sql = "SELECT sum(x) AS total, 12.345 AS rate, TIME '01:02:03' AS at FROM (VALUES (2::BIGINT), (3)) AS t (x)"
    found = Catalogue(Store.open(tmp_path, create=True)).query(sql)
    assert json.loads(found.json()) == [{"total": 5, "rate": 12.345, "at": "01:02:03"}]
    assert found.csv().splitlines()[1] == "5,12.345,01:02:03"
    assert found.markdown().splitlines()[2] in {"| 5 | 12.35 | 01:02:03 |", "| 5 | 12.34 | 01:02:03 |"}


def test_markdown_keeps_columns(result: Result) -> None:
    lines = result.markdown().splitlines()
    assert lines[:2] == ["| name | count | wer | at | flags | text |", "| --- | ---: | ---: | --- | --- | --- |"]
    assert len(lines) == 4
    assert lines[2].endswith(r"| x, y | pipe \| and line |")


def test_empty_result_keeps_columns(tmp_path: Path) -> None:
    empty = Catalogue(Store.open(tmp_path, create=True)).report("runs")
    assert empty.csv().startswith("run_id,state,")
    assert json.loads(empty.json()) == []
    assert empty.markdown().count("\n") == 2
    assert empty.rows == []


def test_json_keeps_duplicate_columns(tmp_path: Path) -> None:
    found = Catalogue(Store.open(tmp_path, create=True)).query("SELECT 1 AS x, 2 AS x, 3 AS x_1, 4 AS x")
    assert json.loads(found.json()) == [{"x": 1, "x_2": 2, "x_1": 3, "x_3": 4}]
    assert found.csv() == "x,x,x_1,x\n1,2,3,4\n"
