"""The views `raw.<table>` over all readable files, and the stack of views on them."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

import duckdb

from emtta_core.cache import folder
from emtta_core.identity import digest
from emtta_core.sanitize import escaped
from emtta_core.store.backend import Backend, Entry
from emtta_core.store.functions import create_functions
from emtta_core.store.parquet import BrokenFile, check_footers
from emtta_core.store.reports import views
from emtta_core.store.snapshot import PACK_OF, PACKS, UTTERANCES, Pack, Snapshot, run_of
from emtta_core.store.tables import REUSED, TABLES, Table

LINKS = TABLES["links"]

_SEED = "try_cast(seed AS BIGINT) AS seed"


def create_views(connection: duckdb.DuckDBPyConnection, backend: Backend) -> None:
    """Create the stack of `sql/views` on a new connection that has the functions, over empty raw views.

    Binding these views takes DuckDB a tenth of a second, and a run opens several catalogues. So they are bound once, in
    a database file in the user's cache, and copied from there within milliseconds.
    """
    file = _bound_views()
    for reuse in (True, False):
        with suppress(duckdb.Error, OSError):
            if not reuse:
                _bind_views(file, backend)
            _copy_views(connection, file)
            return
    _create_stack(connection, backend)  # the cache cannot be written


@cache
def _digest_of_views() -> str:
    # Only the columns of the raw views matter, as a snapshot's views replace them.
    kinds: list[Table | Pack] = [*TABLES.values(), *PACKS.values()]
    columns = [str(kind.schema.remove_metadata()) for kind in kinds]
    return digest([duckdb.__version__, columns, [[view.name, view.sql] for view in views().values()]])


def _bound_views() -> Path:
    return folder("views") / f"{_digest_of_views()}.duckdb"


def _bind_views(file: Path, backend: Backend) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{uuid4().hex[:12]}.tmp")
    try:
        with duckdb.connect(temporary) as connection:
            create_functions(connection)
            _create_stack(connection, backend)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _copy_views(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    ((database,),) = connection.execute("SELECT current_database()").fetchall()
    connection.execute(f"ATTACH {sql_text(str(file))} AS bound_views (READ_ONLY)")
    try:
        connection.execute(f"COPY FROM DATABASE bound_views TO {database}")
    finally:
        connection.execute("DETACH bound_views")


def _create_stack(connection: duckdb.DuckDBPyConnection, backend: Backend) -> None:
    create_raw_views(connection, backend, Snapshot({}, dict.fromkeys(PACKS, ())))
    for view in views().values():
        connection.execute(f'CREATE OR REPLACE VIEW "{view.name}" AS\n{view.sql}')


def create_raw_views(
    connection: duckdb.DuckDBPyConnection, backend: Backend, snapshot: Snapshot, *, named: bool = False
) -> None:
    """Create the views over the files of a snapshot, replacing existing ones.

    Args:
        connection: the connection.
        backend: the store's backend.
        snapshot: the files.
        named: whether the views themselves name the files, so that other processes can read them; by default,
            variables of the connection do.

    Raises:
        duckdb.Error: a file cannot be read.
    """
    for schema in ("raw", "open", "settled"):
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")

    def rows(name: str, kind: Table | Pack, entries: Sequence[Entry]) -> Sequence[str]:
        # The SELECT of some files, if there are any; a variable holds their names, which keeps the view short.
        if not entries:
            return []
        paths = [_escaped(backend.url(entry.name)) for entry in entries]
        if named:
            return [files_select(kind, f"[{', '.join(map(sql_text, paths))}]")]
        connection.execute(f"SET VARIABLE files_of_{name} = CAST(? AS VARCHAR[])", [paths])
        return [files_select(kind, f"getvariable('files_of_{name}')")]

    def view(name: str, selects: Sequence[str]) -> None:
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS {' UNION ALL BY NAME '.join(selects)}")

    # A run is open while some of its utterances are outside its pack, which then no longer decides which rows count.
    links = [_empty_select(connection, LINKS), *rows("links", LINKS, snapshot.loose.get("links", ()))]
    view("raw.links", links)
    opened, packs = snapshot.open_runs, snapshot.packs[UTTERANCES.name]
    settled = rows("settled_packs", UTTERANCES, [entry for entry in packs if run_of(entry.name) not in opened])
    unsettled = rows("open_packs", UTTERANCES, [entry for entry in packs if run_of(entry.name) in opened])
    view("settled.utterances", [_empty_select(connection, UTTERANCES), *settled])
    for table in TABLES.values():
        if table is LINKS:
            continue
        loose = rows(table.name, table, snapshot.loose.get(table.name, ()))
        selects = [_empty_select(connection, table), *loose]
        pack = PACK_OF.get(table.name)
        packed = settled
        if pack is UTTERANCES:
            selects += [pack.select(table.name, select) for select in unsettled]
        elif pack is not None:
            packed = rows(f"packs_of_{pack.name}", pack, snapshot.packs[pack.name])
        own_selects = [*selects, *(pack.select(table.name, select) for select in packed if pack is not None)]
        reused = [_reused_select(table, own_selects)] if table.name in REUSED and len(links) > 1 else []
        if pack is UTTERANCES:
            view(f"open.{table.name}", [*selects, *reused])
            own_selects, reused = [f"FROM open.{table.name}", *own_selects[len(selects) :]], []
        view(f"raw.{table.name}", [*own_selects, *reused])


def materialize_rows(connection: duckdb.DuckDBPyConnection, changed: Collection[str] = tuple(TABLES)) -> None:
    """Load all rows behind the views, and the figures computed from them, into memory.

    Later queries read no file.

    Args:
        connection: a connection that has the views over the files.
        changed: the tables to read; the rows of the others are already in memory.

    Raises:
        duckdb.Error: a file cannot be read; the views are then unchanged.
    """
    connection.execute("CREATE SCHEMA IF NOT EXISTS held")
    names = {f"{_schema_of(table)}.{table}": table in changed for table in TABLES if table != "prepared"}
    names["settled.utterances"] = not set(changed).isdisjoint(UTTERANCES.tables)
    for name, is_read in names.items():
        if is_read:
            connection.execute(f'CREATE OR REPLACE TABLE held."{name}" AS FROM {name}')
    for name in names:
        connection.execute(f'CREATE OR REPLACE VIEW {name} AS FROM held."{name}"')
    stack = views()
    for name in _STATISTICS_VIEWS if set(changed) <= {"statistics"} else (*_FIGURES, *_STATISTICS_VIEWS):
        connection.execute(f'CREATE OR REPLACE TABLE held."{name}" AS\n{stack[name].sql}')
        connection.execute(f'CREATE OR REPLACE VIEW "{name}" AS FROM held."{name}"')


_FIGURES = ("planned", "attempts", "cells", "domains", "groups", "revisions")
_STATISTICS_VIEWS = ("statistics", "method_pairs", "best")
"""Views with few rows on which others are built, in stack order; as tables, they are computed only once."""


def _schema_of(table: str) -> str:
    # The schema with the rows of a table that are in no pack of the kind `utterances`.
    return "open" if PACK_OF.get(table) is UTTERANCES else "raw"


def _reused_select(table: Table, own_selects: Sequence[str]) -> str:
    # The SELECT of reused rows, under the cells that reuse them, from all rows; the corpus's metadata for an utterance
    # may have changed since its result was made.
    keys = "run_id, domain, method, cell_id, attempt"
    now = " REPLACE (links.metadata AS metadata)" if "metadata" in table.schema.names else ""
    return f"""
        SELECT links.run_id, links.domain, links.method, links.cell_id, 0 AS attempt, made.* EXCLUDE ({keys}){now}
        FROM raw.links AS links
        INNER JOIN ({" UNION ALL BY NAME ".join(own_selects)}) AS made
            ON made.run_id = links.source_run
            AND made.domain = links.source_domain
            AND made.method = links.source_method
            AND made.cell_id = links.source_cell_id
            AND made.attempt = links.source_attempt
            AND made.utterance_id = links.utterance_id"""


def scan(backend: Backend, snapshot: Snapshot) -> Iterator[BrokenFile]:
    """Yield the files that DuckDB cannot read, trying every column except audio."""
    broken = tuple(check_footers(backend, tuple(snapshot.entries)))
    yield from broken
    intact = snapshot.without({file.name for file in broken})
    sources: list[tuple[list[str], Table | Pack, Sequence[Entry]]]
    sources = [(table.schema.names, table, intact.loose.get(table.name, ())) for table in TABLES.values()]
    sources += [(pack.schema.names, pack, intact.packs[pack.name]) for pack in PACKS.values()]
    with duckdb.connect(":memory:") as connection:
        backend.attach(connection)(tuple(intact.entries))
        for names, kind, entries in sources:
            columns = ", ".join(f'max(hash("{name}"))' for name in names if name != "audio")
            for entry in entries:
                source = files_select(kind, f"[{path_literal(backend.url(entry.name))}]")
                try:
                    connection.execute(f"SELECT {columns} FROM ({source})").fetchall()
                except duckdb.Error as error:
                    yield BrokenFile(entry.name, " ".join(str(error).split())[:300])


def describe_broken(backend: Backend, broken: Sequence[BrokenFile], named: int = 3) -> Iterator[str]:
    """Yield what is wrong with some files, one line per reason, each naming at most `named` files."""
    for reason in dict.fromkeys(file.reason for file in broken):
        files = [backend.url(file.name) for file in broken if file.reason == reason]
        more = f" and {len(files) - named} more" if len(files) > named else ""
        yield escaped(f"{', '.join(files[:named])}{more}: {reason}")  # logs cannot hold undecodable names


def path_literal(path: str) -> str:
    """`path` as an SQL string literal, with glob characters escaped."""
    return sql_text(_escaped(path))


def sql_text(value: str) -> str:
    """`value` as an SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def _escaped(path: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in path)


