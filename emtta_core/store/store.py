"""The store: immutable Parquet files in a folder or an object store, and the only code that writes and reads them.

Layout, rules and columns: `docs/store.md`. An attempt at a cell writes its utterances in shards: first the steps, then
the hypotheses, then the scores. An utterance is *done* when its hypothesis row is in error, or when its score row
exists too; a writer killed between the two loses only that shard.
"""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, TypeVar

from emtta_core.errors import StoreError, unknown
from emtta_core.identity import digest
from emtta_core.names import check_name
from emtta_core.store.backend import Backend, Entry, open_backend
from emtta_core.store.parquet import (
    BrokenFile,
    check_footers,
    raise_unreadable,
    read_each,
    read_rows,
    skip_broken,
    write_rows,
)
from emtta_core.store.schema import (
    CellRow,
    HypothesisRow,
    LinkRow,
    PlanRow,
    PreparedRow,
    RescoreRow,
    RunRow,
    ScoreRow,
    StatisticsRow,
    StepRow,
    WindowRow,
)
from emtta_core.store.snapshot import FOLDER, PACK_OF, PACKS, attempt_of, cell_files, run_of, source_of, sources
from emtta_core.store.tables import TABLES, CellKey, PreparedCorpus, Table

COMPLETE_FILE = "_complete.json"
"""The file of a prepared corpus that is written last."""

_ADVICE = "Try again, or use the release that wrote it"
"""What to do about a file that exists but cannot be read."""

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class DoneUtterance:
    """The rows that count for a finished utterance."""

    hypothesis: HypothesisRow
    score: ScoreRow | None  # None if the hypothesis is in error

    @property
    def error(self) -> str | None:
        """Why it has no score."""
        return self.hypothesis.error or (self.score.error if self.score is not None else None)


