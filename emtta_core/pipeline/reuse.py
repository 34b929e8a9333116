"""Reuse of results of the same work, from other runs of the store or from the same run.

Results are linked, not copied: a link names a row, and the views show that row under the cell that reuses it. Whole
cells are found by their identity before any audio is prepared; single utterances (of a corpus that has grown, or under
a higher limit) by their own identity (`utterance_key`) once their audio is prepared.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

from emtta_core.adaptation.options import Trace
from emtta_core.errors import EmttaError
from emtta_core.pipeline.plan import Cell, utterance_key
from emtta_core.pipeline.run import Run, is_recorded, load_run, with_current_settings
from emtta_core.pipeline.selection import work_units_of
from emtta_core.pipeline.state import MISSING, PARTIAL, CellState, cell_states, has_started
from emtta_core.store import COMPLETE, LinkRow, Store
from emtta_core.store.catalogue import Catalogue
from emtta_core.suite import parse_suite

log = logging.getLogger("emtta.pipeline")

RUNS_A_CELL = 3
"""The most runs searched for the results of one cell, newest first; nightly runs of a suite all have the same."""

_TRACES = get_args(Trace)

_CANDIDATES = """
    SELECT plans.run_id, plans.cell_id, plans.recipe_id, runs.suite_toml
    FROM raw.plans AS plans
    INNER JOIN raw.runs AS runs USING (run_id)
    WHERE plans.recipe_id IN (SELECT unnest($recipes)) AND plans.run_id <> $run_id
    QUALIFY dense_rank() OVER (PARTITION BY plans.cell_id ORDER BY runs.created_at DESC, plans.run_id DESC) <= $most
    ORDER BY runs.created_at DESC, plans.run_id DESC
"""

# For a linked result, this gives the run that made it: no link leads to a link.
_RESULTS = """
    SELECT
        made.cell_id,
        made.utterance_key,
        made.utterance_id,
        coalesce(links.source_run, made.run_id) AS source_run,
        coalesce(links.source_domain, made.domain) AS source_domain,
        coalesce(links.source_method, made.method) AS source_method,
        coalesce(links.source_cell_id, made.cell_id) AS source_cell_id,
        coalesce(links.source_attempt, made.attempt) AS source_attempt,
        made.metadata
    FROM raw.hypotheses AS made
    INNER JOIN raw.scores AS scores USING (run_id, domain, method, cell_id, attempt, utterance_id)
    LEFT JOIN raw.links AS links
        ON made.attempt = 0
        AND links.run_id = made.run_id
        AND links.domain = made.domain
        AND links.method = made.method
        AND links.cell_id = made.cell_id
        AND links.utterance_id = made.utterance_id
    WHERE
        made.run_id = $run_id
        AND made.error IS NULL
        AND scores.error IS NULL
        AND (made.cell_id IN (SELECT unnest($cells)) OR made.utterance_key IN (SELECT unnest($keys)))
    ORDER BY made.attempt DESC
"""

_DONE = "SELECT domain, method, seed, utterance_id FROM utterances WHERE run_id = $run_id AND error IS NULL"


@dataclass(frozen=True, slots=True)
class Result:
    """A reusable result: the work it belongs to, and where its rows are."""

    cell_id: str
    utterance_key: str
    utterance_id: str
    source_run: str
    source_domain: str
    source_method: str
    source_cell_id: str
    source_attempt: int
    metadata: str


Reusable = Mapping[Cell, Mapping[str, Result]]
"""By cell, the results that it can reuse, by utterance."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The progress of a run's cells, now and once results are reused."""

    now: tuple[CellState, ...]  # the progress of each cell, in order
    reusable: Reusable = field(default_factory=dict)  # what each cell would reuse from other runs
    recorded: bool = False  # whether the store has the run
    # Whether single utterances of other runs may match, which is known only once the audio is prepared.
    may_grow: bool = False

    @property
    def states(self) -> tuple[CellState, ...]:
        """The progress of each cell once it reuses the results found."""
        return tuple(_with_reused(state, len(self.reusable.get(state.cell, ()))) for state in self.now)

    def sources(self, cells: Collection[Cell]) -> list[str]:
        """The runs whose results these cells would reuse."""
        reused = (result for cell, results in self.reusable.items() if cell in cells for result in results.values())
        return list(dict.fromkeys(result.source_run for result in reused))


