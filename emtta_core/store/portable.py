"""The answer of a query as an Arrow table whose values CSV, JSON, Parquet and Python can all hold.

DuckDB hands some of its types to Arrow as their inner bytes, or without a part of the value (a time loses its offset, a
large number its digits), and Arrow's files and Python's dates are narrower than DuckDB's types. Such values become the
text that DuckDB writes for them, also inside lists, structs and maps, which stay what they are.
"""

from collections.abc import Collection
from typing import Any

import duckdb
import pyarrow as pa

_NUMBERS = ("tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint")
_KEPT = frozenset(
    {
        *("boolean", "hugeint", "decimal", "float", "double", "varchar", "uuid", "enum", "blob", "null", *_NUMBERS),
        *("date", "time", "timestamp", "timestamp_s", "timestamp_ms", "timestamp with time zone"),
    }
)
"""The scalar types that are handed on as they are; uuid and enum arrive as text anyway."""

BATCH = 50_000
"""Rows of a batch."""

_DATES = frozenset({"date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp with time zone"})
"""Types that reach further than Python's: beyond the years 1 to 9999, and to infinity."""


def to_arrow(relation: duckdb.DuckDBPyRelation, *, as_text: Collection[str] = ()) -> pa.RecordBatchReader:
    """Run a query, and return its rows batch by batch.

    Args:
        relation: the query.
        as_text: types, by their names in lower case, that are to become text as well.

    Raises:
        duckdb.Error: the query fails; some failures come only with a batch.
    """
    kinds = relation.types
    wanted = [_portable(kind, as_text) for kind in kinds]
    if [str(kind) for kind in kinds] != wanted:
        columns = enumerate(zip(wanted, relation.columns, strict=True), 1)
        casts = [f"CAST(#{place} AS {kind}) AS {_quoted(name)}" for place, (kind, name) in columns]
        relation = relation.project(", ".join(casts))
    return relation.to_arrow_reader(BATCH)


def with_dates_as_text(table: pa.Table) -> pa.Table:
    """Return a table with its dates and times as DuckDB writes them, for those that Python cannot hold."""
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return to_arrow(connection.from_arrow(table), as_text=_DATES).read_all()


def _portable(kind: Any, as_text: Collection[str]) -> str:
    """Return the SQL type that a DuckDB type is cast to; its own where its values are handed on as they are."""
    match kind.id:
        case "list":
            ((_, item),) = kind.children
            return f"{_portable(item, as_text)}[]"
        case "array":
            (_, item), (_, size) = kind.children
            return f"{_portable(item, as_text)}[{size}]"
        case "struct":
            fields = [f"{_quoted(name)} {_portable(field, as_text)}" for name, field in kind.children]
            return f"STRUCT({', '.join(fields)})"
        case "map":
            (_, key), (_, value) = kind.children
            key_type = _portable(key, as_text) if key.id in _KEPT - {"null"} else "VARCHAR"
            return f"MAP({key_type}, {'VARCHAR' if value.id == 'null' else _portable(value, as_text)})"
        case "variant":
            return "JSON"
        case scalar if scalar in _KEPT and scalar not in as_text:
            return str(kind)
    return "VARCHAR"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
