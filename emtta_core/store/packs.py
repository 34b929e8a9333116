"""The pack: one file that holds what the shards of a run held, so that a year of nights is some thousand files.

    packs/utterances/run_id=…/<attempt>.parquet      hypotheses beside their scores, and which rows count
    packs/steps/run_id=…/<attempt>.parquet
    packs/windows/run_id=…/<attempt>.parquet         where utterances were cut, or their language detected
    packs/cells/run_id=…/<attempt>.parquet

A pack is named by the last attempt that had begun when it was made, and *covers* every row of its tables of that
attempt and of those before it. A file that is covered is read by nobody any more, and may be removed. So the pack
takes their place in the moment in which it is written, by one step, in a folder and in an object store alike; whoever
lists the shards first and the packs after them sees each row once, whatever goes on meanwhile. An attempt that is begun
afterwards has a higher number, and its shards lie beside the pack until it is made anew.
"""

import operator
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from emtta_core.store.schema import SCHEMA_VERSION, TABLE_KEY, TABLES, VERSION_KEY, Table, fits

FOLDER = "packs"

_RENAMED = {("scores", "error"): "score_error"}
"""Columns of a pack that have another name in their table, which another table of the pack has as well."""

_ALWAYS = {"hypotheses": "reference", "scores": "normalizer"}
"""A column that no row of a table lacks, where rows of a pack may come from another table alone."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A kind of pack."""

    name: str  # its folder below `packs`
    tables: tuple[str, ...]  # the tables whose rows it holds

    @property
    def folder(self) -> str:
        """Where its files lie."""
        return f"{FOLDER}/{self.name}"

    @property
    def schema(self) -> pa.Schema:
        """The columns: the cell's keys, those of its tables, and for utterances whether the row counts."""
        return _schema(self)

    @property
    def layout(self) -> str:
        """Where its files lie, below the store."""
        return f"{self.folder}/run_id=…/<attempt>.parquet"

    @property
    def rows(self) -> tuple[int, int | None]:
        """The fewest and the most rows that a file has."""
        return (0, None)

    def holds(self, name: str) -> bool:
        """Return whether the file `name` of the store lies where packs of this kind do."""
        return fits(name, self.layout)

    def file(self, run_id: str, attempt: int) -> str:
        """Return the pack of a run that covers the attempts up to `attempt`."""
        return f"{self.folder}/run_id={run_id}/{attempt:03d}.parquet"

    def columns(self, row: type[Any]) -> Mapping[str, str]:
        """Return what each field of a table's record is called here, in order."""
        table = self._table_of(row)
        return {name: _RENAMED.get((table, name), name) for name in TABLES[table].schema.names}

    def rows_of(self, row: type[Any], cell: Mapping[str, str]) -> pc.Expression:
        """Return which rows of a pack are records of a table and of a cell, given as column and value."""
        always = _ALWAYS.get(self._table_of(row))
        conditions = [pc.field(name) == value for name, value in cell.items()]
        conditions += [pc.field(always).is_valid()] if always else []
        return reduce(operator.and_, conditions, pc.scalar(True))

    def select(self, table: str, source: str) -> str:
        """Return the SELECT of a table's rows from the SELECT `source` of packs of this kind."""
        columns = ", ".join(
            f'"{here}" AS "{name}"' if here != name else f'"{name}"'
            for name, here in self.columns(TABLES[table].row).items()
        )
        some = f" WHERE {_ALWAYS[table]} IS NOT NULL" if table in _ALWAYS else ""
        return f"SELECT {columns}, run_id, domain, method FROM ({source}){some}"

    def _table_of(self, row: type[Any]) -> str:
        return next(table for table in self.tables if TABLES[table].row is row)


@cache
def _schema(pack: Pack) -> pa.Schema:
    fields = {name: pa.field(name, pa.string()) for name in ("domain", "method")}
    for table in pack.tables:
        for field in TABLES[table].schema:
            name = _RENAMED.get((table, field.name), field.name)
            fields.setdefault(name, field.with_name(name).with_nullable(True))
    if len(pack.tables) > 1:
        fields["counts"] = pa.field("counts", pa.bool_())
    metadata = {VERSION_KEY: str(SCHEMA_VERSION).encode(), TABLE_KEY: pack.name.encode()}
    return pa.schema(fields.values(), metadata=metadata)


UTTERANCES = Pack("utterances", ("hypotheses", "scores"))
PACKS: Mapping[str, Pack] = types.MappingProxyType(
    {pack.name: pack for pack in (UTTERANCES, *(Pack(name, (name,)) for name in ("steps", "windows", "cells")))}
)
"""The kinds of packs, by name."""

PACK_OF: Mapping[str, Pack] = types.MappingProxyType({table: pack for pack in PACKS.values() for table in pack.tables})
"""The kind of pack that holds a table's rows, by table; the other tables have none."""


def kind_of(name: str) -> Table | Pack | None:
    """Return the table, or the kind of pack, in whose folder a file is; None where it is in no such folder."""
    first, _, rest = name.partition("/")
    return PACKS.get(rest.partition("/")[0]) if first == FOLDER else TABLES.get(first)
