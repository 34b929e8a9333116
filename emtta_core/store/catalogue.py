"""SQL over the store: an in-memory DuckDB whose views are the tables as stored and the stack of `sql/views`.

`raw.<table>` holds every row of every readable file. The views built on them, under their bare names, hold the rows
that count. Nothing is copied: each query reads the Parquet files it needs.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import duckdb

from emtta_core.errors import EmttaError, unknown
from emtta_core.store.read import BrokenFile, check
from emtta_core.store.readonly import check_reads_only
from emtta_core.store.reports import Query, report, views
from emtta_core.store.result import Result
from emtta_core.store.schema import TABLES, Table
from emtta_core.store.store import Store

log = logging.getLogger("emtta.store")


class Catalogue:
    """The store's tables, views and reports, to be queried and never written.

    Files that the store gains after the catalogue was made are seen where its table had any before. A file that is
    cut short is left out, with a warning, so that it breaks no query on anything else.

    Attributes:
        store: the store.
        broken: the files that were left out.

    Example:
        >>> Catalogue(Store.open("store")).query("SELECT method, wer FROM groups").rows  # doctest: +SKIP
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._connection = duckdb.connect(":memory:")
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("CREATE SCHEMA raw")
        broken: list[BrokenFile] = []
        for table in TABLES.values():
            broken += self._create_raw(table)
        self.broken = tuple(broken)
        for file in self.broken:
            log.warning("left out of the query: %s: %s", file.path, file.reason)
        for view in views().values():
            self._connection.execute(f'CREATE VIEW "{view.name}" AS\n{view.sql}')
        self._close_in()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the memory; the catalogue answers no query after it."""
        self._connection.close()

    def query(self, sql: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None) -> Result:
        """Return the rows of one SELECT.

        Args:
            sql: the query.
            parameters: values for its `$name` or `?`.

        Raises:
            EmttaError: when DuckDB refuses or fails it; the message holds DuckDB's own words.
            UsageError: when it is not a single SELECT that only reads.
        """
        try:
            check_reads_only(self._connection, sql)
            return Result(self._connection.sql(sql, params=parameters).to_arrow_table())
        except duckdb.Error as error:
            raise EmttaError(f"the query failed: {error}") from error

    def report(self, name: str, run_id: str | None = None, **parameters: str) -> Result:
        """Return the rows of a named report.

        Args:
            name: one of `reports()`.
            run_id: the run, for a report on a run; the newest by default. On a store without runs a report has no row.
            **parameters: the other parameters that the report's head declares, as text.

        Raises:
            UsageError: when the report, the run or a parameter is unknown; it lists those there are.
            EmttaError: when DuckDB fails it.
        """
        chosen = report(name)
        values = self._values(chosen, run_id, parameters)
        try:
            for key, value in values.items():
                self._connection.execute(f'SET VARIABLE "{key}" = CAST(? AS VARCHAR)', [value])
            return Result(self._connection.sql(chosen.sql).to_arrow_table())
        except duckdb.Error as error:
            raise EmttaError(f"the report {name} failed: {error}") from error

    def _values(self, chosen: Query, run_id: str | None, parameters: Mapping[str, str]) -> dict[str, str | None]:
        """Return a value for each parameter of a report."""
        given = dict(parameters) if run_id is None else {**parameters, "run_id": run_id}
        for key in given:
            if key not in chosen.parameters:
                raise unknown(f"parameter of the report {chosen.name},", key, list(chosen.parameters))
        values = {key: given.get(key, declared.default) for key, declared in chosen.parameters.items()}
        if "run_id" in values:
            runs = self.query("SELECT run_id FROM raw.runs ORDER BY created_at DESC, run_id DESC").rows
            names = [str(row[0]) for row in runs]
            if values["run_id"] is None:
                values["run_id"] = names[0] if names else None
            elif values["run_id"] not in names:
                raise unknown("run", values["run_id"], names)
        return values

    def _create_raw(self, table: Table) -> list[BrokenFile]:
        """Create the view over a table's files, and return those that were left out."""
        paths = sorted(self.store.path.glob(table.pattern))
        broken = [found for found in map(check, paths) if found is not None]
        # A glob stays short for thousands of files, and sees those to come. One broken file under it would break
        # every query, so that the good ones are listed then.
        left_out = {found.path for found in broken}
        patterns = (
            [_literal(path) for path in paths if path not in left_out]
            if broken
            else [_literal(self.store.path, table.pattern)] * bool(paths)
        )
        selects = [self._empty_select(table)]
        if patterns:
            selects.append(_files_select(table, patterns))
        self._connection.execute(f"CREATE VIEW raw.{table.name} AS {' UNION ALL BY NAME '.join(selects)}")
        return broken

    def _empty_select(self, table: Table) -> str:
        """Return a SELECT of no row, with all columns of a table, so that its view is there without any file."""
        empty = self._connection.from_arrow(table.schema.empty_table())
        columns = [*zip(empty.columns, empty.types, strict=True), *((key, "VARCHAR") for key in _keys(table))]
        return "SELECT " + ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in columns) + " WHERE false"

    def _close_in(self) -> None:
        """Keep every later statement within the store's folder."""
        folders = f"{_literal(self.store.path)}, {_text(str(self.store.path))}"
        for setting in (
            f"allowed_directories = [{folders}]",
            "enable_external_access = false",
            "python_enable_replacements = false",
            "lock_configuration = true",
        ):
            self._connection.execute(f"SET {setting}")


def _keys(table: Table) -> tuple[str, ...]:
    """Return the columns that come from a file's path."""
    return table.keys or ("corpus_id",)


def _files_select(table: Table, patterns: Sequence[str]) -> str:
    """Return the SELECT of a table's files; the columns of the path are text, whatever they look like."""
    source = f"read_parquet([{', '.join(patterns)}]"
    if table.keys:
        return f"SELECT * FROM {source}, hive_partitioning = true, hive_types_autocast = false)"
    corpus = r"regexp_extract(filename, '([^/\\]+)[/\\][^/\\]+$', 1) AS corpus_id"
    return f"SELECT * EXCLUDE (filename), {corpus} FROM {source}, filename = true)"


def _literal(path: Path, pattern: str = "") -> str:
    """Return `path`, its own characters taken as they are, followed by the glob `pattern`, as an SQL text."""
    escaped = "".join(f"[{character}]" if character in "*?[" else character for character in str(path))
    return _text("/".join([escaped, pattern]) if pattern else escaped)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
