"""Check a store: read every file from end to end, and report each that is faulty, with a remedy.

Each page of a Parquet file is checked against its checksum, and its columns against its table's. Damage that no
checksum covers, in the footer and the page headers, is found by comparison: DuckDB must return the same rows as Arrow,
and the recorded minima and maxima, by which queries skip parts of a file, must match the rows.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emtta_core.errors import StoreError
from emtta_core.names import is_name
from emtta_core.store.backend import Entry
from emtta_core.store.lease import holder
from emtta_core.store.parquet import FAILURES, BrokenFile, Problem, misplaced, read_table
from emtta_core.store.snapshot import FOLDER, Pack, kind_of, run_of, source_of
from emtta_core.store.states import FOLDER as STATES
from emtta_core.store.states import broken_states
from emtta_core.store.store import COMPLETE_FILE, Store
from emtta_core.store.tables import TABLES, Table
from emtta_core.store.views import files_select, path_literal

_BATCH = 32
"""Files read at once from an object store."""

_FOOTER = """
    SELECT
        row_group_num_rows, path_in_schema, type,
        stats_null_count, stats_min_value, stats_max_value, stats_min, stats_max
    FROM parquet_metadata({})
    ORDER BY row_group_id, column_id
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """A faulty file."""

    file: str  # its full name
    problem: Problem  # the kind of fault
    reason: str  # what is wrong
    remedy: str  # what to do


@dataclass(frozen=True, slots=True)
class Check:
    """The result of checking a store."""

    files: int  # number of files read
    size: int  # their size in bytes
    faults: Sequence[Fault]  # the faulty files, by name


def check_store(store: Store, run_id: str | None = None) -> Check:
    """Check every file of a store, or of one run with its prepared audio and the results it reuses.

    Raises:
        UsageError: there is no such run.
        StoreError: the store cannot be listed.
    """
    entries = [entry for folder in (*TABLES, FOLDER, STATES) for entry in store.backend.list(folder)]
    if run_id is not None:
        corpora = _corpora(store, run_id)
        runs = {run_id, *(source_of(entry.name) for entry in store.backend.list(f"links/run_id={run_id}"))}
        prepared = [entry for entry in entries if entry.name.startswith("prepared/")]
        entries = [entry for entry in entries if run_of(entry.name) in runs]
        entries += [entry for entry in prepared if entry.name.split("/")[1] in corpora]
    states = [entry for entry in entries if entry.name.startswith(f"{STATES}/")]
    broken = [*_broken_files(store, entries), *broken_states(store.backend, states)]
    broken += [*_incomplete_corpora(store, entries), *_incomplete_runs(store, entries)]
    if run_id is None:
        broken += _broken_leases(store)
    faults = [Fault(store.backend.url(file.name), file.problem, file.reason, _remedy(store, file)) for file in broken]
    return Check(len(entries), sum(entry.size for entry in entries), sorted(faults, key=lambda fault: fault.file))


def _corpora(store: Store, run_id: str) -> set[str]:
    # The corpora of a run; none if its plan is broken, which is reported as a fault itself.
    try:
        return {row.corpus_id for row in store.plan(run_id)}
    except StoreError:
        return set()


def _broken_files(store: Store, entries: Sequence[Entry]) -> Iterator[BrokenFile]:
    files: list[str] = []
    for entry in entries:
        kind = kind_of(entry.name)
        if kind is not None and kind.holds(entry.name):
            files.append(entry.name)
        elif entry.name.endswith(".parquet"):
            yield misplaced(entry.name)
    with duckdb.connect(":memory:") as connection:
        set_entries = store.backend.attach(connection)
        set_entries(entries)
        for start in range(0, len(files), _BATCH):
            for name, content in store.backend.read_all(files[start : start + _BATCH]):
                kind = kind_of(name)
                assert kind is not None
                if isinstance(content, OSError):
                    broken: BrokenFile | None = BrokenFile.refused(name, content)
                else:
                    broken = _examine(store, connection, name, content, kind)
                if broken is not None and not (broken.problem == "missing" and not store.backend.exists(name)):
                    yield broken  # unless it was compacted or pruned meanwhile


def _examine(
    store: Store, connection: duckdb.DuckDBPyConnection, name: str, content: bytes, kind: Table | Pack
) -> BrokenFile | None:
    found = read_table(name, content, kind)
    if isinstance(found, BrokenFile):
        return found
    try:
        url = store.backend.url(name)
        reason = _wrong_bounds(connection, url, content, found) or _read_differently(connection, url, kind, found)
    except (*FAILURES, duckdb.Error) as error:
        reason = " ".join(str(error).split())[:300]
    return None if reason is None else BrokenFile(name, reason)


