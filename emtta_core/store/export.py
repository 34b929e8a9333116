"""A DuckDB file in which any DuckDB client, or a tool that speaks to one, finds the views of the store.

The file holds the stack of `sql/views`, each view and column with its meaning as a comment, and under `raw` either
views over the store's Parquet files by their absolute paths, or the rows themselves. It is a picture of the moment:
runs that are added later, or compacted or removed, are seen when it is exported again.
"""

import contextlib
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from emtta_core.errors import EmttaError, UsageError
from emtta_core.store.catalogue import Catalogue
from emtta_core.store.describe import meanings
from emtta_core.store.functions import create_functions, needs_python
from emtta_core.store.reports import views
from emtta_core.store.snapshot import Snapshot
from emtta_core.store.store import Store
from emtta_core.store.tables import TABLES
from emtta_core.store.views import create_raw_views, scan, sql_text

ABOUT = "about"
"""The table of the file that says what it is."""

_STORAGE = "v1.0.0"
"""The oldest form of DuckDB's files that still is read: by every release from 1.0 on."""


ENDINGS = ("", ".duckdb", ".db", ".ddb")
"""Endings of a file that can be an export; the first is none."""


@dataclass(frozen=True, slots=True)
class Export:
    """What was exported."""

    file: Path  # the DuckDB file
    runs: int  # how many runs it shows
    size: int  # bytes
    copied: bool  # whether the rows are in it
    left_out: tuple[str, ...]  # views that it lacks, as they need a function that only emtta has


def export(store: Store, file: Path, *, run_ids: Collection[str] = (), copy: bool = False) -> Export:
    """Write a DuckDB file with the views of a store, in place of an earlier export.

    It is written beside its place and named in one step, so that a reader never sees half of it.

    Args:
        store: the store.
        file: where.
        run_ids: the runs that it is to show; all by default.
        copy: put the rows inside, but for prepared audio, so that the store is needed no more.

    Raises:
        UsageError: a run is unknown, `file` is something else than an export, or the store is in a bucket and the rows
            are not to be copied.
        StoreError: the record or the plan of a run cannot be read.
        EmttaError: DuckDB fails it, or the file cannot be written.
    """
    if not copy and "://" in store.location:
        raise UsageError(
            f"the store {store.location} is in a bucket, which a DuckDB client reads only with an extension and "
            "credentials of its own; add --copy to put the rows into the file"
        )
    _check_place(file)
    for run_id in run_ids:
        store.run(run_id)
    with Catalogue(store) as catalogue:
        snapshot = catalogue.snapshot
    if run_ids:
        corpora = {row.corpus_id for run_id in run_ids for row in store.plan(run_id)}
        snapshot = snapshot.of_runs(run_ids, corpora)
    # Written beside its place and renamed, so that a reader of the file never sees half an export.
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        try:
            left_out = _write(store, snapshot, temporary, copy)
        except duckdb.Error:  # a file may be damaged inside: each is read once, and the sound ones are written
            temporary.unlink(missing_ok=True)
            snapshot = snapshot.without({broken.name for broken in scan(store.backend, snapshot)})
            left_out = _write(store, snapshot, temporary, copy)
        temporary.replace(file)
    except (duckdb.Error, OSError) as error:
        raise EmttaError(f"{file} could not be written: {' '.join(str(error).split())}") from error
    finally:
        for rest in (temporary, temporary.with_name(f"{temporary.name}.wal")):
            rest.unlink(missing_ok=True)
    return Export(file, len(run_ids) or len(store.runs()), file.stat().st_size, copy, left_out)


def _check_place(file: Path) -> None:
    # Refuse a name that means another format, a file that is there and is no export, and a missing folder.
    if file.suffix.lower() not in ENDINGS:
        raise UsageError(f"{file} is not the name of a DuckDB file; choose an ending from: {', '.join(ENDINGS[1:])}")
    if not file.parent.is_dir():
        raise UsageError(f"{file} cannot be written: there is no folder {file.parent}")
    if not file.exists():
        return
    with contextlib.suppress(duckdb.Error), duckdb.connect(str(file), read_only=True) as connection:
        if connection.execute(f"SELECT made_by FROM {ABOUT}").fetchall() == [("emtta catalog export",)]:
            return
    raise UsageError(f"{file} is there, and is no earlier export; remove it, or name another file")


def _write(store: Store, snapshot: Snapshot, file: Path, copy: bool) -> tuple[str, ...]:
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        store.backend.attach(connection)(tuple(snapshot.entries))
        create_functions(connection)
        if copy:
            create_raw_views(connection, store.backend, snapshot)
        # 1) Tables: the rows themselves, or views on the files of the store.
        connection.execute(f"ATTACH {sql_text(str(file))} AS exported (STORAGE_VERSION '{_STORAGE}')")
        connection.execute("USE exported")
        connection.execute("BEGIN")  # else each of some hundred comments is written by itself
        if copy:
            for statement in _copies():
                connection.execute(statement)
        else:
            create_raw_views(connection, store.backend, snapshot, named=True)
        # 2) The stack of views. A plain client of DuckDB lacks emtta's own function: a view that calls it becomes a
        # table where rows are copied, and is left out where they are not.
        left_out = [view for view in views().values() if not copy and needs_python(view.sql)]
        for view in views().values():
            if view not in left_out:
                kind = "TABLE" if needs_python(view.sql) else "VIEW"
                connection.execute(f'CREATE {kind} "{view.name}" AS\n{view.sql}')
                about = sql_text(f"{view.summary} Grain: {view.grain}")
                connection.execute(f'COMMENT ON {kind} "{view.name}" IS {about}')
                _comment(connection, f'"{view.name}"', view.columns)
        for table in TABLES.values():
            _comment(connection, f"raw.{table.name}", meanings(table))
        # 3) Where it comes from; by this a later export recognises its own files, and overwrites nothing else.
        connection.execute(
            f"CREATE TABLE {ABOUT} AS SELECT 'emtta catalog export' AS made_by, ? AS store, "
            "?::TIMESTAMP AS exported_at_utc, ?::BOOLEAN AS copied",
            [store.location, datetime.now(UTC).replace(tzinfo=None), copy],
        )
        connection.execute("COMMIT")
        connection.execute("USE memory")
        connection.execute("DETACH exported")
    return tuple(view.name for view in left_out)


def _copies() -> Iterator[str]:
    # The statements that put the rows of the tables into the file, and make the views beside them.
    for schema in ("raw", "open", "settled"):
        yield f"CREATE SCHEMA IF NOT EXISTS exported.{schema}"
    for table in TABLES:
        columns = "* REPLACE (CASE WHEN false THEN audio END AS audio)" if table == "prepared" else "*"
        yield f"CREATE TABLE exported.raw.{table} AS SELECT {columns} FROM memory.raw.{table}"
    # All rows are in the tables, as if no run had a pack.
    yield "CREATE TABLE exported.settled.utterances AS FROM memory.settled.utterances WITH NO DATA"
    for table in ("hypotheses", "scores"):
        yield f"CREATE VIEW open.{table} AS FROM raw.{table}"


def _comment(connection: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, str]) -> None:
    # Write the meanings of columns where a client shows them.
    for column, meaning in columns.items():
        connection.execute(f'COMMENT ON COLUMN {name}."{column}" IS {sql_text(meaning)}')
