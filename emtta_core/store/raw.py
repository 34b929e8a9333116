"""The views `raw.<table>`: the columns of a table over all of its files that can be read."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import duckdb

from emtta_core.store.place import Entry, Place
from emtta_core.store.read import BrokenFile, check
from emtta_core.store.schema import TABLES, Table

Examine = Callable[[Table, Sequence[Entry]], Iterable[BrokenFile]]
"""Tells what is wrong with files of a table."""


def create_raw_views(connection: duckdb.DuckDBPyConnection, place: Place, examine: Examine) -> tuple[BrokenFile, ...]:
    """Create the view of each table over its files in the store at `place`, and return those that were left out.

    Raises:
        duckdb.Error: when a file that `examine` lets through cannot be read all the same.
    """
    broken: list[BrokenFile] = []
    connection.execute("CREATE SCHEMA raw")
    for table in TABLES.values():
        broken += _create(connection, table, place, examine)
    return tuple(broken)


def scan(place: Place, table: Table, entries: Sequence[Entry]) -> Iterator[BrokenFile]:
    """Yield what is wrong with files of `table`, of which every column is read but the audio, as DuckDB reads it."""
    broken = tuple(check(place, entries))
    yield from broken
    left_out = {file.name for file in broken}
    columns = ", ".join(f'max(hash("{name}"))' for name in table.schema.names if name != "audio")
    with duckdb.connect(":memory:") as connection:
        place.open_to(connection)
        for entry in entries:
            if entry.name in left_out:
                continue
            try:
                connection.execute(f"SELECT {columns} FROM ({_files_select(table, [literal(place.url(entry.name))])})")
                connection.fetchall()
            except duckdb.Error as error:
                yield BrokenFile(entry.name, " ".join(str(error).split())[:300])


def grouped(place: Place, broken: Sequence[BrokenFile], named: int = 3) -> Iterator[str]:
    """Yield what is wrong with some files, a line a reason, which names at most `named` of its files."""
    for reason in dict.fromkeys(file.reason for file in broken):
        files = [place.url(file.name) for file in broken if file.reason == reason]
        more = f" and {len(files) - named} more" if len(files) > named else ""
        yield f"{', '.join(files[:named])}{more}: {reason}"


def literal(path: str, pattern: str = "") -> str:
    """Return `path`, its own characters taken as they are, followed by the glob `pattern`, as an SQL text."""
    escaped = "".join(f"[{character}]" if character in "*?[" else character for character in path)
    return text("/".join([escaped, pattern]) if pattern else escaped)


def text(value: str) -> str:
    """Return `value` as an SQL text."""
    return "'" + value.replace("'", "''") + "'"


def _create(
    connection: duckdb.DuckDBPyConnection, table: Table, place: Place, examine: Examine
) -> Sequence[BrokenFile]:
    """Create the view over a table's files, and return those that were left out."""
    entries = [entry for entry in place.list(table.name) if table.holds(entry.name)]
    broken = list(examine(table, entries))
    # A glob stays short for thousands of files, and sees those to come. One broken file under it would break
    # every query, so that the good ones are listed then.
    left_out = {found.name for found in broken}
    patterns = (
        [literal(place.url(entry.name)) for entry in entries if entry.name not in left_out]
        if broken
        else [literal(place.location, table.pattern)] * bool(entries)
    )
    selects = [_empty_select(connection, table)]
    if patterns:
        selects.append(_files_select(table, patterns))
    connection.execute(f"CREATE VIEW raw.{table.name} AS {' UNION ALL BY NAME '.join(selects)}")
    return broken


def _empty_select(connection: duckdb.DuckDBPyConnection, table: Table) -> str:
    """Return a SELECT of no row, with all columns of a table, so that its view is there without any file."""
    empty = connection.from_arrow(table.schema.empty_table())
    keys = table.keys or ("corpus_id",)
    columns = [*zip(empty.columns, empty.types, strict=True), *((key, "VARCHAR") for key in keys)]
    return "SELECT " + ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in columns) + " WHERE false"


def _files_select(table: Table, patterns: Sequence[str]) -> str:
    """Return the SELECT of a table's files; the columns of the path are text, whatever they look like."""
    source = f"read_parquet([{', '.join(patterns)}]"
    if table.keys:
        return f"SELECT * FROM {source}, hive_partitioning = true, hive_types_autocast = false)"
    corpus = r"regexp_extract(filename, '([^/\\]+)[/\\][^/\\]+$', 1) AS corpus_id"
    return f"SELECT * EXCLUDE (filename), {corpus} FROM {source}, filename = true)"
