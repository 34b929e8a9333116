"""The progress of a run, as read from the store, and a forecast of the remaining time."""

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
"""The states of a cell, as the view `cells` defines them."""


def planned_cells(store: Store, run_id: str) -> tuple[Cell, ...]:
    """The planned cells of a run, in order.

    Raises:
        UsageError: there is no such run; the message lists the existing runs.
    """
    rows = store.plan(run_id)
    seeds = Counter((row.domain, row.method) for row in rows)
    names = [field.name for field in fields(Cell) if field.name != "seeds"]
    return tuple(
        Cell(**{name: getattr(row, name) for name in names}, seeds=seeds[row.domain, row.method]) for row in rows
    )


@dataclass(frozen=True, slots=True)
class CellState:
    """The progress of a planned cell, as recorded in the store."""

    cell: Cell  # the cell
    state: str  # `complete`, `failed`, `partial` or `missing`, as the view `cells` defines them
    done: int  # utterances done, including those in error
    in_error: int  # utterances in error
    reused: int  # utterances done whose results are reused from another cell
    wer: float | None  # word error rate so far, in percent
    error: str | None  # why the latest attempt failed, if the cell is not complete

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.state == COMPLETE

    @property
    def has_failed(self) -> bool:
        """Whether its latest attempt failed or utterances are in error."""
        return self.state == FAILED or self.in_error > 0

    def open_to(self, redo: Redo) -> bool:
        """Whether `redo` leaves anything to evaluate."""
        return not self.complete or redo == "all" or (redo == "errors" and self.in_error > 0)

    @property
    def missing(self) -> int:
        """Number of utterances not done yet."""
        return max(0, self.cell.utterances - self.done)

    def to_do(self, redo: Redo) -> int:
        """Number of utterances to evaluate, for the first time or again."""
        return self.missing + {"missing": 0, "errors": self.in_error, "all": self.done}[redo]


def has_started(store: Store, run_id: str) -> bool:
    """Whether a run has rows of cells, including reused ones, or records of attempts."""
    return any(Snapshot.take(store.backend, [run_id], ("hypotheses", "cells", "links")).entries)


def cell_states(store: Store, run_id: str, catalogue: Catalogue | None = None) -> tuple[CellState, ...]:
    """The progress of each cell of a run, in plan order, read through `catalogue` if the caller has one open.

    Raises:
        UsageError: there is no such run; the message lists the existing runs.
    """
    cells = planned_cells(store, run_id)
    query = "SELECT domain, method, seed, state, done, in_error, reused, wer, error FROM cells WHERE run_id = $run_id"
    if catalogue is None and not has_started(store, run_id):  # needs no query
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
    """Whether an attempt at a cell failed or left utterances in error, under any plan of the run."""
    if any(row.state == FAILED for row in store.cells(cell.key(run_id))):
        return True
    parameters = {"run_id": run_id, "domain": cell.domain, "method": cell.method, "seed": cell.seed}
    with Catalogue(store, runs=[run_id]) as catalogue:
        return bool(catalogue.query(_IN_ERROR, parameters).rows)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The progress of a run."""

    run_id: str  # the run
    suite: str  # the name of its suite
    model: str  # the model, as the suite names it
    created_at: datetime  # when it was created, UTC
    cells: tuple[CellState, ...]  # the progress of each of its cells
    holder: Holder | None  # the process working on it; None if there is none or it is dead
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
        """The status as a few lines of text."""
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
        # Says that no process is working on the run, and how to finish it if it is incomplete.
        return "none" if self.complete else f"none; finish the run with: {self.resume}"


def run_status(store: Store, run_id: str) -> RunStatus:
    """The progress of a run.

    Raises:
        UsageError: there is no such run; the message lists the existing runs.
    """
    row = store.run(run_id)
    current_holder = holder(store, run_id)  # read first, so that a run ending meanwhile does not look interrupted
    states, resume = cell_states(store, run_id), store.command("rerun", run_id)
    return RunStatus(run_id, row.suite, row.model, row.created_at, states, current_holder, resume)


COST_OPTIONS = ("steps", "candidates", "beams", "redraw", "early_stop", "adapt_above")
"""The options that affect the time per utterance."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The time per utterance of a method in an earlier run."""

    run_id: str  # the run
    device: str  # where it ran, such as `cuda:0`; several are separated by commas
    seconds: float  # wall-clock seconds per utterance (its share of the batch), averaged over all domains
    by_domain: Mapping[str, float]  # the same for each domain of the run

    def of(self, domain: str) -> float:
        """Wall-clock seconds per utterance of a domain; the overall mean if the run did not have the domain."""
        return self.by_domain.get(domain, self.seconds)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The expected time on one device, excluding loading models and preparing audio."""

    seconds: float  # wall-clock seconds, for the methods that have a pace
    paces: Mapping[str, Pace]  # by method name
    unknown: tuple[str, ...]  # the methods that no earlier run used with this model and these options


def forecast(store: Store | None, suite: Suite, todo: Mapping[Cell, int]) -> Forecast:
    """Estimate how long the remaining utterances of each cell will take.

    Args:
        store: the store with earlier runs; None if there is none yet.
        suite: the suite of the cells. For each method, the newest run counts that used an equivalent method on a model
            of the same name with options of equal cost, whatever its domains and its name for the method.
        todo: the number of utterances of each cell.
    """
    methods = dict.fromkeys(cell.method for cell in todo)
    paces = {} if store is None else _paces(store, suite, methods)
    seconds = sum(count * paces[cell.method].of(cell.domain) for cell, count in todo.items() if cell.method in paces)
    return Forecast(seconds, paces, tuple(name for name in methods if name not in paces))


def _paces(store: Store, suite: Suite, methods: Mapping[str, None]) -> dict[str, Pace]:
    digests = {name: work for name, work in _method_digests(suite).items() if name in methods}
    query = "SELECT run_id, suite_toml FROM raw.runs WHERE model = $model ORDER BY created_at DESC"
    with Catalogue(store, tables=("runs",)) as catalogue:
        runs = catalogue.query(query, {"model": suite.model.name}).rows
    paces: dict[str, Pace] = {}
    for run_id, suite_toml in runs:
        if len(paces) == len(digests):
            break
        try:
            others = _method_digests(parse_suite(suite_toml, origin=f"the suite of run {run_id}"))
        except EmttaError:  # from a release with other fields; try the next run
            continue
        names = {work: name for name, work in others.items()}
        needed = {name: names[work] for name, work in digests.items() if name not in paces and work in names}
        found = _measured(store, run_id) if needed else {}
        paces |= {name: found[other] for name, other in needed.items() if other in found}
    return paces


def _method_digests(suite: Suite) -> dict[str, str]:
    # For each method of a suite, a digest of everything that affects the time per utterance.
    return {
        choice.name: recipe_id(
            replace(choice.method(), name=""),
            Options(**{name: getattr(choice.adapted(suite.adaptation), name) for name in COST_OPTIONS}),
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