_EMPTY_SELECTS: dict[Table | Pack, str] = {}


def _empty_select(connection: duckdb.DuckDBPyConnection, kind: Table | Pack) -> str:
    # A SELECT of no rows with all columns of a table, so that its view exists without any file.
    if kind not in _EMPTY_SELECTS:
        empty = connection.from_arrow(kind.schema.empty_table())
        keys = ("run_id",) if isinstance(kind, Pack) else kind.keys or ("corpus_id",)
        types = {key: "BIGINT" if key == "seed" else "VARCHAR" for key in keys}
        columns = [*zip(empty.columns, empty.types, strict=True), *types.items()]
        nulls = ", ".join(f'NULL::{of_type} AS "{name}"' for name, of_type in columns)
        _EMPTY_SELECTS[kind] = f"SELECT {nulls} WHERE false"
    return _EMPTY_SELECTS[kind]


def files_select(kind: Table | Pack, files: str) -> str:
    """The SELECT of some files; columns from the path are text, whatever they look like, except the seed."""
    if isinstance(kind, Pack) or kind.keys:
        # A path has `none` if there is no seed.
        columns = "*" if isinstance(kind, Pack) or "seed" not in kind.keys else f"* REPLACE ({_SEED})"
        return f"SELECT {columns} FROM read_parquet({files}, hive_partitioning = true, hive_types_autocast = false)"
    corpus = r"regexp_extract(filename, '([^/\\]+)[/\\][^/\\]+$', 1) AS corpus_id"
    return f"SELECT * EXCLUDE (filename), {corpus} FROM read_parquet({files}, filename = true)"
