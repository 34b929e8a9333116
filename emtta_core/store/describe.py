"""What a view, a table or a report of the catalogue gives: its columns, with their types and what they mean."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pyarrow as pa

from emtta_core.errors import unknown
from emtta_core.store.catalogue import Catalogue
from emtta_core.store.reports import report, reports, views
from emtta_core.store.result import Result
from emtta_core.store.schema import TABLES, Table

_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "run_id": "the run, from the path",
        "domain": "the domain, from the path",
        "method": "the method, from the path",
        "source_run": "the run whose results are reused, from the path",
        "corpus_id": "identity of the corpus, from the path",
    }
)

_COLUMNS = ("column", "type", "meaning")

_KINDS = (
    (pa.types.is_string, "VARCHAR"),
    (pa.types.is_boolean, "BOOLEAN"),
    (pa.types.is_decimal, "HUGEINT"),
    (pa.types.is_int64, "BIGINT"),
    (pa.types.is_int32, "INTEGER"),
    (pa.types.is_float64, "DOUBLE"),
    (pa.types.is_timestamp, "TIMESTAMP WITH TIME ZONE"),
)


def meanings(table: Table) -> Mapping[str, str]:
    """Return what each column of a table means, those of the path included."""
    keys = table.keys or ("corpus_id",)
    return {
        **{key: _KEYS[key] for key in keys},
        **{field.name: field.metadata[b"doc"].decode() for field in table.schema},
    }


def describe(catalogue: Catalogue, name: str) -> Result:
    """Return the columns of a view, or of `raw.<table>`: `column`, `type` and `meaning`.

    Raises:
        UsageError: when there is none of this name; it lists those there are.
    """
    tables = {f"raw.{table.name}": table for table in TABLES.values()}
    if name in views():
        meaning, source = views()[name].columns, f'"{name}"'
    elif name in tables:
        meaning, source = meanings(tables[name]), name
    else:
        raise unknown("view or table", name, [*views(), *tables])
    found = catalogue.query(f"DESCRIBE SELECT * FROM {source}").rows
    return text_table(_COLUMNS, [(str(row[0]), str(row[1]), meaning.get(str(row[0]), "")) for row in found])


def describe_report(catalogue: Catalogue, name: str) -> Result:
    """Return the columns that a report gives on a store, as `describe` does.

    Raises:
        UsageError: when there is no such report; it lists those there are.
    """
    chosen = report(name)
    fields = catalogue.report(name).table.schema
    return text_table(
        _COLUMNS, [(field.name, _type(field.type), chosen.columns.get(field.name, "")) for field in fields]
    )


def report_list() -> Result:
    """Return the reports there are: `report`, what it `shows`, and its `parameters`."""
    rows = [
        (
            chosen.name,
            chosen.summary.removesuffix("."),
            ", ".join(name for name in chosen.parameters if name != "run_id"),
        )
        for chosen in reports().values()
    ]
    return text_table(("report", "shows", "parameters"), rows)


def view_list() -> Result:
    """Return the views there are: `view`, what it `shows`, and its `grain`."""
    rows = [(view.name, view.summary.removesuffix("."), view.grain.removesuffix(".")) for view in views().values()]
    return text_table(("view", "shows", "grain"), rows)


def text_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Result:
    """Return rows of texts as an answer, under these names of columns."""
    columns = {name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(names)}
    return Result(pa.table(columns))


def _type(kind: pa.DataType) -> str:
    """Return what DuckDB calls a type."""
    if pa.types.is_list(kind):
        return f"{_type(kind.value_type)}[]"
    return next((name for test, name in _KINDS if test(kind)), str(kind))
