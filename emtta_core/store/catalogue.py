"""SQL over the store: an in-memory DuckDB whose views are the tables as stored and the stack of `sql/views`.

`raw.<table>` holds every row of every readable file. The views built on them, under their bare names, hold the rows
that count. Nothing is copied: each query reads the Parquet files it needs.
"""

import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from emtta_core.store.parquet import BrokenFile, check_tails, misplaced
from emtta_core.store.queries import Limits, check_reads_only, hint, memory_limit
from emtta_core.store.reports import check_values, parameter_values, report, views
from emtta_core.store.result import Result, to_arrow
from emtta_core.store.snapshot import Snapshot
from emtta_core.store.store import Store
from emtta_core.store.views import (
    create_raw_views,
    create_word_edits,
    describe_broken,
    literal,
    materialize_rows,
    scan,
    text,
)

log = logging.getLogger("emtta.store")

Answer = TypeVar("Answer")

Examine = Callable[[Backend, Snapshot], Iterable[BrokenFile]]
"""Tells what is wrong with files."""

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


_UNCHECKED = BrokenFile("", "it was not checked yet")

_TRIES = 20
"""How often a query is asked again because files that it read were moved or removed meanwhile."""


class Catalogue:
    """The store's tables, views and reports, to be queried and never written.

    Each query reads the files that are there when it is asked. A file that cannot be read, or whose columns are those
    of another release, is left out with a warning, so that it breaks no query on anything else. A file cut short is
    found at once; one that is damaged inside is found when a query fails on it: then every file is read once, and the
    query is asked again without the bad ones.

    Attributes:
        store: the store.
        limits: what a query may take.
        broken: the files that were left out.

    Example:
        >>> Catalogue(Store.open("store")).query("SELECT method, wer FROM groups").rows  # doctest: +SKIP
    """

    def __init__(
        self,
        store: Store,
        *,
        run_id: str | None = None,
        limits: Limits | None = None,
        take: Callable[[], Snapshot] | None = None,
    ) -> None:
        """Open the catalogue.

        Args:
            store: the store.
            run_id: the only run that is to be seen, without its prepared audio; much faster where there are many.
            limits: what a query may take; by default generous.
            take: returns the files that may be read; by default all of the store, or of the run.
        """
        self.store = store
        self.limits = limits or Limits()
        self.broken: tuple[BrokenFile, ...] = ()
        self._take = take or partial(Snapshot.take, store.backend, None if run_id is None else [run_id])
        self._checked: dict[Entry, BrokenFile | None] = {}
        self._snapshot: Snapshot | None = None
        self._cached = False
        self._connection = duckdb.connect(":memory:")
        self._connection.execute("SET TimeZone = 'UTC'")
        self._show = store.backend.attach(self._connection)
        self._refresh_or_scan()
        create_word_edits(self._connection)
        for view in views().values():
            self._create(f'CREATE VIEW "{view.name}" AS\n{view.sql}')
        self._memory = self.limits.memory or memory_limit(self._connection) // 2
        self._restrict_access()

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
        self._refresh_or_scan()
        assert self._snapshot is not None
        return self._snapshot

    def check_all_read(self) -> None:
        """Check that no answer so far lacked rows that are there.

        Raises:
            StoreError: files cannot be read though their rows are there; names them.
        """
        unread = [file for file in self.broken if file.may_come_back]
        if unread:
            raise StoreError("; ".join(f"cannot read {line}" for line in describe_broken(self.store.backend, unread)))

    def cache_rows(self) -> None:
        """Read the rows into memory, but for audio: each later question sees the store as it is now, and reads no file.

        Worth it for many questions on one run, whose answers then agree with each other.

        Raises:
            EmttaError: when DuckDB fails it.
        """
        self._answer("reading the rows", lambda: materialize_rows(self._connection))
        self._cached = True

    def query(self, sql: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None) -> Result:
        """Return the rows of one SELECT.

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
            return Result(self._read(self._connection.sql(sql, params=parameters)))

        try:
            return self._answer("the query", ask)
        except EmttaError as error:
            more = hint(self._connection, sql, str(error), self.store.command)
            if not more:
                raise
            raise EmttaError(f"{error}{more}") from error

    def report(self, name: str, run_id: str | None = None, **parameters: str) -> Result:
        """Return the rows of a named report.

        Args:
            name: one of `reports()`.
            run_id: the run, for a report on a run; the newest by default. On a store without runs a report has no row.
            **parameters: the other parameters that the report's head declares, as text.

        Raises:
            UsageError: when the report, the run or a parameter is unknown; it lists those there are.
            StoreError: when the record of the run cannot be read.
            EmttaError: when DuckDB fails it.
        """
        chosen = report(name)
        given = parameters if run_id is None else {**parameters, "run_id": run_id}

        def ask() -> Result:
            for key, value in parameter_values(self._connection, chosen, given).items():
                self._connection.execute(f'SET VARIABLE "{key}" = CAST(? AS VARCHAR)', [value])
            return Result(self._read(self._connection.sql(chosen.sql)), chosen.cells)

        try:
            return self._answer(f"the report {name}", ask)
        except UsageError:
            for key in given.keys() & {"run_id", "baseline"}:
                with suppress(UsageError):
                    self.store.run(given[key])  # a record that is there and cannot be read is a StoreError
            raise

    def _answer(self, what: str, ask: Callable[[], Answer]) -> Answer:
        """Return what `ask` returns, asked again where a file may have made it fail.

        At first of the files that are there now, as long as they are others than before, for one may have been removed
        meanwhile; then of those alone that can be read from end to end.
        """
        self._refresh_or_scan()
        read_all = False
        for _ in range(_TRIES):
            try:
                return self._within_limits(what, ask)
            except _MISTAKES as error:
                raise EmttaError(f"{what} failed: {_message(error)}") from error
            except duckdb.OutOfMemoryException as error:
                raise EmttaError(self.limits.exceeded_memory(what, self._memory)) from error
            except duckdb.Error as error:
                if not self._cached and self._refresh_snapshot():
                    continue
                if self._cached or read_all:
                    raise EmttaError(f"{what} failed: {_message(error)}") from error
                self._refresh_snapshot(scan)
                read_all = True
        raise EmttaError(f"{what} failed: {self._keeps_changing()}")

    def _within_limits(self, what: str, ask: Callable[[], Answer]) -> Answer:
        # `ask` returns; the time limit and Ctrl-C end it, which needs another thread that waits for it.
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

    def _read(self, relation: duckdb.DuckDBPyRelation) -> pa.Table:
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

    def _create(self, view: str) -> None:
        # Create a view, for which DuckDB looks into a file: where that was removed meanwhile, into its successor.
        for _ in range(_TRIES):
            try:
                self._connection.execute(view)
                return
            except duckdb.Error:
                if not self._refresh_snapshot():
                    raise
        raise EmttaError(self._keeps_changing())

    def _refresh_or_scan(self) -> None:
        if self._cached:
            return
        try:
            self._refresh_snapshot()
        except duckdb.Error:
            self._refresh_snapshot(scan)

    def _refresh_snapshot(self, examine: Examine | None = None) -> bool:
        """See the files that are there now, but those that are broken; warn of these.

        Where files are removed or added meanwhile, it looks once more: one that is gone is not broken.

        Args:
            examine: tells what is wrong with files; by default the ends of those are read that were never checked.

        Returns:
            Whether they are others than those seen last.
        """
        before = self._snapshot
        for _ in range(_TRIES):
            found = self._take()
            broken = self._broken(found, examine)
            if any(file not in self.broken for file in broken.values()) and not self._is_current(found):
                continue
            try:
                self._show_snapshot(found, broken)
            except duckdb.Error:
                if self._is_current(found):
                    raise
                continue
            return self._snapshot != before
        raise EmttaError(self._keeps_changing())

    def _broken(self, found: Snapshot, examine: Examine | None) -> dict[str, BrokenFile]:
        # The broken files of a snapshot by their names; one that could not be read is tried again.
        entries, backend = tuple(found.entries), self.store.backend
        known = {
            entry.name: checked for entry in entries if (checked := self._checked.get(entry)) and not checked.error
        }
        new = [
            entry for entry in entries if entry.name not in known and self._checked.get(entry, _UNCHECKED) is not None
        ]
        strange = [misplaced(entry.name) for entry in found.misplaced]
        now = [*strange, *(examine(backend, found) if examine else check_tails(backend, new))]
        return known | {file.name: file for file in now}

    def _is_current(self, found: Snapshot) -> bool:
        return self._take() == found

    def _show_snapshot(self, found: Snapshot, broken: Mapping[str, BrokenFile]) -> None:
        # Make the views those of a snapshot, without its broken files, and warn of these where that is news.
        backend, entries = self.store.backend, tuple(found.entries)
        self._checked = {entry: broken.get(entry.name) for entry in (*entries, *found.misplaced)}
        left_out = tuple(checked for checked in self._checked.values() if checked)
        for line in describe_broken(backend, [file for file in left_out if file not in self.broken]):
            log.warning("left out of every query: %s", line)
        self.broken = left_out
        if left_out:
            found = found.without({file.name for file in left_out})
        self._show(entries)
        if found != self._snapshot:
            create_raw_views(self._connection, backend, found)
            self._snapshot = found

    def _keeps_changing(self) -> str:
        # The message on a store whose files change from one look to the next.
        return f"the files of {self.store.location} did not stand still; try again later"

    def _restrict_access(self) -> None:
        folders = f"{literal(self.store.location)}, {text(self.store.location)}"
        for setting in (
            f"allowed_directories = [{folders}]",
            "autoinstall_known_extensions = false",
            "autoload_known_extensions = false",
            f"memory_limit = '{self._memory}B'",
            f"max_temp_directory_size = '{self.limits.disk(self._memory)}B'",
            # by default `.tmp` where the process was started, which may be the store itself
            f"temp_directory = {text(str(Path(tempfile.gettempdir()) / f'emtta-{uuid4().hex}'))}",
            "enable_external_access = false",
            "python_enable_replacements = false",
            "lock_configuration = true",
        ):
            self._connection.execute(f"SET {setting}")


def _message(error: duckdb.Error) -> str:
    # DuckDB says of an error: of a traceback, as a file system in Python leaves, its last line.
    text = str(error).strip()
    return text.splitlines()[-1].strip() if "Traceback (most recent call last)" in text else text
