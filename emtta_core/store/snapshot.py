"""A consistent view of a store's files, with each row in exactly one of them: shards, and packs that replace shards.

A pack is one file with the content of a run's shards, so that a year of nightly runs is some thousand files:

    packs/utterances/run_id=…/<attempt>.parquet      hypotheses beside their scores, and which rows count
    packs/steps/run_id=…/<attempt>.parquet
    packs/windows/run_id=…/<attempt>.parquet         if utterances were cut or their language detected
    packs/cells/run_id=…/<attempt>.parquet

A pack is named after the last attempt begun when it was made, and *covers* every row of its tables up to that attempt.
Covered files are no longer read, and may be removed. So a pack replaces its shards atomically at the moment it is
written, in a folder as in an object store; a reader that lists the shards first and then the packs sees each row once,
whatever happens meanwhile. A later attempt has a higher number, and its shards stay beside the pack until the next
compaction.
"""

import operator
import re
import types
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from emtta_core.store.backend import Backend, Entry
from emtta_core.store.schema import SCHEMA_VERSION, TABLE_KEY, VERSION_KEY
from emtta_core.store.tables import REUSED, TABLES, Table, fits

_ATTEMPT = re.compile(r"(\d+)(?:-\d+\.parquet|\.parquet|\.begun)")


def attempt_of(name: str) -> int:
    """The attempt in the name of a shard, record, pack or marker; 0 for other files."""
    match = _ATTEMPT.fullmatch(name.rpartition("/")[2])
    return int(match[1]) if match else 0


def run_of(name: str) -> str:
    """The run that a file belongs to; empty for a file of no run."""
    return _key_of(name, "run_id=")


def source_of(name: str) -> str:
    """The run whose results a file of links refers to."""
    return _key_of(name, "source_run=")


def sources(entries: Iterable[Entry]) -> dict[str, set[str]]:
    """By run, the runs whose results it reuses, from files of the table `links`."""
    found: dict[str, set[str]] = {}
    for entry in entries:
        found.setdefault(run_of(entry.name), set()).add(source_of(entry.name))
    return found


def _key_of(name: str, key: str) -> str:
    return name.partition(f"/{key}")[2].partition("/")[0]


FOLDER = "packs"

_RENAMED = {("scores", "error"): "score_error"}
"""Columns of a pack that have another name in their table, as a second table of the pack uses that name too."""

_NEVER_NULL = {"hypotheses": "reference", "scores": "normalizer"}
"""By table, a column that is never null in its rows, to tell apart pack rows that come only from another table."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A kind of pack."""

    name: str  # its folder below `packs`
    tables: tuple[str, ...]  # the tables whose rows it holds
    rows: ClassVar[tuple[int, int | None]] = (0, None)  # the minimum and maximum number of rows of a file

    @property
    def folder(self) -> str:
        """The folder of its files."""
        return f"{FOLDER}/{self.name}"

    @property
    def schema(self) -> pa.Schema:
        """The columns: the cell's keys, those of its tables, and, for utterances, whether the row counts."""
        return _schema(self)

    @property
    def layout(self) -> str:
        """The path of its files within the store."""
        return f"{self.folder}/run_id=…/<attempt>.parquet"

    def holds(self, name: str) -> bool:
        """Whether `name` is the path of a pack of this kind."""
        return fits(name, self.layout)

    def file(self, run_id: str, attempt: int) -> str:
        """The pack of a run that covers the attempts up to `attempt`."""
        return f"{self.folder}/run_id={run_id}/{attempt:03d}.parquet"

    def columns(self, row: type[Any]) -> Mapping[str, str]:
        """The column name of each field of a table's record, in order."""
        table = self._table_of(row)
        return {name: _RENAMED.get((table, name), name) for name in TABLES[table].schema.names}

    def rows_of(self, row: type[Any], cell: Mapping[str, str | int | None]) -> pc.Expression:
        """The filter for rows that are records of a table and, given by column and value, of a cell."""
        never_null = _NEVER_NULL.get(self._table_of(row))
        terms = ((pc.field(name), value) for name, value in cell.items())
        conditions = [field.is_null() if value is None else field == value for field, value in terms]
        conditions += [pc.field(never_null).is_valid()] if never_null else []
        return reduce(operator.and_, conditions, pc.scalar(True))

    def select(self, table: str, source: str) -> str:
        """The SELECT of a table's rows, from `source`, the SELECT of packs of this kind."""
        columns = ", ".join(
            f'"{column}" AS "{name}"' if column != name else f'"{name}"'
            for name, column in self.columns(TABLES[table].row).items()
        )
        some = f" WHERE {_NEVER_NULL[table]} IS NOT NULL" if table in _NEVER_NULL else ""
        return f"SELECT {columns}, run_id, domain, method, seed FROM ({source}){some}"

    def _table_of(self, row: type[Any]) -> str:
        return next(table for table in self.tables if TABLES[table].row is row)