def _wrong_bounds(connection: duckdb.DuckDBPyConnection, url: str, content: bytes, rows: pa.Table) -> str | None:
    # Compare the minimum and maximum that the footer records for each column with the rows. DuckDB reads the footer,
    # because pyarrow does not catch C++ exceptions about a damaged one, and the process would end.
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        leaves = [file.schema.column(position) for position in range(len(file.schema))]
    columns = connection.execute(_FOOTER.format(path_literal(url))).fetchall()
    begin = 0
    for start in range(0, len(columns), len(leaves)):
        group = columns[start : start + len(leaves)]
        size = group[0][0]
        part, begin = rows.slice(begin, size), begin + size
        for leaf, (_, path, kind, nulls, *bounds) in zip(leaves, group, strict=True):
            name = leaf.path
            if (path.replace(", ", "."), kind) != (name, leaf.physical_type):
                return f"its footer is damaged: it describes the column {name} in different ways"
            if name not in rows.column_names:  # queries skip nothing by nested columns
                continue
            if nulls not in (None, part[name].null_count):
                return f"its footer is damaged: its null count for the column {name} is wrong"
            found = pc.min_max(part[name]).as_py()
            for bound, text in zip(("min", "max", "min", "max"), bounds, strict=True):
                if text is not None and pa.scalar(text).cast(part[name].type).as_py() != found[bound]:
                    return f"its footer is damaged: its bounds for the column {name} are wrong"
    return None if begin == rows.num_rows else "its footer is damaged: its row count is wrong"


def _read_differently(
    connection: duckdb.DuckDBPyConnection, url: str, kind: Table | Pack, rows: pa.Table
) -> str | None:
    # Compare the rows read by DuckDB with those read by Arrow.
    columns = ", ".join(f'"{name}"' for name in kind.schema.names)
    read_rows = f"SELECT {columns} FROM ({files_select(kind, f'[{path_literal(url)}]')})"
    connection.register("rows_of_the_file", rows.select(kind.schema.names))
    counts = connection.execute(
        f"SELECT (SELECT count(*) FROM ({read_rows})), "
        f"(SELECT count(*) FROM ({read_rows} EXCEPT ALL SELECT {columns} FROM rows_of_the_file))"
    ).fetchall()
    connection.unregister("rows_of_the_file")
    return None if counts == [(rows.num_rows, 0)] else "its footer is damaged: different readers see different rows"


def _incomplete_corpora(store: Store, entries: Sequence[Entry]) -> Iterator[BrokenFile]:
    # The completion markers of prepared corpora that cannot be read or whose number of shards is wrong.
    names = {entry.name for entry in entries}
    for name in sorted(name for name in names if name.startswith("prepared/") and name.endswith(f"/{COMPLETE_FILE}")):
        try:
            count = int(json.loads(store.backend.read(name))["shards"])
        except OSError as error:
            yield BrokenFile.refused(name, error)
            continue
        except (ValueError, KeyError, TypeError) as error:
            yield BrokenFile(name, f"it does not say how many shards there are ({error})")
            continue
        shards = {shard for shard in names if shard.startswith(name.removesuffix(COMPLETE_FILE)) and shard != name}
        if count != len(shards):
            yield BrokenFile(name, f"it records {count} shards, but there are {len(shards)}")


def _incomplete_runs(store: Store, entries: Sequence[Entry]) -> Iterator[BrokenFile]:
    # Missing records and plans of runs that have the other of the two, and broken links.
    files: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if is_name(run_of(entry.name)):
            files[run_of(entry.name)].add(entry.name.split("/")[0])
    for run_id, tables in files.items():
        for needed, other in (("runs", "plans"), ("plans", "runs")):
            name = TABLES[needed].layout.replace("…", run_id)
            if other in tables and needed not in tables and _is_idle(store, run_id) and not store.backend.exists(name):
                yield BrokenFile(name, f"the run {run_id} has no such file", "missing")
    for entry in entries:
        source = source_of(entry.name)
        if TABLES["links"].holds(entry.name) and not {"hypotheses", FOLDER} & files[source]:
            yield BrokenFile(entry.name, f"the results it links to, of the run {source}, are gone")


def _is_idle(store: Store, run_id: str) -> bool:
    try:
        return holder(store, run_id) is None
    except StoreError:
        return True


def _broken_leases(store: Store) -> Iterator[BrokenFile]:
    for folder in sorted({entry.name.rpartition("/")[0] for entry in store.backend.list("leases")}):
        try:
            holder(store, folder.partition("/")[2])
        except StoreError as error:
            yield BrokenFile(folder, str(error), "unreadable")


def _remedy(store: Store, file: BrokenFile) -> str:
    table = file.name.split("/")[0]
    if file.problem != "unreadable" and table == STATES:
        return f"delete it, and run its stream from the start: {store.command('rerun', run_of(file.name))}"
    if file.problem == "unreadable":
        return "check the disk, the network drive or the permissions, and try again; delete nothing"
    if file.problem == "other schema":
        return "read it with the release that wrote it, or keep files of other releases in a separate store"
    back = "restore it from a copy, or "
    if not _is_store_file(file.name) and file.problem == "malformed":
        return "move it out of the store: no command reads it"
    if table == "prepared":
        return f"delete the folder {store.backend.url(file.name.rpartition('/')[0])}; it is prepared again when needed"
    run = run_of(file.name)
    if table in ("runs", "plans"):
        record = store.backend.url(TABLES["runs"].layout.replace("…", run))
        return f"{back}delete {record} if it exists, and run the suite again with --run-id {run}: finished work is kept"
    if table == "statistics":
        return f"delete it, and compute it again: {store.command('rerun', run)}"
    return f"{back}delete it, and evaluate its utterances again: {store.command('rerun', run)}"


def _is_store_file(name: str) -> bool:
    kind = kind_of(name)
    return kind is not None and kind.holds(name)
