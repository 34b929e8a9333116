"""A plan is amended where a domain cannot be finished as planned: its audio was unavailable, or was mended since.

Nothing else of a plan ever changes.
"""

import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from emtta_core.errors import EmttaError
from emtta_core.pipeline.inventory import locate
from emtta_core.pipeline.plan import Audio, Cell, cells_of, plan_audio, plan_id_of
from emtta_core.pipeline.run import Run, changed_since, check_unchanged, default_id, load_run, plan_row
from emtta_core.store import FAILED, CellKey, Store
from emtta_core.store.catalogue import Catalogue
from emtta_core.store.lease import lease
from emtta_core.suite import Suite

_IN_ERROR = """
    SELECT utterance_id
    FROM raw.hypotheses AS made
    LEFT JOIN raw.scores AS scores USING (run_id, domain, method, cell_id, attempt, utterance_id)
    WHERE
        made.run_id = $run_id
        AND made.domain = $domain
        AND made.method = $method
        AND (made.error IS NOT NULL OR scores.error IS NOT NULL)
    LIMIT 1
"""
log = logging.getLogger("emtta.pipeline")


def amend(store: Store, run_id: str, suspects: Collection[str] = ()) -> tuple[str, ...]:
    """Plan domains of a run anew: those whose audio was unavailable and is there now, and suspects that have changed.

    Args:
        store: where.
        run_id: the run.
        suspects: domains in which something failed; where the corpus is another one now, the cause may be mended.

    Returns:
        Their names; the run goes on with them as if they had been so from the beginning.

    Raises:
        UsageError: there is no such run; lists those there are. Or this release would plan the others differently.
        StoreError: another process works at the run.
    """
    run = load_run(store, run_id)
    amended = _amended(run, suspects)
    if amended.cells != run.cells:
        check_unchanged(store, run)
    _record(store, run, amended)
    before = {cell.domain: cell.corpus_id for cell in run.cells}
    return tuple({cell.domain: None for cell in amended.cells if cell.corpus_id != before[cell.domain]})


def failed_before(store: Store, run_id: str, cell: Cell) -> bool:
    """Return whether an attempt at a cell failed or left utterances in error, under whichever plan of the run."""
    if any(row.state == FAILED for row in store.cells(CellKey(run_id, cell.domain, cell.method))):
        return True
    parameters = {"run_id": run_id, "domain": cell.domain, "method": cell.method}
    with Catalogue(store, run_id=run_id) as catalogue:
        return bool(catalogue.query(_IN_ERROR, parameters).rows)


def begun_before(run: Run, store: Store) -> Run:
    """Return a run, under the id of the one as which it was begun when some of its audio could not be had.

    That one had another plan, and so another id where none was chosen; amended, its plan is this one. Other runs are
    left as they are.

    Raises:
        StoreError: another process works at that run, or the record of this one cannot be read.
    """
    if store.find_run(run.run_id) is not None:
        amend(store, run.run_id)
        return run
    if run.run_id != default_id(run.suite, run.plan):
        return run
    named, there = re.compile(rf"{re.escape(run.suite.name)}-[0-9a-f]{{8}}"), store.runs()
    for run_id in filter(named.fullmatch, there):
        if there[run_id].model_digest != run.plan.model_digest:
            continue
        try:
            begun = load_run(store, run_id)
        except EmttaError as error:
            log.warning(
                "whether the run %s is this one cannot be told, so that it is not gone on with: %s", run_id, error
            )
            continue
        if changed_since(there[run_id], begun):
            continue
        amended = _amended(begun)
        if amended.plan.plan_id == run.plan.plan_id:
            _record(store, begun, amended)
            return replace(run, run_id=run_id)
    return run


def _amended(run: Run, suspects: Collection[str] = ()) -> Run:
    # A run with domains planned anew: those that were unavailable, and suspects, as far as they are there.
    lacking = {cell.domain for cell in run.cells if not cell.available} | set(suspects)
    if not lacking:
        return run
    suite = locate(run.suite)
    audio = plan_audio(_with(suite, [domain.name for domain in suite.domains if domain.name in lacking]))
    found = {name: here for name, here in audio.items() if here.error is None}
    domains = tuple(suite.domain(old.name) if old.name in found else old for old in run.suite.domains)
    amended = run.suite.model_copy(update={"domains": domains})
    cells = _planned_anew(run.cells, suite, run.plan.model_digest, found)
    return Run(run.run_id, amended, replace(run.plan, plan_id=plan_id_of(cells, amended), cells=tuple(cells)))


def _record(store: Store, run: Run, amended: Run) -> None:
    if amended.cells == run.cells:
        return
    with lease(store, run.run_id):
        row = replace(store.run(run.run_id), plan_id=amended.plan.plan_id, suite_toml=amended.suite.to_toml())
        store.write_run(run.run_id, row)  # first: who dies here leaves a plan that lacks audio, and is amended again
        store.write_plan(run.run_id, [plan_row(cell) for cell in amended.cells])


def _with(suite: Suite, names: Sequence[str]) -> Suite:
    return suite.model_copy(update={"domains": tuple(suite.domain(name) for name in names)})


def _planned_anew(cells: Sequence[Cell], suite: Suite, model_digest: str, found: dict[str, Audio]) -> list[Cell]:
    new = {
        (cell.domain, cell.method): cell
        for name, audio in found.items()
        for cell in cells_of(suite.domain(name), suite, model_digest, audio)
    }
    return [new.get((cell.domain, cell.method), cell) for cell in cells]