@cache
def _schema(pack: Pack) -> pa.Schema:
    kinds = {"domain": pa.string(), "method": pa.string(), "seed": pa.int64()}
    fields = {name: pa.field(name, kind) for name, kind in kinds.items()}
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
"""By table, the kind of pack that holds its rows; other tables have none."""


def kind_of(name: str) -> Table | Pack | None:
    """The table or kind of pack in whose folder a file is; None if it is in no such folder."""
    first, _, rest = name.partition("/")
    return PACKS.get(rest.partition("/")[0]) if first == FOLDER else TABLES.get(first)


_MAX_LISTED_RUNS = 20
"""The most runs whose folders are listed one by one; beyond that, everything is listed, as object stores charge per
listing."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files to read."""

    loose: Mapping[str, Sequence[Entry]]  # by table, the files that no pack covers
    packs: Mapping[str, Sequence[Entry]]  # by kind of pack, the newest of each run
    misplaced: Sequence[Entry] = ()  # Parquet files at paths that the store does not use; they are not read

    @classmethod
    def take(
        cls, backend: Backend, runs: Collection[str] | None = None, tables: Collection[str] = tuple(TABLES)
    ) -> "Snapshot":
        """List a whole store, or only the files of some runs: with the results they reuse, without audio.

        Rows that move from shards to a pack meanwhile are seen once, as the packs are listed after the shards.

        Args:
            backend: the store's.
            runs: the runs; all by default.
            tables: the tables whose files are listed; all by default. With `runs`, their links are listed as well.
        """
        if runs is not None:
            tables = {"links", *tables}  # reused results count in a run
        if runs is not None and len(runs) > _MAX_LISTED_RUNS:
            return cls.take(backend, tables=[name for name in tables if TABLES[name].keys]).of_runs(runs, ())

        def list_below(folder: str, reused: bool) -> list[Entry]:
            # List a folder, or the parts of it that belong to the runs and to those whose results they reuse.
            if runs is None:
                return list(backend.list(folder))
            listed_runs = sorted({*runs, *(source_runs if reused else ())})
            return [entry for run in listed_runs for entry in backend.list(f"{folder}/run_id={run}")]

        # The links first: they name the other runs whose results count in these.
        links = list_below("links", reused=False) if "links" in tables else []
        source_runs = {source_of(entry.name) for entry in links}
        listed = {
            name: links if name == "links" else list_below(name, name in REUSED)
            for name in tables
            if TABLES[name].keys or runs is None
        }
        packed = runs is None and not PACK_OF.keys().isdisjoint(tables)
        all_packs = backend.list(FOLDER) if packed else ()  # one listing, as object stores charge for each

        def packs_of(pack: Pack) -> list[Entry]:
            if set(tables).isdisjoint(pack.tables):
                return []
            if runs is None:
                return [entry for entry in all_packs if entry.name.startswith(f"{pack.folder}/")]
            return list_below(pack.folder, not REUSED.isdisjoint(pack.tables))

        misplaced: list[Entry] = []
        accepted = {name: _files_of(TABLES[name], entries, misplaced) for name, entries in listed.items()}
        packs = {name: newest(_files_of(pack, packs_of(pack), misplaced)) for name, pack in PACKS.items()}
        loose = {
            table: tuple(uncovered(entries, packs[PACK_OF[table].name])) if table in PACK_OF else tuple(entries)
            for table, entries in accepted.items()
        }
        return cls(loose, {name: tuple(entries.values()) for name, entries in packs.items()}, tuple(misplaced))

    @property
    def entries(self) -> Iterator[Entry]:
        """All files to read."""
        for group in (self.loose, self.packs):
            for entries in group.values():
                yield from entries

    @property
    def by_table(self) -> dict[str, tuple[Entry, ...]]:
        """The files with rows of each table; links count for every table."""
        links = self.loose.get("links", ())
        packs = {table: self.packs.get(pack.name, ()) for table, pack in PACK_OF.items()}
        return {table: (*self.loose.get(table, ()), *packs.get(table, ()), *links) for table in TABLES}

    def without(self, names: Collection[str]) -> "Snapshot":
        """The snapshot without some files."""
        loose, packs = (
            {key: tuple(entry for entry in entries if entry.name not in names) for key, entries in group.items()}
            for group in (self.loose, self.packs)
        )
        return Snapshot(loose, packs, self.misplaced)

    def of_runs(self, runs: Collection[str], corpora: Collection[str]) -> "Snapshot":
        """The files of some runs, of the results they reuse, and of the prepared audio of some corpora."""
        reused = sources(self.loose["links"])
        source_runs = set().union(*(reused.get(run, set()) for run in runs))

        def belongs(name: str) -> bool:
            table = name.removeprefix(f"{FOLDER}/").split("/")[0]
            if not run_of(name):
                return name.split("/")[1] in corpora
            return run_of(name) in runs or (
                run_of(name) in source_runs and (table in REUSED or table == UTTERANCES.name)
            )

        return self.without({entry.name for entry in self.entries if not belongs(entry.name)})

    @property
    def open_runs(self) -> frozenset[str]:
        """The runs with utterances outside packs; rows of their other attempts may be in a pack."""
        tables = ("hypotheses", "scores", "links")
        return frozenset(run_of(entry.name) for table in tables for entry in self.loose.get(table, ()))


