"""The progress of a run: read from the store, which is the truth about what is done; and how long the rest takes."""

from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from emtta_core.adaptation.options import Options
from emtta_core.errors import EmttaError
from emtta_core.pipeline.plan import Cell, recipe_id
from emtta_core.pipeline.selection import Redo
from emtta_core.store import COMPLETE, FAILED, Store
from emtta_core.store.catalogue import Catalogue
from emtta_core.store.lease import Holder, holder
from emtta_core.store.snapshot import Snapshot
from emtta_core.suite import Suite, parse_suite

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
    reused: int  # utterances, of those done, whose results are those of another cell
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
    """How far each cell of a run is, in the order of its plan; by a `catalogue` where the caller has one open.

    Raises:
        UsageError: there is no such run; lists those there are.
    """
    cells = planned_cells(store, run_id)
    query = "SELECT domain, method, seed, state, done, in_error, reused, wer, error FROM cells WHERE run_id = $run_id"
    if catalogue is None and not has_begun(store, run_id):  # which takes no query
        return tuple(CellState(cell, MISSING, 0, 0, 0, None, None) for cell in cells)
    with Catalogue(store, runs=[run_id]) if catalogue is None else nullcontext(catalogue) as opened:
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
    with Catalogue(store, runs=[run_id]) as catalogue:
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
                + (f", {utterances['reused']} reused" if utterances["reused"] else ""),
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


WEIGHS = ("steps", "candidates", "beams", "redraw", "early_stop", "adapt_above")
"""The options by which an utterance takes longer."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What an utterance of a method took in an earlier run."""

    run_id: str  # the run
    device: str  # where it ran, as `cuda:0`; more than one with commas between
    seconds: float  # wall seconds an utterance, its share of its batch: the mean over all domains
    by_domain: Mapping[str, float]  # the same of each domain that it had

    def of(self, domain: str) -> float:
        """The wall seconds of an utterance of a domain; the mean of all, where the run did not have it."""
        return self.by_domain.get(domain, self.seconds)


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long work will take on one device, models' loading and audio's preparation not counted."""

    seconds: float  # wall seconds, of the methods that have a pace
    paces: Mapping[str, Pace]  # by the name of the method
    unknown: tuple[str, ...]  # the methods that no earlier run did, with this model and these options


def forecast(store: Store | None, suite: Suite, todo: Mapping[Cell, int]) -> Forecast:
    """How long so many utterances of each cell will take.

    Args:
        store: where earlier runs are; None where there is none yet.
        suite: what the cells are of. Of each method, the newest run counts that did the same to a model of the same
            name, with options that take as long, whatever its domains and whatever the method is called there.
        todo: how many utterances of each cell.
    """
    methods = dict.fromkeys(cell.method for cell in todo)
    paces = {} if store is None else _paces(store, suite, methods)
    seconds = sum(count * paces[cell.method].of(cell.domain) for cell, count in todo.items() if cell.method in paces)
    return Forecast(seconds, paces, tuple(name for name in methods if name not in paces))


def _paces(store: Store, suite: Suite, methods: Mapping[str, None]) -> dict[str, Pace]:
    works = {name: work for name, work in _works(suite).items() if name in methods}
    query = "SELECT run_id, suite_toml FROM raw.runs WHERE model = $model ORDER BY created_at DESC"
    with Catalogue(store, tables=("runs",)) as catalogue:
        runs = catalogue.query(query, {"model": suite.model.name}).rows
    paces: dict[str, Pace] = {}
    for run_id, suite_toml in runs:
        if len(paces) == len(works):
            break
        try:
            there = _works(parse_suite(suite_toml, origin=f"the suite of run {run_id}"))
        except EmttaError:  # of a release with other fields: another run may do
            continue
        names = {work: name for name, work in there.items()}
        wanted = {name: names[work] for name, work in works.items() if name not in paces and work in names}
        found = _measured(store, run_id) if wanted else {}
        paces |= {name: found[there] for name, there in wanted.items() if there in found}
    return paces


def _works(suite: Suite) -> dict[str, str]:
    # What each method of a suite does to an utterance: by its name, a digest of all that takes time.
    return {
        choice.name: recipe_id(
            replace(choice.method(), name=""),
            Options(**{name: getattr(choice.adapted(suite.adaptation), name) for name in WEIGHS}),
            suite.model,
            suite.model.name,
        )
        + (" in a stream" if suite.stream_of(choice) else "")
        for choice in suite.methods
    }


def _measured(store: Store, run_id: str) -> dict[str, Pace]:
    query = """
        SELECT method, device, domain, avg(seconds) AS seconds, count(*) AS utterances
        FROM utterances
        INNER JOIN (
            SELECT method, string_agg(DISTINCT device, ', ' ORDER BY device) AS device FROM attempts GROUP BY method
        ) USING (method)
        WHERE error IS NULL AND seconds IS NOT NULL
        GROUP BY ALL
        ORDER BY ALL
    """
    with Catalogue(store, runs=[run_id]) as catalogue:
        rows = catalogue.query(query).rows
    paces = {}
    for method, device in dict.fromkeys((method, device) for method, device, *_ in rows):
        domains = [rest for name, _, *rest in rows if name == method]
        total = sum(seconds * count for _, seconds, count in domains)
        mean = total / sum(count for *_, count in domains)
        paces[method] = Pace(run_id, device, mean, {domain: seconds for domain, seconds, _ in domains})
    return paces
