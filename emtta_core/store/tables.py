"""The tables of the store: the paths of their files, and the Parquet schema derived from the record of a row.

A field's type gives its column's type (`str | None` may be null, `str` may not), and the text in its `Annotated` is the
column's documentation, which is written into every file. The hive keys (`run_id`, `domain`, `method`, `seed`) are part
of a file's path, not of its columns.
"""

import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Any

import pyarrow as pa

from emtta_core.names import NAME, NO_SEED, check_name, seed_name
from emtta_core.store.schema import (
    SAMPLE_RATE,
    SCHEMA_VERSION,
    TABLE_KEY,
    VERSION_KEY,
    CellRow,
    HypothesisRow,
    LinkRow,
    PlanRow,
    PreparedRow,
    RescoreRow,
    RunRow,
    ScoreRow,
    StatisticsRow,
    StepRow,
    WindowRow,
)


@dataclass(frozen=True, slots=True)
class CellKey:
    """The key of a cell's rows; raises UsageError if a part is not a valid name (`emtta_core.names`)."""

    run_id: str
    domain: str
    method: str
    seed: int | None = None  # None: the method draws no random numbers

    def __post_init__(self) -> None:
        for what, name in (("run id", self.run_id), ("domain", self.domain), ("method", self.method)):
            check_name(what, name)

    @property
    def folder(self) -> str:
        """The cell's folder within a table's folder."""
        return f"run_id={self.run_id}/domain={self.domain}/method={self.method}/seed={seed_name(self.seed)}"


@dataclass(frozen=True, slots=True)
class PreparedCorpus:
    """A prepared corpus with all its shards."""

    corpus_id: str  # its identity
    utterances: int  # number of rows, including those in error
    shards: tuple[str, ...]  # its files, in order
    left_out: int = 0  # number of utterances left out as too long
    errors: int = 0  # number of rows in error
    first_error: str | None = None  # id and reason of the first of them; None if there is none


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the store."""

    name: str  # the name of the table and of its folder
    row: type[Any]  # the record class of a row
    keys: tuple[str, ...]  # the hive keys in the path, outermost first
    layout: str  # the path of its files within the store
    rows: tuple[int, int | None] = (0, None)  # the minimum and maximum number of rows of a file; None: any number

    @property
    def schema(self) -> pa.Schema:
        """The Parquet schema, with a line of documentation per column and the schema's version."""
        return _schema(self)

    def holds(self, name: str) -> bool:
        """Whether `name` is the path of a file of the table."""
        return fits(name, self.layout)


def fits(name: str, layout: str) -> bool:
    """Whether the path of a file fits a layout.

    In a layout, `…` and `<corpus_id>` stand for names, `<seed>` and `<number>` for decimal digits, and `<digest>` for
    hexadecimal digits.

    A path that does not fit would give DuckDB different columns from the table's other files, and break all queries.
    """
    return _pattern(layout).fullmatch(name) is not None


@cache
def _pattern(layout: str) -> re.Pattern[str]:
    named = re.escape(layout).replace("<corpus_id>", "…").replace("<seed>", f"(?:{NO_SEED}|[0-9]+)")
    named = named.replace("<digest>", "[0-9a-f]+")
    return re.compile(re.sub(r"<\w+>", "[0-9]+", named).replace("…", NAME))


_CELL = ("run_id", "domain", "method", "seed")
_FOLDER = "run_id=…/domain=…/method=…/seed=<seed>"
_SHARD = f"{_FOLDER}/<attempt>-<shard>.parquet"

TABLES: Mapping[str, Table] = types.MappingProxyType(
    {
        table.name: table
        for table in (
            Table("prepared", PreparedRow, (), "prepared/<corpus_id>/part-<shard>.parquet"),
            Table("hypotheses", HypothesisRow, _CELL, f"hypotheses/{_SHARD}"),
            Table("steps", StepRow, _CELL, f"steps/{_SHARD}"),
            Table("windows", WindowRow, _CELL, f"windows/{_SHARD}"),
            Table("scores", ScoreRow, _CELL, f"scores/{_SHARD}"),
            Table("rescores", RescoreRow, ("run_id",), "rescores/run_id=…/<scoring>-<shard>.parquet"),
            Table("cells", CellRow, _CELL, f"cells/{_FOLDER}/<attempt>.parquet", (1, 1)),
            Table("links", LinkRow, ("run_id", "source_run"), "links/run_id=…/source_run=…/<number>.parquet"),
            Table("plans", PlanRow, ("run_id",), "plans/run_id=…/plan.parquet", (1, None)),
            Table("runs", RunRow, ("run_id",), "runs/run_id=…/run.parquet", (1, 1)),
            Table("statistics", StatisticsRow, ("run_id",), "statistics/run_id=…/<digest>.parquet"),
        )
    }
)
"""Every table of the store, by name."""

REUSED = frozenset({"hypotheses", "steps", "windows", "scores"})
"""The tables whose rows other runs can reuse."""


def documented(row: type[Any]) -> tuple[tuple[str, Any, str], ...]:
    """Each field of the record `row` as (name, type, documentation)."""
    hints = typing.get_type_hints(row, include_extras=True)
    result = []
    for field in fields(row):
        kind, text = typing.get_args(hints[field.name])
        result.append((field.name, kind, text))
    return tuple(result)


@cache
def _schema(table: Table) -> pa.Schema:
    columns = pa.schema(_arrow_fields(table.row))
    metadata = {VERSION_KEY: str(SCHEMA_VERSION).encode(), TABLE_KEY: table.name.encode()}
    if table.row is PreparedRow:
        metadata[b"huggingface"] = json.dumps({"info": {"features": _features(columns)}}).encode()
    return columns.with_metadata(metadata)


def _features(columns: pa.Schema) -> dict[str, Any]:
    # The features, as the `datasets` library reads them from a file's metadata.
    features: dict[str, Any] = {
        field.name: {"dtype": str(field.type).replace("double", "float64"), "_type": "Value"} for field in columns
    }
    features["audio"] = {"sampling_rate": SAMPLE_RATE, "_type": "Audio"}
    return features


def _arrow_fields(row: type[Any]) -> list[pa.Field]:
    result = []
    for name, kind, text in documented(row):
        nullable, inner = _optional(kind)
        result.append(pa.field(name, _arrow_type(inner), nullable=nullable, metadata={b"doc": text.encode()}))
    return result


def _optional(kind: Any) -> tuple[bool, Any]:
    # Whether a type allows None, and the type without None.
    if isinstance(kind, types.UnionType):
        (inner,) = (item for item in typing.get_args(kind) if item is not types.NoneType)
        return True, inner
    return False, kind


def _arrow_type(kind: Any) -> pa.DataType:
    # The Arrow type of a scalar, a `tuple[item, ...]`, or a nested record.
    scalars = {
        str: pa.string(),
        bool: pa.bool_(),
        bytes: pa.binary(),
        int: pa.int64(),
        float: pa.float64(),
        datetime: pa.timestamp("us", tz="UTC"),
    }
    if kind in scalars:
        return scalars[kind]
    if typing.get_origin(kind) is tuple:
        nullable, inner = _optional(typing.get_args(kind)[0])
        return pa.list_(pa.field("element", _arrow_type(inner), nullable=nullable))
    if is_dataclass(kind):
        inside = _arrow_fields(typing.cast("type[Any]", kind))
        return pa.struct([field.with_nullable(True) for field in inside])  # `datasets` accepts audio only in this form
    raise TypeError(f"no column can hold {kind!r}")