class Store:
    """A store of results and prepared audio, with its files in `backend`; open one with `Store.open`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def location(self) -> str:
        """The store as the user names it; opens the same store in another process."""
        return self.backend.location

    def command(self, *words: str) -> str:
        """An `emtta` command on this store, quoted for a shell."""
        return shlex.join(["emtta", *words, "--store", self.location])

    @classmethod
    def open(cls, location: str | Path, *, create: bool = False) -> Self:
        """Open the store at `location`.

        Args:
            location: a folder, or `s3://BUCKET/PREFIX`.
            create: create it if missing, check that it is writable, and clean up after killed writers.

        Raises:
            StoreError: there is no store, it cannot be created, written or read, or its path contains an `=` or a
                backslash.
        """
        backend = open_backend(location)
        if create:
            backend.make()
        elif not backend.is_there():
            command = shlex.join(["emtta", "run", "SUITE", "--store", backend.location])
            raise StoreError(f"there is no store at {backend.location}; `{command}` creates one")
        return cls(backend)

    @classmethod
    def find(cls, location: str | Path) -> Self | None:
        """The store at `location`, or None if there is none; raises the same errors as `open`."""
        backend = open_backend(location)
        return cls(backend) if backend.is_there() else None

    # Runs and plans

    def runs(self) -> Mapping[str, RunRow]:
        """The runs whose record can be read, by run id, newest first."""
        files = read_each(self.backend, self._files(TABLES["runs"]), RunRow)
        found = {run_of(name): rows[0] for name, rows in skip_broken(self.backend, files)}
        return dict(sorted(found.items(), key=lambda item: (item[1].created_at, item[0]), reverse=True))

    def run(self, run_id: str) -> RunRow:
        """The record of a run; raises UsageError if there is no such run, StoreError if the record is broken."""
        return self._of_run("runs", run_id, RunRow)[0]

    def find_run(self, run_id: str) -> RunRow | None:
        """The record of a run, or None if there is none; raises StoreError if it cannot be read."""
        return self.run(run_id) if self.backend.exists(_run_file("runs", run_id)) else None

    def plan(self, run_id: str) -> tuple[PlanRow, ...]:
        """The planned cells of a run, in order; raises UsageError if there is no such run, StoreError if broken."""
        rows = self._of_run("plans", run_id, PlanRow)
        return tuple(sorted(rows, key=lambda row: row.position))

    def write_plan(self, run_id: str, rows: Sequence[PlanRow]) -> None:
        """Write the plan of a run, in the order of `rows`; write it before the run itself."""
        numbered = [replace(row, position=position) for position, row in enumerate(rows)]
        write_rows(self.backend, _run_file("plans", run_id), numbered, TABLES["plans"].schema, replace=True)

    def write_run(self, run_id: str, row: RunRow) -> None:
        """Write the record of a run, which adds it to `runs`."""
        write_rows(self.backend, _run_file("runs", run_id), [row], TABLES["runs"].schema, replace=True)

    def write_statistics(self, run_id: str, scorer: str, rows: Sequence[StatisticsRow]) -> None:
        """Write the statistics of a run by a scorer, replacing existing ones."""
        check_name("run id", run_id)
        name = f"statistics/run_id={run_id}/{digest(scorer)}.parquet"
        write_rows(self.backend, name, rows, TABLES["statistics"].schema, replace=True)

    def run_log(self, run_id: str) -> AbstractContextManager[Path]:
        """A local file to which to append the log of a run; see `Backend.appending`."""
        check_name("run id", run_id)
        return self.backend.appending(f"logs/{run_id}.log")

    def write_next_to_log(self, run_id: str, ending: Literal["html", "results.json"], text: str) -> str:
        """Write a text about a run to `logs/<run>.<ending>` unless it is unchanged, and return its location."""
        check_name("run id", run_id)
        name, content = f"logs/{run_id}.{ending}", text.encode()
        with suppress(OSError):
            if self.backend.read(name) == content:
                return self.backend.url(name)
        self.backend.write(name, content)
        return self.backend.url(name)

    # Cells

    def begin_attempt(self, key: CellKey) -> int:
        """Reserve the number of a new attempt at a cell, from 1, unique across processes and threads."""
        tables = [f"{table}/{key.folder}" for table in PACK_OF]
        packs = [f"{pack.folder}/run_id={key.run_id}" for pack in PACKS.values()]
        attempts = [attempt_of(entry.name) for folder in (*tables, *packs) for entry in self.backend.list(folder)]
        number = max(attempts, default=0) + 1
        while not self.backend.write_new(f"cells/{key.folder}/{number:03d}.begun", b""):
            number += 1
        return number

    def write_steps(self, key: CellKey, attempt: int, shard: int, rows: Sequence[StepRow]) -> None:
        """Write a shard's steps; the first of the shard's three files."""
        self._write_shard("steps", key, attempt, shard, rows)

    def write_windows(self, key: CellKey, attempt: int, shard: int, rows: Sequence[WindowRow]) -> None:
        """Write a shard's windows, if it has any, before its three files."""
        self._write_shard("windows", key, attempt, shard, rows)

    def write_hypotheses(self, key: CellKey, attempt: int, shard: int, rows: Sequence[HypothesisRow]) -> None:
        """Write a shard's hypotheses; the second of the shard's three files."""
        self._write_shard("hypotheses", key, attempt, shard, rows)

    def write_scores(self, key: CellKey, attempt: int, shard: int, rows: Sequence[ScoreRow]) -> None:
        """Write a shard's scores; the last of the shard's three files, which makes its utterances done."""
        self._write_shard("scores", key, attempt, shard, rows)

    def write_rescores(self, run_id: str, scoring: int, shard: int, rows: Sequence[RescoreRow]) -> str:
        """Write the scores of rescoring number `scoring`, and return the file."""
        name = f"{_rescores_folder(run_id)}/{scoring:03d}-{shard:05d}.parquet"
        write_rows(self.backend, name, rows, TABLES["rescores"].schema)
        return name

    def rescorings(self, run_id: str) -> int:
        """How often a run has been rescored."""
        names = self._files(TABLES["rescores"], _rescores_folder(run_id))
        return max((attempt_of(name) for name in names), default=0)

    def write_cell(self, key: CellKey, row: CellRow) -> None:
        """Write the record of an attempt at its end."""
        write_rows(self.backend, f"cells/{key.folder}/{row.attempt:03d}.parquet", [row], TABLES["cells"].schema)

    def write_log(self, key: CellKey, attempt: int, text: bytes) -> None:
        """Write the log of an attempt at a cell."""
        self.backend.write(f"logs/{key.folder}/{attempt:03d}.log", text)

    def cells(self, key: CellKey) -> tuple[CellRow, ...]:
        """The records of a cell's attempts, in order."""
        return tuple(sorted(self._rows("cells", key, CellRow), key=lambda row: row.attempt))

    def done(self, key: CellKey, cell_id: str) -> dict[str, DoneUtterance]:
        """The rows that count for each finished utterance, in error or not, by utterance id.

        Among several rows, the newest without an error counts, otherwise the newest; reused rows are older than the
        cell's own. Rows of another `cell_id`, rows without scores, and rows of damaged files (which are logged as
        warnings) do not count.

        Raises:
            StoreError: a file exists but cannot be read; its work must not be repeated.
        """
        found = [*self._reused(key, cell_id), *self._computed(key, cell_id)]
        found.sort(key=lambda item: (item[2].error is None, item[1]))
        return {utterance_id: done for utterance_id, _, done in found}  # the last one of each utterance wins

    def _computed(self, key: CellKey, cell_id: str) -> Iterator[tuple[str, int, DoneUtterance]]:
        # The utterances finished by attempts at a cell, each with its attempt.
        scores = {
            (row.utterance_id, row.attempt): row
            for row in self._rows("scores", key, ScoreRow)
            if row.cell_id == cell_id
        }
        for row in self._rows("hypotheses", key, HypothesisRow):
            score = scores.get((row.utterance_id, row.attempt))
            if row.cell_id == cell_id and (row.error is not None or score is not None):
                yield row.utterance_id, row.attempt, DoneUtterance(row, score if row.error is None else None)

    def _reused(self, key: CellKey, cell_id: str) -> Iterator[tuple[str, int, DoneUtterance]]:
        needed: dict[tuple[CellKey, str], set[tuple[str, int]]] = {}
        for source_run, link in self.links(key.run_id):
            if (link.domain, link.method, link.cell_id) == (key.domain, key.method, cell_id):
                source = CellKey(source_run, link.source_domain, link.source_method, key.seed), link.source_cell_id
                needed.setdefault(source, set()).add((link.utterance_id, link.source_attempt))
        for source, utterances in needed.items():
            for utterance_id, attempt, done in self._computed(*source):
                if (utterance_id, attempt) in utterances:
                    yield utterance_id, 0, done

    # Results that a run reuses

    def write_links(self, run_id: str, source_run: str, rows: Sequence[LinkRow]) -> str:
        """Write which results of `source_run` a run reuses, in addition to earlier ones; return the file."""
        folder = f"links/run_id={run_id}/source_run={source_run}"
        numbers = [int(name.rpartition("/")[2].partition(".")[0]) for name in self._files(TABLES["links"], folder)]
        name = f"{folder}/{max(numbers, default=-1) + 1:05d}.parquet"
        write_rows(self.backend, name, rows, TABLES["links"].schema)
        return name

    def links(self, run_id: str) -> list[tuple[str, LinkRow]]:
        """The results that a run reuses, each with the run that made it; raises StoreError as `done` does."""
        names = self._files(TABLES["links"], f"links/run_id={run_id}")
        files = self._readable_rows(read_each(self.backend, names, LinkRow))
        return [(source_of(name), row) for name, rows in files for row in rows]

    def reused_runs(self) -> dict[str, set[str]]:
        """The runs whose results other runs reuse, each with those other runs."""
        found: dict[str, set[str]] = {}
        for run_id, source_runs in sources(self.backend.list("links")).items():
            for source_run in source_runs - {run_id}:
                found.setdefault(source_run, set()).add(run_id)
        return found

    # Prepared corpora

    def write_prepared(self, corpus_id: str, shard: int, rows: Sequence[PreparedRow]) -> None:
        """Write a shard of a prepared corpus, replacing an existing one."""
        name = f"{_prepared_folder(corpus_id)}/part-{shard:05d}.parquet"
        write_rows(self.backend, name, rows, TABLES["prepared"].schema, replace=True)

    def finish_prepared(
        self,
        corpus_id: str,
        *,
        shards: int,
        utterances: int,
        left_out: int = 0,
        errors: int = 0,
        first_error: str | None = None,
    ) -> PreparedCorpus:
        """Mark a prepared corpus as complete; raises StoreError if one of its shards is missing or broken."""
        folder = _prepared_folder(corpus_id)
        counts = {"utterances": utterances, "left_out": left_out, "errors": errors, "first_error": first_error}
        self.backend.write(f"{folder}/{COMPLETE_FILE}", json.dumps({"shards": shards, **counts}).encode())
        corpus = self.prepared(corpus_id)
        if corpus is None:
            raise StoreError(f"a shard of {self.backend.url(folder)} is missing or broken; prepare it again")
        return corpus

    def prepared(self, corpus_id: str) -> PreparedCorpus | None:
        """A prepared corpus; None if it is not complete, or a shard is missing or damaged.

        Raises StoreError if a file exists but cannot be read: it must not be replaced.
        """
        folder = _prepared_folder(corpus_id)
        try:
            mark = json.loads(self.backend.read(f"{folder}/{COMPLETE_FILE}"))
            names = ("shards", "utterances", "left_out", "errors")
            count, utterances, left_out, errors = (int(mark[name]) for name in names)
            first_error = mark["first_error"]
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None
        except OSError as error:
            self._raise_unreadable_audio(BrokenFile.refused(f"{folder}/{COMPLETE_FILE}", error))
        entries = {entry.name: entry for entry in self.backend.list(folder)}
        if not 0 <= count <= len(entries):
            return None
        shards = tuple(f"{folder}/part-{shard:05d}.parquet" for shard in range(count))
        if any(name not in entries for name in shards):
            return None
        broken = tuple(check_footers(self.backend, [entries[name] for name in shards]))
        for file in broken:
            if file.may_be_temporary:
                self._raise_unreadable_audio(file)
        return None if broken else PreparedCorpus(corpus_id, utterances, shards, left_out, errors, first_error)

    def read_prepared(self, corpus: PreparedCorpus) -> Iterator[PreparedRow]:
        """Yield the rows of a prepared corpus, one shard in memory at a time; raises StoreError if one is broken."""
        for name in corpus.shards:
            rows = read_rows(self.backend, name, PreparedRow)
            if isinstance(rows, BrokenFile):
                self._raise_unreadable_audio(rows)
            yield from rows

    # Helpers

    def _files(self, table: Table, folder: str | None = None) -> list[str]:
        return [entry.name for entry in self.backend.list(folder or table.name) if table.holds(entry.name)]

    def _readable_rows(self, found: Iterable[tuple[str, list[Row] | BrokenFile]]) -> Iterator[tuple[str, list[Row]]]:
        # Skip files whose rows are lost, with a warning; raise StoreError for one whose rows may come back.
        found = list(found)
        for _, rows in found:
            if isinstance(rows, BrokenFile) and rows.may_be_temporary:
                remedy = f"Nothing was changed. {_ADVICE}, and start again: finished work is kept"
                raise_unreadable(self.backend, rows, remedy)
        yield from skip_broken(self.backend, found)

    def _raise_unreadable_audio(self, file: BrokenFile) -> NoReturn:
        folder = self.backend.url(file.name.rpartition("/")[0])
        remedy = f"{_ADVICE}; if it is damaged for good, delete {folder} to have it prepared again"
        raise_unreadable(self.backend, file, remedy)

    def _rows(self, table: str, key: CellKey, row: type[Row]) -> Iterator[Row]:
        # The rows of a cell, including those of files that move into a pack meanwhile.
        files: Sequence[Entry] | None = None
        while files != (files := cell_files(self.backend, table, key.run_id, key.folder)):
            packs = [entry.name for entry in files if entry.name.startswith(f"{FOLDER}/")]
            shards = [entry.name for entry in files if entry.name not in packs]
            cell = {"domain": key.domain, "method": key.method, "seed": key.seed}
            from_packs = read_each(self.backend, packs, row, PACK_OF[table], **cell)
            found = [*read_each(self.backend, shards, row), *from_packs]
            if not any(isinstance(rows, BrokenFile) for _, rows in found):
                break
        for _, rows in self._readable_rows(found):
            yield from rows

    def _write_shard(self, table: str, key: CellKey, attempt: int, shard: int, rows: Sequence[Any]) -> None:
        write_rows(self.backend, f"{table}/{key.folder}/{attempt:03d}-{shard:05d}.parquet", rows, TABLES[table].schema)

    def _of_run(self, table: str, run_id: str, row: type[Row]) -> list[Row]:
        name, record = _run_file(table, run_id), _run_file("runs", run_id)
        rows = read_rows(self.backend, name, row)
        if isinstance(rows, BrokenFile):
            if not self.backend.exists(name) and not self.backend.exists(record):
                raise unknown("run", run_id, list(self.runs()))
            advice = f"delete {self.backend.url(record)} and run the suite again, which keeps finished work"
            raise_unreadable(self.backend, rows, f"Nothing was changed. {_ADVICE}; if it is damaged for good, {advice}")
        return rows


def _run_file(table: str, run_id: str) -> str:
    check_name("run id", run_id)
    return TABLES[table].layout.replace("…", run_id)


def _rescores_folder(run_id: str) -> str:
    check_name("run id", run_id)
    return f"rescores/run_id={run_id}"


def _prepared_folder(corpus_id: str) -> str:
    check_name("corpus id", corpus_id)
    return f"prepared/{corpus_id}"
