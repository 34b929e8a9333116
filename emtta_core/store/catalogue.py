"""SQL over the store: an in-memory DuckDB database with views of the stored tables and the stack of `sql/views`.

`raw.<table>` holds every row of every readable file. The views built on them hold the rows that count. Nothing is
copied: each query reads the Parquet files it needs.
"""

import logging
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import duckdb
import pyarrow as pa

from emtta_core.errors import EmttaError, StoreError, UsageError
from emtta_core.store.backend import Backend, Entry
from emtta_core.store.functions import create_functions
from emtta_core.store.parquet import BrokenFile, check_tails, misplaced
from emtta_core.store.queries import Limits, check_reads_only, hint, memory_limit
from emtta_core.store.reports import check_values, parameter_values, report
from emtta_core.store.result import Result, to_arrow
from emtta_core.store.snapshot import Snapshot
from emtta_core.store.store import Store
from emtta_core.store.tables import TABLES
from emtta_core.store.views import (
    create_raw_views,
    create_views,
    describe_broken,
    materialize_rows,
    path_literal,
    scan,
    sql_text,
)

log = logging.getLogger("emtta.store")

Output = TypeVar("Output")

Examine = Callable[[Backend, Snapshot], Iterable[BrokenFile]]
"""A function that finds the broken files of a snapshot."""

_MISTAKES = (
    *(duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.PermissionException),
    *(duckdb.ConversionException, duckdb.OutOfRangeException),
)
"""Errors in the query itself, independent of the files."""

_FAILURES = {
    "Conversion Error": duckdb.ConversionException,
    "Out of Range Error": duckdb.OutOfRangeException,
    "Out of Memory Error": duckdb.OutOfMemoryException,
}
"""By the prefix of its message, the type of an error while rows are fetched, which Arrow does not preserve."""

_TRIES = 20
"""How often a query is tried while files that it reads are moved or removed."""


def open_store(location: str | Path, *, runs: Collection[str] | None = None) -> "Catalogue":
    """Open a store to query it.

    Args:
        location: a folder, or `s3://BUCKET/PREFIX`.
        runs: show only these runs, without their prepared audio; much faster on stores with many runs.

    Raises:
        StoreError: there is no store, or it cannot be read.
        UsageError: `location` is neither.

    Example:
        >>> store = open_store("emtta-store")  # doctest: +SKIP
        >>> store.sql("SELECT domain, wer FROM cells WHERE method = $method", method="em-tok-b").df()  # doctest: +SKIP
        >>> store.report("leaderboard", run="demo-1a2b3c4d").pl()  # doctest: +SKIP
    """
    return Catalogue(Store.open(location), runs=runs)


