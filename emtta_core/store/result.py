"""The result of a query: an Arrow table with types that any format can hold, and its output formats."""

import csv
import io
import json
import math
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from rich.table import Table
from rich.text import Text

from emtta_core.errors import EmttaError, unknown
from emtta_core.sanitize import escaped
from emtta_core.store.parquet import parquet

if TYPE_CHECKING:
    import pandas
    import polars

_NUMBERS = ("tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint")
_KEPT = frozenset(
    {
        *("boolean", "hugeint", "decimal", "float", "double", "varchar", "uuid", "enum", "blob", "null", *_NUMBERS),
        *("date", "time", "timestamp", "timestamp_s", "timestamp_ms", "timestamp with time zone"),
    }
)
"""The scalar types that are passed on unchanged; uuid and enum arrive as text anyway."""

BATCH = 50_000
"""Rows per batch."""

_DATES = frozenset({"date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp with time zone"})
"""Types with a wider range than Python's: beyond the years 1 to 9999, and infinity."""


def to_arrow(relation: duckdb.DuckDBPyRelation, *, as_text: Collection[str] = ()) -> pa.RecordBatchReader:
    """Run a query, and return its rows batch by batch.

    Args:
        relation: the query.
        as_text: further types to convert to text, by their lower-case names.

    Raises:
        duckdb.Error: the query fails; some failures occur only while a batch is read.
    """
    kinds = relation.types
    types = [_portable(kind, as_text) for kind in kinds]
    if [str(kind) for kind in kinds] != types:
        columns = enumerate(zip(types, relation.columns, strict=True), 1)
        casts = [f"CAST(#{index} AS {kind}) AS {_quoted(name)}" for index, (kind, name) in columns]
        relation = relation.project(", ".join(casts))
    return relation.to_arrow_reader(BATCH)


def with_dates_as_text(table: pa.Table) -> pa.Table:
    """Convert the dates and times of a table to text in DuckDB's format, as Python cannot represent all of them."""
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return to_arrow(connection.from_arrow(table), as_text=_DATES).read_all()


def _portable(kind: Any, as_text: Collection[str]) -> str:
    # The SQL type to which a DuckDB type is cast; its own if its values are passed on unchanged.
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


UNKNOWN = "—"
"""How a table shows NULL."""


@dataclass(frozen=True, slots=True)
class SharedCell:
    """Columns that a displayed table shows in one cell, such as `25.00 (20.1-31.4)` for a rate and its interval.

    If the first is NULL, so is the cell; if another is, the cell holds only the first.
    """

    name: str  # the name of the cell's column
    template: str  # a `str.format` template for the values

    @property
    def fields(self) -> dict[str, str]:
        """The columns, and the format of each."""
        return {name: form or "" for _, name, form, _ in string.Formatter().parse(self.template) if name}

    def text(self, row: dict[str, Any]) -> str:
        """The cell of a row."""
        name, form = next(iter(self.fields.items()))
        if row[name] is None:
            return UNKNOWN
        if any(row[name] is None for name in self.fields):
            return format(row[name], form)
        return self.template.format_map(row)


