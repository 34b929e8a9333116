"""The list of runs: the report `runs`, cached run by run so that thousands of runs are listed in a second.

The report computes a run's row from all of its utterances. The row is cached on this machine with a digest of the
names, sizes and times of its (immutable) source files, and computed again when these change. So the list takes only a
listing of the store and reading the new runs.
"""

import base64
import hashlib
import logging
import time
from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute

from emtta_core import cache
from emtta_core.cache import MIN_AGE
from emtta_core.store.catalogue import Catalogue
from emtta_core.store.parquet import misplaced
from emtta_core.store.queries import Limits
from emtta_core.store.reports import report, views
from emtta_core.store.result import Result
from emtta_core.store.schema import SCHEMA_VERSION
from emtta_core.store.snapshot import Snapshot, run_of, sources
from emtta_core.store.store import Store
from emtta_core.store.views import describe_broken

log = logging.getLogger("emtta.store")

REPORT = "runs"
_TABLES = ("runs", "plans", "links", "cells", "hypotheses", "scores", "rescores")
"""The tables that the report reads."""

_FILES = "files"
"""The column of the cached table that holds the digest of a row's files."""


class RunList:
    """The list of a store's runs, cheap to refresh."""

    def __init__(self, store: Store, limits: Limits | None = None) -> None:
        self.store = store
        self._backend = store.backend.watched()
        self.limits = limits  # the limits for reading new runs
        self._key = _digest(
            [store.location, str(SCHEMA_VERSION), report(REPORT).sql, *(view.sql for view in views().values())]
        )
        self._cached: pa.Table | None = None
        self._digests: Mapping[str, str] | None = None
        self._result: Result | None = None
        self._incomplete: Collection[str] = ()

    def refresh(self) -> Result:
        """The rows of the report `runs`; the same object as long as the store has the same files.

        Raises:
            StoreError: the store cannot be read.
            EmttaError: the report fails in DuckDB.
        """
        snapshot = Snapshot.take(self._backend, tables=_TABLES)
        digests = _digests(snapshot)
        if self._result is None or digests != self._digests or self._incomplete:
            self._result = self._updated(snapshot, digests)
            self._digests = digests
        return self._result

    def _updated(self, snapshot: Snapshot, digests: Mapping[str, str]) -> Result:
        # Compute the rows of runs whose files have changed; take the others from the cache.
        cached = self._cached if self._cached is not None else self._read_cache()
        rows = zip(cached["run_id"].to_pylist(), cached[_FILES].to_pylist(), strict=True) if cached is not None else ()
        fresh = {run_id for run_id, digest in rows if digests.get(run_id) == digest}
        stale, broken, parts = digests.keys() - fresh, set[str](), []
        if cached is not None:
            parts.append(_of_runs(cached, fresh).drop_columns([_FILES]))
        if stale or cached is None:
            with Catalogue(self.store, runs=stale, tables=_TABLES, limits=self.limits) as catalogue:
                parts.append(catalogue.report(REPORT).table)
                broken = {file.name for file in catalogue.broken}
        self._warn_of_misplaced(snapshot, broken)
        table = pa.concat_tables(parts).sort_by([("created_at", "descending"), ("run_id", "descending")])
        self._incomplete = _with_reusing(snapshot, {run_of(name) for name in broken})
        names = table["run_id"].to_pylist()
        marked = table.append_column(_FILES, pa.array([digests.get(name) for name in names], pa.string()))
        self._cached = _of_runs(marked, set(digests).difference(self._incomplete))
        if stale:
            self._write_cache(snapshot)
        return Result(table, report(REPORT).cells)

    def _read_cache(self) -> pa.Table | None:
        content = cache.load(REPORT, self._key)
        try:
            return pa.ipc.open_stream(base64.b64decode(content["rows"])).read_all() if content else None
        except (KeyError, TypeError, ValueError, pa.ArrowException):
            return None

    def _write_cache(self, snapshot: Snapshot) -> None:
        # Cache the rows of runs whose files are old enough for a later change to show in their times.
        assert self._cached is not None
        changing = {run_of(entry.name) for entry in snapshot.entries if entry.modified > time.time() - MIN_AGE}
        unchanging = _of_runs(self._cached, set(self._cached["run_id"].to_pylist()) - _with_reusing(snapshot, changing))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, unchanging.schema) as stream:
            stream.write_table(unchanging)
        cache.save(REPORT, self._key, {"rows": base64.b64encode(sink.getvalue()).decode()})

    def _warn_of_misplaced(self, snapshot: Snapshot, reported: Collection[str]) -> None:
        # Warn about files at paths that the store does not use, except those already reported by the catalogue.
        misplaced_files = [misplaced(entry.name) for entry in snapshot.misplaced if entry.name not in reported]
        for line in describe_broken(self.store.backend, misplaced_files):
            log.warning("left out of every query: %s", line)


def _digests(snapshot: Snapshot) -> dict[str, str]:
    # By run with a record, a digest of the source files of its row, including those of reused results.
    lines: dict[str, list[str]] = {}
    for entry in (*snapshot.entries, *snapshot.misplaced):
        lines.setdefault(run_of(entry.name), []).append(f"{entry.name} {entry.size} {entry.tag}")
    run_digests = {run_id: _digest(of_run) for run_id, of_run in lines.items()}
    source_runs = sources(snapshot.loose["links"])
    return {
        run_id: _digest(
            [
                run_digests[run_id],
                *(run_digests.get(source_run, "") for source_run in sorted(source_runs.get(run_id, ()))),
            ]
        )
        for run_id in (run_of(entry.name) for entry in snapshot.loose["runs"])
    }


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _of_runs(table: pa.Table, runs: Collection[str]) -> pa.Table:
    return table.filter(pa.compute.is_in(table["run_id"], value_set=pa.array(list(runs), pa.string())))


def _with_reusing(snapshot: Snapshot, runs: Collection[str]) -> set[str]:
    reusing = {
        run_id for run_id, source_runs in sources(snapshot.loose["links"]).items() if not source_runs.isdisjoint(runs)
    }
    return {*runs, *reusing} - {""}