class Catalogue:
    """Read-only queries on the store's tables, views and reports.

    Each query reads the files that exist when it starts. A file that cannot be read, or has the columns of another
    release, is left out with a warning, so queries on other data still work. A truncated file is found at once; one
    damaged inside is found when a query fails on it: then every file is read once, and the query is repeated without
    the bad ones.

    Attributes:
        store: the store.
        location: its location, as the user names it.
        limits: the limits of a query.
        broken: the files left out.
    """

    def __init__(
        self,
        store: Store,
        *,
        runs: Collection[str] | None = None,
        tables: Collection[str] = tuple(TABLES),
        scorer: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Open the catalogue.

        Args:
            store: the store.
            runs: show only these runs, without their prepared audio; much faster on stores with many runs.
            tables: load only these stored tables; also faster.
            scorer: the scorer of all figures; by default the first of each run's suite.
            limits: the limits of a query; generous by default.

        Raises:
            StoreError: the store cannot be listed.
            EmttaError: DuckDB cannot read it.
        """
        self.store = store
        self.location = store.location
        self.limits = limits or Limits()
        self.broken: tuple[BrokenFile, ...] = ()
        self._take = partial(Snapshot.take, store.backend, runs, tables)
        self._snapshot: Snapshot | None = None
        self._readable: Snapshot | None = None
        self._checked: dict[Entry, BrokenFile | None] = {}
        self._cached = False
        self._cached_files: Mapping[str, Sequence[Entry]] = {}
        self._connection = duckdb.connect(":memory:")
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET VARIABLE scorer = CAST(? AS VARCHAR)", [scorer])
        self._memory = self.limits.memory or memory_limit(self._connection) // 2
        self._set_entries = store.backend.attach(self._connection)
        create_functions(self._connection)
        create_views(self._connection, store.backend)
        self._retry("opening the store", lambda: None)
        self._restrict_access()

    def __repr__(self) -> str:
        return f"open_store({self.location!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the memory; the catalogue cannot be used afterwards."""
        self._connection.close()

    @property
    def snapshot(self) -> Snapshot:
        """The files that are read, without the broken ones."""
        found = self._retry("listing the store", lambda: self._readable)
        assert found is not None
        return found

    def check_all_read(self) -> None:
        """Check that no result so far lacked rows that exist.

        Raises:
            StoreError: files whose rows exist cannot be read; the message names them.
        """
        unread = [file for file in self.broken if file.may_be_temporary]
        if unread:
            raise StoreError("; ".join(f"cannot read {line}" for line in describe_broken(self.store.backend, unread)))

    def cache_rows(self) -> None:
        """Read all rows except audio into memory: later queries see the store as it is now, and read no file.

        Useful for many queries on one run, whose results are then consistent. A further call reads the tables whose
        files have changed.

        Raises:
            EmttaError: DuckDB fails; open another catalogue then.
        """
        self._cached = False
        self._answer("reading the rows", self._cache_changed)
        self._cached = True

    def _cache_changed(self) -> None:
        assert self._readable is not None
        files = self._readable.by_table
        changed = {table for table, entries in files.items() if entries != self._cached_files.get(table)}
        if changed:
            self._cached_files = {}  # until everything is read
            materialize_rows(self._connection, changed)
            self._cached_files = files

    def sql(self, query: str, /, **parameters: Any) -> Result:
        """Run one SELECT with values for its `$name` parameters, and return its rows; see `query`.

        `.df()` converts them for pandas, `.pl()` for Polars, `.arrow()` for Arrow; `.rows`, `.records` and `.csv()`
        need no other package. `sql/schema.md` lists the views.
        """
        return self.query(query, parameters or None)

    def query(self, sql: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None) -> Result:
        """Run one SELECT, and return its rows.

        Args:
            sql: the query.
            parameters: values for its `$name` or `?` parameters.

        Raises:
            EmttaError: DuckDB rejects the query, or it fails; the message includes DuckDB's.
            UsageError: it is not a single read-only SELECT, or a parameter has no value.
        """

        def ask() -> Result:
            check_reads_only(self._connection, sql)
            check_values(self._connection, sql, parameters)
            return Result(self._fetch(self._connection.sql(sql, params=parameters)))

        try:
            return self._answer("the query", ask)
        except EmttaError as error:
            more = hint(self._connection, sql, str(error), self.store.command)
            if not more:
                raise
            raise EmttaError(f"{error}{more}") from error

    def report(self, name: str, run: str | None = None, **parameters: object) -> Result:
        """Run a named report, and return its rows.

        Args:
            name: one of `reports()`.
            run: the run's id, for a report on a run; the newest by default. Without runs, a report has no rows.
            **parameters: the other parameters that the report's header declares.

        Raises:
            UsageError: the report, the run, a parameter or a value is unknown; the message lists the valid names.
            StoreError: the record of the run cannot be read.
            EmttaError: DuckDB fails.
        """
        chosen = report(name)
        given = {key: str(value) for key, value in parameters.items()} | ({} if run is None else {"run_id": run})

        def ask() -> Result:
            for key, value in parameter_values(self._connection, chosen, given).items():
                self._connection.execute(f'SET VARIABLE "{key}" = CAST(? AS VARCHAR)', [value])
            return Result(self._fetch(self._connection.sql(chosen.sql)), chosen.cells, chosen.optional)

        try:
            return self._answer(f"the report {name}", ask)
        except UsageError:
            for key in given.keys() & {"run_id", "baseline"}:
                with suppress(UsageError):
                    self.store.run(given[key])  # a record that is there and cannot be read is a StoreError
            raise

    def _answer(self, what: str, ask: Callable[[], Output]) -> Output:
        return self._retry(what, lambda: self._within_limits(what, ask))

    def _retry(self, what: str, ask: Callable[[], Output]) -> Output:
        """Call `ask` on the current files, and again if a file may have made it fail.

        A file may have been removed meanwhile, so the files are listed again; if they are unchanged, one is damaged
        inside: then all are read from end to end, and `ask` is called with the readable ones only.
        """
        examine: Examine | None = None
        for _ in range(_TRIES):
            refreshed = self._cached
            try:
                refreshed = refreshed or self._refresh_snapshot(examine)
                if refreshed:
                    return ask()
            except duckdb.OutOfMemoryException as error:
                raise EmttaError(self.limits.exceeded_memory(what, self._memory)) from error
            except duckdb.Error as error:
                final = self._cached or (refreshed and isinstance(error, _MISTAKES))
                changed = not final and self._take() != self._snapshot
                if final or (not changed and examine is scan):
                    raise EmttaError(f"{what} failed: {_message(error)}") from error
                examine = None if changed else scan
        raise EmttaError(f"{what} failed: the files of {self.location} keep changing; try again later")

    def _within_limits(self, what: str, ask: Callable[[], Output]) -> Output:
        # The query runs in another thread, so that this one can stop it at the time limit or on Ctrl-C.
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(ask)
            try:
                done, _ = wait([future], self.limits.seconds)
            except KeyboardInterrupt:
                self._interrupt(future)
                raise
            if not done:
                self._interrupt(future)
                raise EmttaError(self.limits.exceeded_time(what))
            return future.result()

    def _interrupt(self, future: "Future[Output]") -> None:
        while not future.done():
            self._connection.interrupt()
            wait([future], timeout=0.1)

    def _fetch(self, relation: duckdb.DuckDBPyRelation) -> pa.Table:
        """Run a query and return its rows, if they fit into the memory allowed for a result.

        Raises:
            EmttaError: they do not fit.
            duckdb.Error: the query fails.
        """
        batches: list[pa.RecordBatch] = []
        size = 0
        try:
            with to_arrow(relation) as reader:  # an open result would block the next statement
                for batch in reader:
                    size += batch.nbytes
                    if size > self.limits.result_size(self._memory):
                        raise EmttaError(self.limits.exceeded_result(self._memory))
                    batches.append(batch)
        except OSError as error:  # Arrow raises this for any DuckDB error while fetching rows
            kind = next((kind for start, kind in _FAILURES.items() if str(error).startswith(start)), duckdb.Error)
            raise kind(str(error)) from error
        return pa.Table.from_batches(batches, reader.schema)

    def _refresh_snapshot(self, examine: Examine | None) -> bool:
        """Update the views to the current files without the broken ones, and warn about those.

        Args:
            examine: finds broken files by reading all of them; by default, the ends of unchecked files are read.

        Returns:
            False if files were added or removed meanwhile: a file that is gone is not broken.
        """
        backend, latest = self.store.backend, self._take()
        entries = tuple(latest.entries)
        broken = {entry.name: file for entry in entries if (file := self._checked.get(entry))}
        broken |= {entry.name: misplaced(entry.name) for entry in latest.misplaced}
        unchecked = [entry for entry in entries if entry not in self._checked]
        found = examine(backend, latest) if examine else check_tails(backend, unchecked)
        broken |= {file.name: file for file in found}
        newly_broken = [file for file in broken.values() if file not in self.broken]
        if newly_broken and self._take() != latest:
            return False
        for line in describe_broken(backend, newly_broken):
            log.warning("left out of every query: %s", line)
        self.broken = tuple(broken.values())
        # A file whose content the system did not return is checked again next time.
        self._checked = {entry: file for entry in entries if (file := broken.get(entry.name)) is None or not file.error}
        self._snapshot = latest
        self._set_entries(entries)
        readable = latest.without(broken) if broken else latest
        if readable != self._readable:
            create_raw_views(self._connection, backend, readable)
            self._readable = readable
        return True

    def _restrict_access(self) -> None:
        folders = f"{path_literal(self.store.location)}, {sql_text(self.store.location)}"
        for setting in (
            f"allowed_directories = [{folders}]",
            "autoinstall_known_extensions = false",
            "autoload_known_extensions = false",
            f"memory_limit = '{self._memory}B'",
            f"max_temp_directory_size = '{self.limits.disk(self._memory)}B'",
            # the default is `.tmp` in the working directory, which may be the store itself
            f"temp_directory = {sql_text(str(Path(tempfile.gettempdir()) / f'emtta-{uuid4().hex}'))}",
            "enable_external_access = false",
            "python_enable_replacements = false",
            "lock_configuration = true",
        ):
            self._connection.execute(f"SET {setting}")


def _message(error: duckdb.Error) -> str:
    # DuckDB's message; if a Python file system left a traceback in it, the traceback's last line.
    text = str(error).strip()
    return text.splitlines()[-1].strip() if "Traceback (most recent call last)" in text else text
