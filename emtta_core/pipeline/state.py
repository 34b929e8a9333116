"""The progress of a run: read from the store, which is the truth about what is done, through its views."""

from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from emtta_core.pipeline.plan import Cell
from emtta_core.pipeline.selection import Redo
from emtta_core.store import COMPLETE, FAILED, Store
from emtta_core.store.catalogue import Catalogue
from emtta_core.store.lease import Holder, holder
from emtta_core.store.snapshot import Snapshot

PARTIAL = "partial"
MISSING = "missing"
CELL_STATES = (COMPLETE, PARTIAL, FAILED, MISSING)
"""How far a cell can be, as the view `cells` defines it."""


def planned_cells(store: Store, run_id: str) -> tuple[Cell, ...]:
    """The planned cells of a run, in order.

    Raises:
        UsageError: there is no such run; lists those there are.
    """
    rows = store.plan(run_id)
    seeds = Counter((row.domain, row.method) for row in rows)
    names = [field.name for field in fields(Cell) if field.name != "seeds"]
    return tuple(
        Cell(**{name: getattr(row, name) for name in names}, seeds=seeds[row.domain, row.method]) for row in rows
    )


@dataclass(frozen=True, slots=True)
class CellState:
    """How far a planned cell is, as the store has it."""

    cell: Cell  # which
    state: str  # `complete`, `failed`, `partial` or `missing`, as the view `cells` defines them
    done: int  # utterances that are done, those in error included
    in_error: int  # utterances in error
    reused: int  # utterances, of those done, whose results are those of another run
    wer: float | None  # word error rate of what is done, in percent
    error: str | None  # why the newest attempt failed, where the cell is not complete

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.state == COMPLETE

    @property
    def has_failed(self) -> bool:
        """Whether its newest attempt failed, or utterances are in error."""
        return self.state == FAILED or self.in_error > 0

    def open_to(self, redo: Redo) -> bool:
        """Whether something is to be done again, or for the first time."""
        return not self.complete or redo == "all" or (redo == "errors" and self.in_error > 0)

    @property
    def missing(self) -> int:
        """Utterances still to be done."""
        return max(0, self.cell.utterances - self.done)

    def to_do(self, redo: Redo) -> int:
        """How many utterances are to be done, for the first time or again."""
        return self.missing + {"missing": 0, "errors": self.in_error, "all": self.done}[redo]


def has_begun(store: Store, run_id: str) -> bool:
    """Whether there are rows of cells of a run, reused ones included, or records of attempts."""
    return any(Snapshot.take(store.backend, [run_id], ("hypotheses", "cells", "links")).entries)


def cell_states(store: Store, run_id: str, catalogue: Catalogue | None = None) -> tuple[CellState, ...]:
    """How far each cell of a run is, in the order of its plan.

    Args:
        store: the run's.
        run_id: the run.
        catalogue: of the store, where the caller has one open.

    Raises:
        UsageError: there is no such run; lists those there are.
    """
    cells = planned_cells(store, run_id)
    query = "SELECT domain, method, seed, state, done, in_error, reused, wer, error FROM cells WHERE run_id = $run_id"
    if catalogue is None and not has_begun(store, run_id):  # which takes no query
        return tuple(CellState(cell, MISSING, 0, 0, 0, None, None) for cell in cells)
    with Catalogue(store, run_id=run_id) if catalogue is None else nullcontext(catalogue) as opened:
        rows = opened.query(query, {"run_id": run_id}).rows
    found = {(domain, method, seed): rest for domain, method, seed, *rest in rows}
    return tuple(CellState(cell, *found[cell.domain, cell.method, cell.seed]) for cell in cells)


_IN_ERROR = """
    SELECT utterance_id
    FROM raw.hypotheses AS made
    LEFT JOIN raw.scores AS scores USING (run_id, domain, method, cell_id, attempt, utterance_id)
    WHERE
        made.run_id = $run_id
        AND made.domain = $domain
        AND made.method = $method
        AND made.seed IS NOT DISTINCT FROM $seed
        AND (made.error IS NOT NULL OR scores.error IS NOT NULL)
    LIMIT 1
"""