@dataclass(frozen=True, slots=True)
class Result:
    """The rows of a query."""

    table: pa.Table  # the rows as an Arrow table
    shared_cells: tuple[SharedCell, ...] = ()  # the columns that a displayed table shows in one cell
    optional: frozenset[str] = frozenset()  # the columns that it hides if no row has a value

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.table.column_names)

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """The rows as Python values, a map as a dictionary, NULL as None.

        If a date is beyond the years 1 to 9999, which Python cannot represent, all dates of the result are text.
        """
        try:
            columns = _python(self.table)
        except (OverflowError, ValueError):
            columns = _python(with_dates_as_text(self.table))
        return list(zip(*columns, strict=True)) if columns else []

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows as dictionaries by column; a second column `x` becomes `x_1`, the next `x_2`."""
        names = _distinct(self.columns)
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def select(self, columns: Sequence[str]) -> "Result":
        """Only these columns, in this order, each in its own cell.

        Raises:
            UsageError: a column does not exist; the message lists the valid names.
        """
        names = _distinct(self.columns)
        for name in columns:
            if name not in names:
                raise unknown("column", name, names)
        return Result(self.table.rename_columns(names).select(list(columns)))

    def arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        return self.table

    def df(self) -> "pandas.DataFrame":
        """The rows as a pandas data frame.

        Raises:
            EmttaError: pandas is not installed.
        """
        _needs("pandas", "df")
        try:
            return self.table.to_pandas(maps_as_pydicts="lossy")
        except (OverflowError, ValueError):  # a date that Python cannot represent
            return with_dates_as_text(self.table).to_pandas(maps_as_pydicts="lossy")

    def pl(self) -> "polars.DataFrame":
        """The rows as a Polars data frame.

        Raises:
            EmttaError: Polars is not installed.
        """
        return _needs("polars", "pl").from_arrow(self.table.rename_columns(_distinct(self.columns)))

    @property
    def rounded(self) -> list[dict[str, Any]]:
        """The rows as dictionaries by column, with numbers rounded as `to_table` shows them."""
        return [
            {name: float(_cell(value)) if isinstance(value, float) else value for name, value in record.items()}
            for record in self.records
        ]

    def to_table(self, title: str | None = None) -> Table:
        """A table for a terminal: numbers with two decimals, below 0.005 with one significant digit, NULL as a dash."""
        table = Table(title=title and Text(escaped(title)), title_style="bold", title_justify="left")
        columns = self._for_reader()
        times = {field.name for field in self.table.schema if pa.types.is_timestamp(field.type)}
        for name, number, _ in columns:
            table.add_column(
                Text(escaped(name)), justify="right" if number else "left", no_wrap=number or name in times
            )
        for row in zip(*(cells for _, _, cells in columns), strict=True):
            table.add_row(*(Text(escaped(cell)) for cell in row))
        return table

    def markdown(self) -> str:
        """A Markdown table, with the cells that `to_table` shows."""
        columns = self._for_reader()
        rule = ["---:" if number else "---" for _, number, _ in columns]
        rows = zip(*(cells for _, _, cells in columns), strict=True)
        lines = [[name for name, _, _ in columns], rule, *rows]
        return "".join(f"| {' | '.join(_escape(value) for value in line)} |\n" for line in lines)

    def latex(self) -> str:
        """A LaTeX table with booktabs rules, with the cells that `to_table` shows."""
        columns = self._for_reader()
        lines = [[name for name, _, _ in columns], *zip(*(cells for _, _, cells in columns), strict=True)]
        head, *rows = (" & ".join(map(_tex, line)) + r" \\" for line in lines)
        alignment = "".join("r" if number else "l" for _, number, _ in columns)
        begin, end = rf"\begin{{tabular}}{{{alignment}}}", r"\end{tabular}"
        return "\n".join([begin, r"\toprule", head, r"\midrule", *rows, r"\bottomrule", end]) + "\n"

    def parquet(self) -> bytes:
        """The content of a Parquet file."""
        return parquet(self.table.rename_columns(_distinct(self.columns)))

    def csv(self) -> str:
        """Comma-separated values with a header, numbers in full precision, and NULL as an empty field."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_flat(value) for value in row] for row in self.rows)
        return text.getvalue()

    def json(self) -> str:
        """A JSON array of objects, numbers in full precision, and NULL, NaN and infinity as null."""
        return json.dumps([_json(record) for record in self.records], ensure_ascii=False, indent=2) + "\n"

    def slice(self, rows: int) -> "Result":
        """The first `rows` rows."""
        return replace(self, table=self.table.slice(0, rows))

    def _for_reader(self) -> list[tuple[str, bool, list[str]]]:
        # The columns of a displayed table: name, whether it holds numbers, and its cells.
        records, names = self.records, _distinct(self.columns)
        shared = [cell for cell in self.shared_cells if set(cell.fields) <= set(names)]
        first = {next(iter(cell.fields)): cell for cell in shared}
        hidden = {name for cell in shared for name in cell.fields} - set(first)
        hidden |= {name for name in self.optional if all(record[name] is None for record in records)}
        found = []
        for name, field in zip(names, self.table.schema, strict=True):
            if name in hidden:
                continue
            if name in first:
                cell = first[name]
                found.append((cell.name, _is_number(field.type), [cell.text(record) for record in records]))
            else:
                found.append((field.name, _is_number(field.type), [_cell(record[name]) for record in records]))
        return found


def _python(table: pa.Table) -> list[list[Any]]:
    return [column.to_pylist(maps_as_pydicts="lossy") for column in table.columns]


def _needs(package: str, method: str) -> Any:
    # Import an optional package; raises an EmttaError that names it if it is not installed.
    try:
        return import_module(package)
    except ImportError as error:
        raise EmttaError(
            f"{method}() needs the package {package}, which is not installed: pip install {package}; "
            "arrow(), rows and records need nothing more"
        ) from error


def _distinct(columns: Sequence[str]) -> list[str]:
    # Unique column names: a duplicate gets a number that makes it unique.
    names: list[str] = []
    for column in columns:
        name, number = column, 0
        while name in names or (number and name in columns):
            number += 1
            name = f"{column}_{number}"
        names.append(name)
    return names


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _cell(value: Any) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, Decimal):
        value = _plain_number(value)
    if isinstance(value, float):
        return f"{value:.1g}" if 0 < abs(value) < 0.005 else f"{value:.2f}"  # so that a small p does not show as 0
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return ", ".join(_cell(item) for item in value)
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")  # the catalogue's zone is UTC
    return str(_flat(value))


def _plain_number(value: Decimal) -> int | float | str:
    # A decimal as a number, or as text if no Python float equals it.
    if value.as_tuple().exponent == 0:  # DuckDB's type for a sum of integers
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)


def _escape(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


_TEX = str.maketrans(
    {character: rf"\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "\n": " "}
    | {"\N{EN DASH}": "--", "\N{EM DASH}": "---", "±": r"$\pm$", "\N{MINUS SIGN}": "$-$"}
)


def _tex(value: str) -> str:
    return value.translate(_TEX)


def _flat(value: Any) -> Any:
    value = _json(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else value


def _json(value: Any) -> Any:
    # `value` as a JSON value; times in ISO 8601, bytes in hexadecimal.
    if isinstance(value, dict):
        return {str(_flat(key)): _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Decimal):
        return _plain_number(value)
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
