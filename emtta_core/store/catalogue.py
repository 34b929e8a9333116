"""SQL over the store: an in-memory DuckDB whose views are the tables as stored and the stack of `sql/views`.

`raw.<table>` holds every row of every readable file. The views built on them, under their bare names, hold the rows
that count. Nothing is copied: each query reads the Parquet files it needs.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import duckdb

from emtta_core.errors import EmttaError, UsageError, unknown
from emtta_core.store.raw import Examine, create_raw_views, grouped, literal, scan, text
from emtta_core.store.read import BrokenFile, glance
from emtta_core.store.readonly import check_reads_only
from emtta_core.store.reports import Query, report, views
from emtta_core.store.result import Result
from emtta_core.store.store import Store

log = logging.getLogger("emtta.store")

_MISTAKES = (
    *(duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.PermissionException),
    *(duckdb.ConversionException, duckdb.OutOfRangeException),
)
"""What is wrong with a query, whatever the files hold."""


class Catalogue:
    """The store's tables, views and reports, to be queried and never written.

    Files that the store gains after the catalogue was made are seen where its table had any before. A file that cannot
    be read, or whose columns are those of another release, is left out with a warning, so that it breaks no query on
    anything else. A file cut short is found at once; that one is damaged inside is found when a query fails on it:
    then every file is read once, and the query is asked again without the bad ones.

    Attributes:
        store: the store.
        broken: the files that were left out.

    Example:
        >>> Catalogue(Store.open("store")).query("SELECT method, wer FROM groups").rows  # doctest: +SKIP
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.broken: tuple[BrokenFile, ...] = ()
        try:
            self._connection = self._connect(lambda _, entries: glance(store.place, entries))
        except duckdb.Error:
            self._connection = self._connect(partial(scan, store.place))

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

        def ask() -> Result:
            check_reads_only(self._connection, sql)
            return Result(self._connection.sql(sql, params=parameters).to_arrow_table())

        return self._answer("the query", ask)

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

        def ask() -> Result:
            for key, value in values.items():
                self._connection.execute(f'SET VARIABLE "{key}" = CAST(? AS VARCHAR)', [value])
            return Result(self._connection.sql(chosen.sql).to_arrow_table())

        return self._answer(f"the report {name}", ask)

    def _answer(self, what: str, ask: Callable[[], Result]) -> Result:
        """Return what `ask` returns, asked again where a file may have made it fail.

        At first of the files that are there now, for one may have been removed meanwhile, then of those alone that can
        be read from end to end.
        """
        place = self.store.place
        more: list[Examine] = [lambda _, entries: glance(place, entries), partial(scan, place)]
        self._look_again()
        while True:
            try:
                return ask()
            except _MISTAKES as error:
                raise EmttaError(f"{what} failed: {error}") from error
            except duckdb.Error as error:
                if not more:
                    raise EmttaError(f"{what} failed: {error}") from error
                connection = self._connection
                self._connection = self._connect(more.pop(0))
                connection.close()

    def _values(self, chosen: Query, run_id: str | None, parameters: Mapping[str, str]) -> dict[str, str | None]:
        """Return a value for each parameter of a report."""
        if run_id is not None and "run_id" not in chosen.parameters:
            raise UsageError(f"the report {chosen.name} is on all runs of the store; leave the run {run_id!r} out")
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

    def _connect(self, examine: Examine) -> duckdb.DuckDBPyConnection:
        """Return a database with every view, over the files that `examine` lets through; warn of the others."""
        connection = duckdb.connect(":memory:")
        connection.execute("SET TimeZone = 'UTC'")
        self._look_again = self.store.place.open_to(connection)
        broken = create_raw_views(connection, self.store.place, examine)
        for line in grouped(self.store.place, [file for file in broken if file not in self.broken]):
            log.warning("left out of every query: %s", line)
        self.broken = broken
        for view in views().values():
            connection.execute(f'CREATE VIEW "{view.name}" AS\n{view.sql}')
        self._close_in(connection)
        return connection

    def _close_in(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Keep every later statement within the store's place."""
        folders = f"{literal(self.store.location)}, {text(self.store.location)}"
        for setting in (
            f"allowed_directories = [{folders}]",
            "enable_external_access = false",
            "python_enable_replacements = false",
            "lock_configuration = true",
        ):
            connection.execute(f"SET {setting}")