def failed_before(store: Store, run_id: str, cell: Cell) -> bool:
    """Whether an attempt at a cell failed or left utterances in error, under whichever plan of the run."""
    if any(row.state == FAILED for row in store.cells(cell.key(run_id))):
        return True
    parameters = {"run_id": run_id, "domain": cell.domain, "method": cell.method, "seed": cell.seed}
    with Catalogue(store, run_id=run_id) as catalogue:
        return bool(catalogue.query(_IN_ERROR, parameters).rows)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The progress of a run."""

    run_id: str  # which
    suite: str  # the name of its suite
    model: str  # as the suite names it
    created_at: datetime  # when it was begun, UTC
    cells: tuple[CellState, ...]  # how far each of its cells is
    holder: Holder | None  # the process that works on it; None if there is none, or if it is dead
    resume: str  # the command that finishes it

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return all(cell.complete for cell in self.cells)

    def as_dict(self) -> dict[str, Any]:
        """The status as plain JSON values."""
        counts = Counter(cell.state for cell in self.cells)
        return {
            "run_id": self.run_id,
            "suite": self.suite,
            "model": self.model,
            "created_at": self.created_at.isoformat(),
            "state": "complete" if self.complete else "incomplete",
            "holder": self.holder
            and {"host": self.holder.host, "process": self.holder.process, "since": self.holder.since},
            "cells": {"planned": len(self.cells)} | {state: counts[state] for state in CELL_STATES},
            "utterances": {
                "planned": sum(cell.cell.utterances for cell in self.cells),
                "done": sum(cell.done for cell in self.cells),
                "in_error": sum(cell.in_error for cell in self.cells),
                "reused": sum(cell.reused for cell in self.cells),
            },
            "failed": [
                {"domain": cell.cell.domain, "method": cell.cell.method, "seed": cell.cell.seed, "error": cell.error}
                for cell in self.cells
                if cell.state == FAILED
            ],
        }

    def as_text(self) -> str:
        """The status in some lines for a reader."""
        found = self.as_dict()
        cells, utterances = found["cells"], found["utterances"]
        rest = ", ".join(f"{cells[state]} {state}" for state in CELL_STATES if cells[state] and state != COMPLETE)
        rows = [
            ("run", f"{self.run_id} ({found['state']})"),
            ("active process", str(self.holder).removeprefix("process ") if self.holder else self._none()),
            ("suite", f"{self.suite}, model {self.model}, created {self.created_at:%Y-%m-%d %H:%M:%S} UTC"),
            ("cells", f"{cells[COMPLETE]} of {cells['planned']} complete" + (f"; {rest}" if rest else "")),
            (
                "utterances",
                f"{utterances['done']} of {utterances['planned']} done, {utterances['in_error']} in error"
                + (f", {utterances['reused']} reused from other runs" if utterances["reused"] else ""),
            ),
            *(("failed", f"{cell.cell.name}: {cell.error}") for cell in self.cells if cell.state == FAILED),
        ]
        return "\n".join(f"{f'{name}:':<16}{text}" for name, text in rows)

    def _none(self) -> str:
        # The sentence that no process works on the run, and how to finish it if it is incomplete.
        return "none" if self.complete else f"none; finish the run with: {self.resume}"


def run_status(store: Store, run_id: str) -> RunStatus:
    """The progress of a run.

    Raises:
        UsageError: there is no such run; lists those there are.
    """
    row = store.run(run_id)
    works = holder(store, run_id)  # first: it may end while its cells are read, and is not to look interrupted
    states, resume = cell_states(store, run_id), store.command("rerun", run_id)
    return RunStatus(run_id, row.suite, row.model, row.created_at, states, works, resume)
