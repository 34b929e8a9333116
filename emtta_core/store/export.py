"""Export the views of the store to a DuckDB file, for any DuckDB client or tool that connects to one.

The file holds the stack of `sql/views`, with the meaning of each view and column as a comment, and under `raw` either
views over the store's Parquet files by absolute path, or the rows themselves. It is a snapshot: export again to see
runs that are added, compacted or removed later.
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
"""The table that identifies the file as an export."""

_STORAGE = "v1.0.0"
"""The storage version of the file, which every DuckDB release from 1.0 on can read."""


ENDINGS = ("", ".duckdb", ".db", ".ddb")
"""File extensions of an export; the first means no extension."""


@dataclass(frozen=True, slots=True)
class Export:
    """The outcome of an export."""

    file: Path  # the DuckDB file
    runs: int  # how many runs it shows
    size: int  # bytes
    copied: bool  # whether it contains the rows
    left_out: tuple[str, ...]  # views it lacks, as they need a function that only emtta provides


def export(store: Store, file: Path, *, run_ids: Collection[str] = (), copy: bool = False) -> Export:
    """Write a DuckDB file with the views of a store, replacing an earlier export.

    It is written to a temporary file and renamed, so a reader never sees a partial export.

    Args:
        store: the store.
        file: the file to write.
        run_ids: the runs to show; all by default.
        copy: copy the rows, except prepared audio, so that the store is no longer needed.

    Raises:
        UsageError: a run is unknown, `file` exists and is not an export, or the store is in a bucket and `copy` is
            false.
        StoreError: the record or the plan of a run cannot be read.
        EmttaError: DuckDB fails, or the file cannot be written.
    """
    if not copy and "://" in store.location:
        raise UsageError(
            f"the store {store.location} is in a bucket, which a DuckDB client reads only with an extension and "
            "credentials of its own; add --copy to copy the rows into the file"
        )
    _check_path(file)
    for run_id in run_ids:
        store.run(run_id)
    with Catalogue(store) as catalogue:
        snapshot = catalogue.snapshot
    if run_ids:
        corpora = {row.corpus_id for run_id in run_ids for row in store.plan(run_id)}
        snapshot = snapshot.of_runs(run_ids, corpora)
    # Written to a temporary file and renamed, so that a reader never sees a partial export.
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        try:
            left_out = _write(store, snapshot, temporary, copy)
        except duckdb.Error:  # a file may be damaged inside: read each once, and export the good ones
            temporary.unlink(missing_ok=True)
            snapshot = snapshot.without({broken.name for broken in scan(store.backend, snapshot)})
            left_out = _write(store, snapshot, temporary, copy)
        temporary.replace(file)
    except (duckdb.Error, OSError) as error:
        raise EmttaError(f"{file} could not be written: {' '.join(str(error).split())}") from error
    finally:
        for leftover in (temporary, temporary.with_name(f"{temporary.name}.wal")):
            leftover.unlink(missing_ok=True)
    return Export(file, len(run_ids) or len(store.runs()), file.stat().st_size, copy, left_out)


def _check_path(file: Path) -> None:
    # Refuse a name with another format's extension, an existing file that is not an export, and a missing folder.
    if file.suffix.lower() not in ENDINGS:
        raise UsageError(f"{file} is not the name of a DuckDB file; choose an ending from: {', '.join(ENDINGS[1:])}")
    if not file.parent.is_dir():
        raise UsageError(f"{file} cannot be written: there is no folder {file.parent}")
    if not file.exists():
        return
    with contextlib.suppress(duckdb.Error), duckdb.connect(str(file), read_only=True) as connection:
        if connection.execute(f"SELECT made_by FROM {ABOUT}").fetchall() == [("emtta catalog export",)]:
            return
    raise UsageError(f"{file} exists and is not an earlier export; remove it, or name another file")


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
        connection.execute("BEGIN")  # otherwise each of some hundred comments is written separately
        if copy:
            for statement in _copies():
                connection.execute(statement)
        else:
            create_raw_views(connection, store.backend, snapshot, named=True)
        # 2) The stack of views. A plain DuckDB client lacks emtta's functions: a view that calls one becomes a table if
        # rows are copied, and is left out otherwise.
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
        # 3) The origin, by which a later export recognizes its own files, so that it overwrites nothing else.
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
    # The statements that copy the rows of the tables into the file and create the views on them.
    for schema in ("raw", "open", "settled"):
        yield f"CREATE SCHEMA IF NOT EXISTS exported.{schema}"
    for table in TABLES:
        columns = "* REPLACE (CASE WHEN false THEN audio END AS audio)" if table == "prepared" else "*"
        yield f"CREATE TABLE exported.raw.{table} AS SELECT {columns} FROM memory.raw.{table}"
    # All rows are in the tables, as if there were no packs.
    yield "CREATE TABLE exported.settled.utterances AS FROM memory.settled.utterances WITH NO DATA"
    for table in ("hypotheses", "scores"):
        yield f"CREATE VIEW open.{table} AS FROM raw.{table}"


def _comment(connection: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, str]) -> None:
    # Store the meanings of columns as comments, which clients show.
    for column, meaning in columns.items():
        connection.execute(f'COMMENT ON COLUMN {name}."{column}" IS {sql_text(meaning)}')