def expected(run: Run, store: Store | None) -> Expected:
    """The progress of a run, recorded or not, and what it would reuse from other runs.

    A recorded run follows its recorded setting: one begun with `--no-reuse` reuses nothing.

    Raises:
        UsageError: a run of this id exists with a different plan; the message names the fields that differ.
        StoreError: the store cannot be read.
    """
    now = {cell: CellState(cell, MISSING, 0, 0, 0, None, None) for cell in run.cells}
    if store is None:
        return Expected(tuple(now.values()))
    recorded = is_recorded(run, store)
    if recorded:
        now |= {state.cell: state for state in cell_states(store, run.run_id) if state.cell in now}
        run = with_current_settings(load_run(store, run.run_id), run.suite.runtime, run.suite.model)
    reuse = Reuse(store, run, [state.cell for state in now.values() if state.missing])
    return Expected(tuple(now.values()), reuse.of_cells(), recorded, reuse.may_have_more)


def _with_reused(state: CellState, count: int) -> CellState:
    if not count:
        return state
    new_state = COMPLETE if count == state.missing and not state.in_error else PARTIAL
    return replace(state, state=new_state, done=state.done + count, reused=state.reused + count)


class Reuse:
    """Finds and links the results that cells of a run can reuse."""

    def __init__(self, store: Store, run: Run, cells: Sequence[Cell]) -> None:
        """Find the runs whose results can be reused; none if the suite disables reuse."""
        self._store, self._run = store, run
        self._cells = tuple(cells) if run.suite.runtime.reuse else ()
        self.runs: tuple[str, ...] = ()  # the other runs with the same recipe for some audio, newest first
        self._same: set[str] = set()
        self._recipes: set[str] = set()
        if self._cells and len(store.backend.list("runs")) > (store.find_run(run.run_id) is not None):
            recipes = sorted({cell.recipe_id for cell in self._cells})
            parameters = {"recipes": recipes, "run_id": run.run_id, "most": RUNS_A_CELL}
            with Catalogue(store, tables=("runs", "plans")) as catalogue:
                found = catalogue.query(_CANDIDATES, parameters).rows
            suites = {str(run_id): str(toml) for run_id, *_, toml in found}
            self.runs = tuple(run_id for run_id, toml in suites.items() if self._has_traces(run_id, toml))
            self._same = {cell_id for run_id, cell_id, *_ in found if run_id in self.runs}
            self._recipes = {recipe for run_id, _, recipe, _ in found if run_id in self.runs}

    @property
    def may_have_more(self) -> bool:
        """Whether some cell differs only in its audio from another run's, so that single utterances may match."""
        return any(cell.recipe_id in self._recipes and cell.cell_id not in self._same for cell in self._cells)

    def of_cells(self) -> Reusable:
        """Results of other runs for identical cells."""
        cells = [cell for cell in self._cells if cell.cell_id in self._same]
        return self._complete_streams_only(self._find(self.runs, cells, {})) if cells else {}

    def shares(self, cell: Cell) -> bool:
        """Whether a cell reuses results."""
        return cell in self._cells

    def of_utterances(self, cells: Sequence[Cell]) -> Reusable:
        """Results of other runs, and of other cells of this run, for identical utterances.

        The cells must share one corpus, which is prepared.
        """
        episodic = {choice.name for choice in self._run.suite.methods if self._run.suite.stream_of(choice) is None}
        cells = [cell for cell in cells if cell in self._cells and cell.method in episodic]
        corpus = self._store.prepared(cells[0].corpus_id) if cells else None
        own_run = [self._run.run_id] if has_started(self._store, self._run.run_id) else []
        if corpus is None or not (self.runs or own_run):
            return {}
        keys: dict[str, list[Cell]] = defaultdict(list)
        metadata: dict[str, str] = {}
        for row in self._store.read_prepared(corpus):
            metadata[row.utterance_id] = row.metadata
            for cell in cells:
                keys[utterance_key(cell.recipe_id, row)].append(cell)
        return {
            cell: {name: replace(result, metadata=metadata[name]) for name, result in results.items()}
            for cell, results in self._find([*self.runs, *own_run], [], keys).items()
        }

    def link(self, found: Reusable) -> None:
        """Link results, so that they count in this run from now on."""
        rows: dict[str, list[LinkRow]] = defaultdict(list)
        for cell, results in found.items():
            for result in results.values():
                rows[result.source_run].append(_link(cell, result))
        for source_run, links in rows.items():
            name = self._store.write_links(self._run.run_id, source_run, links)
            # Pruning removes a run's record before it looks for links to the run: one of the two sees the other.
            if source_run != self._run.run_id and self._store.find_run(source_run) is None:
                self._store.backend.remove([name])

    def _find(self, runs: Iterable[str], cells: Sequence[Cell], keys: Mapping[str, Sequence[Cell]]) -> Reusable:
        # The results in some runs of these cells, or of the utterances with these keys.
        by_id: dict[str, list[Cell]] = defaultdict(list)
        for cell in cells:
            by_id[cell.cell_id].append(cell)
        found: dict[Cell, dict[str, Result]] = defaultdict(dict)
        done: set[tuple[str, str, int | None, str]] | None = None
        for run_id in runs:
            parameters = {"run_id": run_id, "cells": list(by_id), "keys": list(keys)}
            with Catalogue(self._store, runs=[run_id]) as catalogue:
                results = [Result(*row) for row in catalogue.query(_RESULTS, parameters).rows]
            # Usually there are none, and then the results of this run need not be read.
            if results and done is None:
                done = self._done()
            for result in results:
                for cell in (*by_id[result.cell_id], *keys.get(result.utterance_key, ())):
                    if (cell.domain, cell.method, cell.seed, result.utterance_id) not in (done or ()):
                        found[cell].setdefault(result.utterance_id, result)
        return found

    def _complete_streams_only(self, found: Reusable) -> Reusable:
        # A stream reuses results only for all of its missing utterances; otherwise it resumes where this run left it.
        suite, missing = self._run.suite, set(self._cells)
        for work in work_units_of(suite, self._run.cells):
            if suite.stream_of(suite.method(work[0].method)) is not None and any(
                len(found.get(cell, ())) < cell.utterances for cell in missing.intersection(work)
            ):
                found = {cell: results for cell, results in found.items() if cell not in work}
        return found

    def _done(self) -> set[tuple[str, str, int | None, str]]:
        if self._store.find_run(self._run.run_id) is None:
            return set()
        with Catalogue(self._store, runs=[self._run.run_id]) as catalogue:
            return set(catalogue.query(_DONE, {"run_id": self._run.run_id}).rows)

    def _has_traces(self, run_id: str, suite_toml: str) -> bool:
        try:
            trace = parse_suite(suite_toml, origin=f"the suite of run {run_id}").runtime.trace
        except EmttaError as error:
            log.warning("no result of the run %s is reused, as its suite cannot be read: %s", run_id, error)
            return False
        return _TRACES.index(trace) >= _TRACES.index(self._run.suite.runtime.trace)


def _link(cell: Cell, result: Result) -> LinkRow:
    return LinkRow(
        domain=cell.domain,
        method=cell.method,
        cell_id=cell.cell_id,
        utterance_id=result.utterance_id,
        source_domain=result.source_domain,
        source_method=result.source_method,
        source_cell_id=result.source_cell_id,
        source_attempt=result.source_attempt,
        metadata=result.metadata,
    )