def cell_files(backend: Backend, table: str, run_id: str, folder: str) -> Sequence[Entry]:
    """The files with rows of a cell, given its folder: its own that no pack covers, and its run's pack."""
    found = [entry for entry in backend.list(f"{table}/{folder}") if TABLES[table].holds(entry.name)]
    packs = newest(backend.list(f"{PACK_OF[table].folder}/run_id={run_id}"))
    return (*uncovered(found, packs), *packs.values())


def _files_of(kind: Table | Pack, entries: Iterable[Entry], misplaced: list[Entry]) -> list[Entry]:
    # The files of a table or kind of pack; other Parquet files among them are added to `misplaced`.
    accepted = []
    for entry in entries:
        if kind.holds(entry.name):
            accepted.append(entry)
        elif entry.name.endswith(".parquet"):
            misplaced.append(entry)
    return accepted


def newest(entries: Iterable[Entry]) -> dict[str, Entry]:
    """By run, the pack that covers most, among packs of one kind."""
    packs = [entry for entry in entries if attempt_of(entry.name)]
    packs.sort(key=lambda entry: (run_of(entry.name), attempt_of(entry.name)))
    return {run_of(entry.name): entry for entry in packs}


def uncovered(entries: Iterable[Entry], packs: Mapping[str, Entry]) -> Iterator[Entry]:
    """Yield the files of a table that no pack covers, given the newest pack of each run."""
    for entry in entries:
        pack = packs.get(run_of(entry.name))
        # A pack covers all attempts up to its own; a file of no attempt (0), such as statistics, is never covered.
        if pack is None or not 0 < attempt_of(entry.name) <= attempt_of(pack.name):
            yield entry
