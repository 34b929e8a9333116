"""The page on the SQL schema matches the SQL files and DuckDB, column by column."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from schema_page import reads, schema_page

from emtta_core.errors import UsageError
from emtta_core.store import Catalogue, Store, reports, views
from emtta_core.store.describe import describe, describe_report
from emtta_core.store.tables import TABLES

PAGE = Path(__file__).parents[2] / "sql" / "schema.md"


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    with Catalogue(Store.open(tmp_path_factory.mktemp("store"), create=True)) as catalogue:
        yield catalogue


def test_page_matches_generator() -> None:
    assert PAGE.read_text("utf-8") == schema_page(), "regenerate it: python docs/tools/schema_page.py sql/schema.md"


@pytest.mark.parametrize("name", views())
def test_view_documents_every_column(name: str, catalogue: Catalogue) -> None:
    view = views()[name]
    columns = describe(catalogue, name)
    assert view.grain.startswith("one row per ")
    assert set(view.columns) == {row[0] for row in columns.rows}
    assert all(meaning for _, _, meaning in columns.rows)


@pytest.mark.parametrize("name", reports())
def test_report_documents_every_column(name: str, catalogue: Catalogue) -> None:
    report = reports()[name]
    columns = describe_report(catalogue, name)
    if name in ("matrix", "methods"):  # with a column for each method or group of the run
        assert {row[0] for row in columns.rows} <= set(report.columns)
    else:
        assert list(report.columns) == [row[0] for row in columns.rows]
    assert all(meaning for _, _, meaning in columns.rows)
    assert all(parameter.text for parameter in report.parameters.values())
    asked = {part.split("'")[0] for part in report.sql.split("getvariable('")[1:]}
    assert asked == set(report.parameters)


def test_views_read_only_earlier_views() -> None:
    there = {*(f"raw.{table}" for table in TABLES), "open.hypotheses", "open.scores", "settled.utterances"}
    for view in views().values():
        assert set(reads(view)) <= there
        there.add(view.name)
    assert reads(views()["groups"]) == ["domains"]


def test_tables_are_documented(catalogue: Catalogue) -> None:
    for table in TABLES.values():
        rows = describe(catalogue, f"raw.{table.name}").rows
        assert {row[0] for row in rows} == {*table.schema.names, *(table.keys or ("corpus_id",))}
        assert all(meaning for _, _, meaning in rows)


def test_unknown_name_lists_known(catalogue: Catalogue) -> None:
    with pytest.raises(
        UsageError, match=r"unknown view or table 'x'; choose from: attempts, best, cells, .*raw\.scores"
    ):
        describe(catalogue, "x")
