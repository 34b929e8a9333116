"""SQL over the store: an in-memory DuckDB whose views are the tables as stored and the stack of `sql/views`.

`raw.<table>` holds every row of every readable file. The views built on them, under their bare names, hold the rows
that count. Nothing is copied: each query reads the Parquet files it needs.
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

Answer = TypeVar("Answer")

Examine = Callable[[Backend, Snapshot], Iterable[BrokenFile]]
"""Finds the broken files of a snapshot."""

_MISTAKES = (
    *(duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.PermissionException),
    *(duckdb.ConversionException, duckdb.OutOfRangeException),
)
"""What is wrong with a query, whatever the files hold."""

_FAILURES = {
    "Conversion Error": duckdb.ConversionException,
    "Out of Range Error": duckdb.OutOfRangeException,
    "Out of Memory Error": duckdb.OutOfMemoryException,
}
"""How the message of a failure begins that comes while rows are fetched, when Arrow does not tell its kind."""

_TRIES = 20
"""How often a query is tried while the files that it reads are moved or removed."""


def open_store(location: str | Path, *, runs: Collection[str] | None = None) -> "Catalogue":
    """Open a store to query it.

    Args:
        location: a folder, or `s3://BUCKET/PREFIX`.
        runs: the only runs that are to be seen, without their prepared audio; much faster where there are many.

    Raises:
        StoreError: there is none, or it cannot be read.
        UsageError: `location` names neither.

    Example:
        >>> store = open_store("emtta-store")  # doctest: +SKIP
        >>> store.sql("SELECT domain, wer FROM cells WHERE method = $method", method="em-tok-b").df()  # doctest: +SKIP
        >>> store.report("leaderboard", run="demo-1a2b3c4d").pl()  # doctest: +SKIP
    """
    return Catalogue(Store.open(location), runs=runs)


class Catalogue:
    """The store's tables, views and reports, to be queried and never written.

    Each query reads the files that are there when it is asked. A file that cannot be read, or whose columns are those
    of another release, is left out with a warning, so that it breaks no query on anything else. A file cut short is
    found at once; one that is damaged inside is found when a query fails on it: then every file is read once, and the
    query is asked again without the bad ones.

    Attributes:
        store: the store.
        location: where it is, as a user names it.
        limits: what a query may take.
        broken: the files that were left out.
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
            runs: the only runs that are to be seen, without their prepared audio; much faster where there are many.
            tables: the only tables that are to have rows, as stored; faster likewise.
            scorer: by which all figures are; by default the first of each run's suite.
            limits: what a query may take; by default generous.

        Raises:
            StoreError: the store cannot be listed.
            EmttaError: DuckDB cannot read it.
        """
        self.store = store
        self.location = store.location
        self.limits = limits or Limits()
        self.broken: tuple[BrokenFile, ...] = ()
        self._take = partial(Snapshot.take, store.backend, runs, tables)
        self._taken: Snapshot | None = None
        self._readable: Snapshot | None = None
        self._checked: dict[Entry, BrokenFile | None] = {}
        self._cached = False
        self._held: Mapping[str, Sequence[Entry]] = {}
        self._connection = duckdb.connect(":memory:")
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET VARIABLE scorer = CAST(? AS VARCHAR)", [scorer])
        self._memory = self.limits.memory or memory_limit(self._connection) // 2
        self._show = store.backend.attach(self._connection)
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
        """Give back the memory; the catalogue answers no query after it."""
        self._connection.close()

    @property
    def snapshot(self) -> Snapshot:
        """The files that are read, those left out that are broken."""
        found = self._retry("listing the store", lambda: self._readable)
        assert found is not None
        return found

    def check_all_read(self) -> None:
        """Check that no answer so far lacked rows that are there.

        Raises:
            StoreError: files cannot be read though their rows are there; names them.
        """
        unread = [file for file in self.broken if file.may_come_back]
        if unread:
            raise StoreError("; ".join(f"cannot read {line}" for line in describe_broken(self.store.backend, unread)))

    def cache_rows(self) -> None:
        """Read the rows into memory, but for audio: each later query sees the store as it is now, and reads no file.

        Worth it for many queries on one run, whose answers then agree with each other. Called again, it reads the
        tables whose files have changed since.

        Raises:
            EmttaError: DuckDB fails it; open another catalogue then.
        """
        self._cached = False
        self._answer("reading the rows", self._hold_changed)
        self._cached = True

    def _hold_changed(self) -> None:
        assert self._readable is not None
        files = self._readable.by_table
        changed = {table for table, entries in files.items() if entries != self._held.get(table)}
        if changed:
            self._held = {}  # until all is read
            materialize_rows(self._connection, changed)
            self._held = files

    def sql(self, query: str, /, **parameters: Any) -> Result:
        """The rows of one SELECT, with the values for its `$name` by their names; see `query`.

        `.df()` of the rows is for pandas, `.pl()` for Polars, `.arrow()` for Arrow; `.rows`, `.records` and `.csv()`
        need no other package. The views are those of `sql/schema.md`.
        """
        return self.query(query, parameters or None)

    def query(self, sql: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None) -> Result:
        """The rows of one SELECT.

        Args:
            sql: the query.
            parameters: values for its `$name` or `?`.

        Raises:
            EmttaError: when DuckDB refuses or fails it; the message holds DuckDB's own words.
            UsageError: when it is not a single SELECT that only reads, or a parameter has no value.
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
        """The rows of a named report.

        Args:
            name: one of `reports()`.
            run: the run's id, for a report on a run; the newest by default. On a store without runs a report has no
                row.
            **parameters: the other parameters that the report's head declares.

        Raises:
            UsageError: the report, the run, a parameter or a value is unknown; it lists those there are.
            StoreError: the record of the run cannot be read.
            EmttaError: DuckDB fails it.
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

    def _answer(self, what: str, ask: Callable[[], Answer]) -> Answer:
        return self._retry(what, lambda: self._within_limits(what, ask))

    def _retry(self, what: str, ask: Callable[[], Answer]) -> Answer:
        """Call `ask` on the files that are there now, and again where a file may have made it fail.

        One may have been removed meanwhile, so that the files are listed again; if they are the same, one is damaged
        inside: then all are read from end to end, and `ask` is called with those alone that can be read.
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
                changed = not final and self._take() != self._taken
                if final or (not changed and examine is scan):
                    raise EmttaError(f"{what} failed: {_message(error)}") from error
                examine = None if changed else scan
        raise EmttaError(f"{what} failed: the files of {self.location} keep changing; try again later")

    def _within_limits(self, what: str, ask: Callable[[], Answer]) -> Answer:
        # Another thread asks, so that this one can end it at the time limit and at Ctrl-C.
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask)
            try:
                done, _ = wait([answer], self.limits.seconds)
            except KeyboardInterrupt:
                self._interrupt(answer)
                raise
            if not done:
                self._interrupt(answer)
                raise EmttaError(self.limits.exceeded_time(what))
            return answer.result()

    def _interrupt(self, answer: "Future[Answer]") -> None:
        while not answer.done():
            self._connection.interrupt()
            wait([answer], timeout=0.1)

    def _fetch(self, relation: duckdb.DuckDBPyRelation) -> pa.Table:
        """Run a query and return its rows, as long as these fit into the share of the memory that an answer may have.

        Raises:
            EmttaError: they do not.
            duckdb.Error: the query fails.
        """
        batches: list[pa.RecordBatch] = []
        size = 0
        try:
            with to_arrow(relation) as reader:  # an open answer would refuse the next statement
                for batch in reader:
                    size += batch.nbytes
                    if size > self.limits.answer(self._memory):
                        raise EmttaError(self.limits.exceeded_answer(self._memory))
                    batches.append(batch)
        except OSError as error:  # Arrow's, for any failure of DuckDB's while it fetches rows
            kind = next((kind for start, kind in _FAILURES.items() if str(error).startswith(start)), duckdb.Error)
            raise kind(str(error)) from error
        return pa.Table.from_batches(batches, reader.schema)

    def _refresh_snapshot(self, examine: Examine | None) -> bool:
        """Make the views those of the files that are there now, without the broken ones; warn of these.

        Args:
            examine: finds broken files by reading all; by default the ends of those are read that were never checked.

        Returns:
            False when files were added or removed meanwhile: one that is gone is not broken.
        """
        backend, taken = self.store.backend, self._take()
        entries = tuple(taken.entries)
        broken = {entry.name: file for entry in entries if (file := self._checked.get(entry))}
        broken |= {entry.name: misplaced(entry.name) for entry in taken.misplaced}
        unchecked = [entry for entry in entries if entry not in self._checked]
        found = examine(backend, taken) if examine else check_tails(backend, unchecked)
        broken |= {file.name: file for file in found}
        news = [file for file in broken.values() if file not in self.broken]
        if news and self._take() != taken:
            return False
        for line in describe_broken(backend, news):
            log.warning("left out of every query: %s", line)
        self.broken = tuple(broken.values())
        # A file of which the system gave no content is checked again next time.
        self._checked = {entry: file for entry in entries if (file := broken.get(entry.name)) is None or not file.error}
        self._taken = taken
        self._show(entries)
        readable = taken.without(broken) if broken else taken
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
            # by default `.tmp` where the process was started, which may be the store itself
            f"temp_directory = {sql_text(str(Path(tempfile.gettempdir()) / f'emtta-{uuid4().hex}'))}",
            "enable_external_access = false",
            "python_enable_replacements = false",
            "lock_configuration = true",
        ):
            self._connection.execute(f"SET {setting}")


def _message(error: duckdb.Error) -> str:
    # DuckDB's own message; of a traceback, which a file system written in Python leaves there, the last line.
    text = str(error).strip()
    return text.splitlines()[-1].strip() if "Traceback (most recent call last)" in text else text
