"""The store: a folder of immutable Parquet files, and the one way to write and read their rows.

Layout, rules and columns: `docs/store.md`. An attempt at a cell writes its utterances in shards: first the
steps, then the hypotheses, then the scores. An utterance is *done* when its row of hypotheses is in error, or
when its row of scores is there as well; a writer killed between the two has lost that shard and no more.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from emtta_core.errors import StoreError, unknown
from emtta_core.names import check_name
from emtta_core.store.read import BrokenFile, check, read_rows, readable
from emtta_core.store.schema import (
    TABLES,
    CellRow,
    HypothesisRow,
    PlanRow,
    PreparedRow,
    RunRow,
    ScoreRow,
    StepRow,
)
from emtta_core.store.write import claim, sweep, write_bytes, write_rows

_COMPLETE = "_complete.json"
_ATTEMPT = re.compile(r"(\d+)(?:-\d+\.parquet|\.parquet|\.begun)")

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class CellKey:
    """Where a cell's rows lie.

    Attributes:
        run_id: the run.
        domain: the domain.
        method: the method.

    Raises:
        UsageError: when one of them is no name; see `emtta_core.names`.
    """

    run_id: str
    domain: str
    method: str

    def __post_init__(self) -> None:
        for what, name in (("run id", self.run_id), ("domain", self.domain), ("method", self.method)):
            check_name(what, name)

    @property
    def folder(self) -> Path:
        """The cell's folder below a table's."""
        return Path(f"run_id={self.run_id}", f"domain={self.domain}", f"method={self.method}")


@dataclass(frozen=True, slots=True)
class PreparedCorpus:
    """A corpus whose every shard is there.

    Attributes:
        corpus_id: its identity.
        utterances: how many rows it has, those in error included.
        shards: its files, in order.
    """

    corpus_id: str
    utterances: int
    shards: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class DoneUtterance:
    """The rows that count of an utterance that is done.

    Attributes:
        hypothesis: what was heard, or why nothing was.
        score: its errors; none where the hypothesis is in error.
    """

    hypothesis: HypothesisRow
    score: ScoreRow | None

    @property
    def error(self) -> str | None:
        """Why it has no score."""
        return self.hypothesis.error or (self.score.error if self.score is not None else None)


class Store:
    """A store of results and prepared audio; open one with `Store.open`.

    Attributes:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: str | Path, *, create: bool = False) -> Self:
        """Open the store in the folder `path`.

        Args:
            path: the folder.
            create: make it where it is missing, check that it can be written, tidy up after killed writers.

        Raises:
            StoreError: when there is none, or it cannot be made, written or read, or its path has an `=` or a
                backslash in it.
        """
        folder = Path(path).expanduser().absolute()
        column = next((part for part in folder.parts if "=" in part), None)
        if column is not None:
            raise StoreError(
                f"the path of the store {folder} holds {column!r}, which readers of Parquet take for a column; "
                "choose a path without '='"
            )
        if "\\" in folder.as_posix():
            raise StoreError(
                f"the path of the store {folder} holds a backslash, which DuckDB takes for the end of a folder's name; "
                "choose a path without one"
            )
        try:
            if create:
                folder.mkdir(parents=True, exist_ok=True)
                sweep(folder)
            elif not folder.exists():
                raise StoreError(f"there is no store at {folder}; `emtta run SUITE --store {folder}` makes one")
            if not folder.is_dir():
                raise StoreError(f"{folder} is a file and no store; name a folder")
            next(folder.iterdir(), None)
        except OSError as error:
            raise StoreError(
                f"cannot open the store {folder}: {error.strerror or error}; name another folder"
            ) from error
        if create:
            probe = write_bytes(folder / ".writable", b"")
            probe.unlink(missing_ok=True)
        return cls(folder)

    # Runs and plans

    def runs(self) -> Mapping[str, RunRow]:
        """Return the runs whose record can be read, by run id, the newest first."""
        found = {}
        for path, rows in readable(sorted(self.path.glob(TABLES["runs"].pattern)), RunRow):
            found[path.parent.name.removeprefix("run_id=")] = rows[0]
        return dict(sorted(found.items(), key=lambda item: (item[1].created_at, item[0]), reverse=True))

    def run(self, run_id: str) -> RunRow:
        """Return the record of a run; UsageError when there is no such run, StoreError when it is broken."""
        return self._of_run("runs", run_id, RunRow)[0]

    def plan(self, run_id: str) -> tuple[PlanRow, ...]:
        """Return the planned cells of a run, in order; UsageError when there is no such run, StoreError when broken."""
        rows = self._of_run("plans", run_id, PlanRow)
        return tuple(sorted(rows, key=lambda row: row.position))

    def write_plan(self, run_id: str, rows: Sequence[PlanRow]) -> Path:
        """Write the plan of a run, in the order of `rows`; write it before the run itself."""
        placed = [replace(row, position=position) for position, row in enumerate(rows)]
        return write_rows(self._run_path("plans", run_id), placed, TABLES["plans"].schema, replace=True)

    def write_run(self, run_id: str, row: RunRow) -> Path:
        """Write the record of a run; from then on it is one of `runs`."""
        return write_rows(self._run_path("runs", run_id), [row], TABLES["runs"].schema, replace=True)

    # Cells

    def begin_attempt(self, key: CellKey) -> int:
        """Return the number of a new attempt at a cell, from 1; no other process or thread is given the same."""
        attempts = [0]
        for table in ("steps", "hypotheses", "scores", "cells"):
            for path in (self.path / table / key.folder).glob("*"):
                match = _ATTEMPT.fullmatch(path.name)
                attempts += [int(match[1])] if match else []
        number = max(attempts) + 1
        while not claim(self.path / "cells" / key.folder / f"{number:03d}.begun"):
            number += 1
        return number

    def write_steps(self, key: CellKey, attempt: int, shard: int, rows: Sequence[StepRow]) -> Path:
        """Write a shard's steps; the first of the shard's three files."""
        return self._write_shard("steps", key, attempt, shard, rows)

    def write_hypotheses(self, key: CellKey, attempt: int, shard: int, rows: Sequence[HypothesisRow]) -> Path:
        """Write a shard's hypotheses; the second of the shard's three files."""
        return self._write_shard("hypotheses", key, attempt, shard, rows)

    def write_scores(self, key: CellKey, attempt: int, shard: int, rows: Sequence[ScoreRow]) -> Path:
        """Write a shard's scores; the last of the shard's three files, which makes its utterances done."""
        return self._write_shard("scores", key, attempt, shard, rows)

    def write_cell(self, key: CellKey, row: CellRow) -> Path:
        """Write the record of an attempt at its end."""
        path = self.path / "cells" / key.folder / f"{row.attempt:03d}.parquet"
        return write_rows(path, [row], TABLES["cells"].schema)

    def write_log(self, key: CellKey, attempt: int, text: bytes) -> Path:
        """Write the log of an attempt at a cell."""
        return write_bytes(self.path / "logs" / key.folder / f"{attempt:03d}.log", text)

    def cells(self, key: CellKey) -> tuple[CellRow, ...]:
        """Return the records of a cell's attempts, the first attempt first."""
        return tuple(sorted(self._rows("cells", key, CellRow), key=lambda row: row.attempt))

    def done(self, key: CellKey, cell_id: str) -> dict[str, DoneUtterance]:
        """Return the rows that count of each utterance that is done, in error or not, by utterance id.

        Of several rows the newest without an error counts, else the newest. Rows of another `cell_id` do not
        count, nor rows without scores, nor those of a file that cannot be read, of which a warning is logged.
        """
        scores = {
            (row.utterance_id, row.attempt): row
            for row in self._rows("scores", key, ScoreRow)
            if row.cell_id == cell_id
        }
        best: dict[str, tuple[tuple[bool, int], DoneUtterance]] = {}
        for row in self._rows("hypotheses", key, HypothesisRow):
            score = scores.get((row.utterance_id, row.attempt))
            if row.cell_id != cell_id or (row.error is None and score is None):
                continue
            done = DoneUtterance(row, score if row.error is None else None)
            rank = (done.error is None, row.attempt)
            if row.utterance_id not in best or best[row.utterance_id][0] < rank:
                best[row.utterance_id] = (rank, done)
        return {utterance_id: done for utterance_id, (_, done) in best.items()}

    # Prepared corpora

    def write_prepared(self, corpus_id: str, shard: int, rows: Sequence[PreparedRow]) -> Path:
        """Write a shard of a prepared corpus, replacing one that is there."""
        check_name("corpus id", corpus_id)
        path = self.path / "prepared" / corpus_id / f"part-{shard:05d}.parquet"
        return write_rows(path, rows, TABLES["prepared"].schema, replace=True)

    def finish_prepared(self, corpus_id: str, *, shards: int, utterances: int) -> PreparedCorpus:
        """Declare a prepared corpus complete; StoreError when one of its shards is missing or broken."""
        content = json.dumps({"shards": shards, "utterances": utterances}).encode()
        write_bytes(self.path / "prepared" / corpus_id / _COMPLETE, content)
        corpus = self.prepared(corpus_id)
        if corpus is None:
            raise StoreError(f"a shard of {self.path / 'prepared' / corpus_id} is missing or broken; prepare it again")
        return corpus

    def prepared(self, corpus_id: str) -> PreparedCorpus | None:
        """Return a prepared corpus; None while it is not complete, or where a shard is gone or cut short."""
        check_name("corpus id", corpus_id)
        folder = self.path / "prepared" / corpus_id
        try:
            complete = json.loads((folder / _COMPLETE).read_bytes())
            count, utterances = int(complete["shards"]), int(complete["utterances"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        shards = tuple(folder / f"part-{shard:05d}.parquet" for shard in range(count))
        if any(check(path) for path in shards):
            return None
        return PreparedCorpus(corpus_id, utterances, shards)

    def read_prepared(self, corpus: PreparedCorpus) -> Iterator[PreparedRow]:
        """Yield the rows of a prepared corpus, a shard in memory at a time; StoreError when one is broken."""
        for path in corpus.shards:
            rows = read_rows(path, PreparedRow)
            if isinstance(rows, BrokenFile):
                raise StoreError(f"cannot read {path}: {rows.reason}; delete its folder to have it prepared again")
            yield from rows

    # Helpers

    def _rows(self, table: str, key: CellKey, row: type[Row]) -> Iterator[Row]:
        for _, rows in readable(sorted((self.path / table / key.folder).glob("*.parquet")), row):
            yield from rows

    def _write_shard(self, table: str, key: CellKey, attempt: int, shard: int, rows: Sequence[Any]) -> Path:
        path = self.path / table / key.folder / f"{attempt:03d}-{shard:05d}.parquet"
        return write_rows(path, rows, TABLES[table].schema)

    def _run_path(self, table: str, run_id: str) -> Path:
        check_name("run id", run_id)
        return self.path / table / f"run_id={run_id}" / f"{table.removesuffix('s')}.parquet"

    def _of_run(self, table: str, run_id: str, row: type[Row]) -> list[Row]:
        path, record = self._run_path(table, run_id), self._run_path("runs", run_id)
        if not path.exists() and not record.exists():
            raise unknown("run", run_id, list(self.runs()))
        rows = read_rows(path, row)
        if isinstance(rows, BrokenFile):  # a run that has its record is not planned anew
            raise StoreError(f"cannot read {path}: {rows.reason}; delete {record} and run the suite again to mend it")
        return rows
