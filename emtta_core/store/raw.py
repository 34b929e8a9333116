"""The views `raw.<table>`: the columns of a table over all of its files that can be read."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import duckdb

from emtta_core.store.read import BrokenFile, check
from emtta_core.store.schema import TABLES, Table

Examine = Callable[[Table, Path], BrokenFile | None]
"""Tells what is wrong with a file of a table; None for nothing."""


def create_raw_views(connection: duckdb.DuckDBPyConnection, folder: Path, examine: Examine) -> tuple[BrokenFile, ...]:
    """Create the view of each table over its files in the store at `folder`, and return those that were left out.

    Raises:
        duckdb.Error: when a file that `examine` lets through cannot be read all the same.
    """
    broken: list[BrokenFile] = []
    connection.execute("CREATE SCHEMA raw")
    for table in TABLES.values():
        broken += _create(connection, table, folder, examine)
    return tuple(broken)


def scan(table: Table, path: Path) -> BrokenFile | None:
    """Return what is wrong with a file of `table`, of which every column is read but the audio, as DuckDB reads it."""
    broken = check(path)
    if broken is not None:
        return broken
    columns = [f'max(hash("{name}"))' for name in table.schema.names if name != "audio"]
    try:
        with duckdb.connect(":memory:") as connection:
            connection.execute(f"SELECT {', '.join(columns)} FROM ({_files_select(table, [literal(path)])})").fetchall()
    except duckdb.Error as error:
        return BrokenFile(path, " ".join(str(error).split())[:300])
    return None


def grouped(broken: Sequence[BrokenFile], named: int = 3) -> Iterator[str]:
    """Yield what is wrong with some files, a line a reason, which names at most `named` of its files."""
    for reason in dict.fromkeys(file.reason for file in broken):
        paths = [str(file.path) for file in broken if file.reason == reason]
        more = f" and {len(paths) - named} more" if len(paths) > named else ""
        yield f"{', '.join(paths[:named])}{more}: {reason}"


def literal(path: Path, pattern: str = "") -> str:
    """Return `path`, its own characters taken as they are, followed by the glob `pattern`, as an SQL text."""
    escaped = "".join(f"[{character}]" if character in "*?[" else character for character in str(path))
    return text("/".join([escaped, pattern]) if pattern else escaped)


def text(value: str) -> str:
    """Return `value` as an SQL text."""
    return "'" + value.replace("'", "''") + "'"


def _create(
    connection: duckdb.DuckDBPyConnection, table: Table, folder: Path, examine: Examine
) -> Sequence[BrokenFile]:
    """Create the view over a table's files, and return those that were left out."""
    paths = sorted(folder.glob(table.pattern))
    broken = [found for found in (examine(table, path) for path in paths) if found is not None]
    # A glob stays short for thousands of files, and sees those to come. One broken file under it would break
    # every query, so that the good ones are listed then.
    left_out = {found.path for found in broken}
    patterns = (
        [literal(path) for path in paths if path not in left_out]
        if broken
        else [literal(folder, table.pattern)] * bool(paths)
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
