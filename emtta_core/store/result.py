"""The answer to a query, and the ways to write it down."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table
from rich.text import Text

from emtta_core.errors import EmttaError
from emtta_core.escapes import escaped

if TYPE_CHECKING:
    import pandas
    import polars


@dataclass(frozen=True, slots=True)
class Result:
    """The rows that a query gave.

    Attributes:
        table: the rows as an Arrow table.
    """

    table: pa.Table

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.table.column_names)

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """The rows, each value as Python has it; None for NULL."""
        columns = [column.to_pylist() for column in self.table.columns]
        return list(zip(*columns, strict=True)) if columns else []

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows, each as a dictionary by column; a second column `x` is there as `x_1`, the next as `x_2`."""
        names = _distinct(self.columns)
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def arrow(self) -> pa.Table:
        """Return the rows as an Arrow table."""
        return self.table

    def df(self) -> "pandas.DataFrame":
        """Return the rows as a data frame of pandas.

        Raises:
            EmttaError: pandas is not installed.
        """
        _needs("pandas", "df")
        return self.table.to_pandas()

    def pl(self) -> "polars.DataFrame":
        """Return the rows as a data frame of Polars.

        Raises:
            EmttaError: Polars is not installed.
        """
        return _needs("polars", "pl").from_arrow(self.table)

    @property
    def rounded(self) -> list[dict[str, Any]]:
        """The rows by their columns, each number with the decimals that `to_table` shows."""
        return [
            {name: float(_cell(value)) if isinstance(value, float) else value for name, value in record.items()}
            for record in self.records
        ]

    def to_table(self, title: str | None = None) -> Table:
        """Return a table for a terminal: rates with two decimals, what is under 0.005 with a digit, NULL as a dash."""
        table = Table(title=title)
        for field in self.table.schema:
            number = _is_number(field.type)
            table.add_column(Text(escaped(field.name)), justify="right" if number else "left", no_wrap=number)
        for row in self.rows:
            table.add_row(*(Text(escaped(_cell(value))) for value in row))
        return table

    def markdown(self) -> str:
        """Return a table in Markdown, with the values that `to_table` shows."""
        rule = ["---:" if _is_number(field.type) else "---" for field in self.table.schema]
        lines = [self.columns, rule, *([_cell(value) for value in row] for row in self.rows)]
        return "".join(f"| {' | '.join(_escape(value) for value in line)} |\n" for line in lines)

    def parquet(self) -> bytes:
        """Return the content of a Parquet file."""
        sink = pa.BufferOutputStream()
        pq.write_table(self.table, sink, compression="zstd")
        return bytes(sink.getvalue().to_pybytes())

    def csv(self) -> str:
        """Return comma-separated values with a header, numbers in full and NULL as nothing."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_flat(value) for value in row] for row in self.rows)
        return text.getvalue()

    def json(self) -> str:
        """Return a JSON array of objects, numbers in full and NULL (and what is no number) as null."""
        return json.dumps([_json(record) for record in self.records], ensure_ascii=False, indent=2) + "\n"


def _needs(package: str, method: str) -> Any:
    """Import a package that not everybody has; EmttaError names it where it is not installed."""
    try:
        return import_module(package)
    except ImportError as error:
        raise EmttaError(
            f"{method}() needs the package {package}, which is not installed: pip install {package}; "
            "arrow(), rows and records need nothing more"
        ) from error


def _distinct(columns: Sequence[str]) -> list[str]:
    """Return the names of the columns, each once: one that is taken gets a number that makes a name of its own."""
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
        return "—"
    if isinstance(value, Decimal):
        value = _plain_number(value)
    if isinstance(value, float):
        return f"{value:.1g}" if 0 < abs(value) < 0.005 else f"{value:.2f}"  # as a p that is small and not nothing
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    return value.isoformat(sep=" ", timespec="seconds") if isinstance(value, datetime) else str(value)


def _plain_number(value: Decimal) -> int | float:
    """Return a decimal, as DuckDB makes of a sum of whole numbers, as the number that it is."""
    return int(value) if value.as_tuple().exponent == 0 else float(value)


def _escape(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


def _flat(value: Any) -> Any:
    return json.dumps(_json(value), ensure_ascii=False) if isinstance(value, list | dict) else _json(value)


def _json(value: Any) -> Any:
    """Return `value` as JSON has it; a time in ISO 8601, bytes in hexadecimal."""
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
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
