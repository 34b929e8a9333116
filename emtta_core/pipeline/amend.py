"""A plan is amended when audio can be had that could not be had before; nothing else of it ever changes."""

import re
from collections.abc import Sequence
from dataclasses import replace

from emtta_core.pipeline.cell import Cell
from emtta_core.pipeline.locate import locate
from emtta_core.pipeline.plan import UNAVAILABLE, Audio, cells_of, plan_audio, plan_id_of
from emtta_core.pipeline.run import Run, changed_since, check_unchanged, default_id, load_run, plan_row
from emtta_core.store import Store
from emtta_core.store.lease import lease
from emtta_core.suite import Suite


def amend(store: Store, run_id: str) -> tuple[str, ...]:
    """Plan the domains of a run anew whose audio could not be had when it was planned, and can be now.

    Returns:
        Their names; the run goes on with them as if they had been there from the beginning.

    Raises:
        UsageError: there is no such run; lists those there are. Or this release would plan the others differently.
        StoreError: another process works at the run.
    """
    run = load_run(store, run_id)
    amended = _amended(run)
    if amended.cells != run.cells:
        check_unchanged(store, run)
    _record(store, run, amended)
    before = {cell.domain: cell.corpus_id for cell in run.cells}
    return tuple({cell.domain: None for cell in amended.cells if cell.corpus_id != before[cell.domain]})


def begun_before(run: Run, store: Store) -> Run:
    """Return a run, under the id of the one as which it was begun when some of its audio could not be had.

    That one had another plan, and so another id where none was chosen; amended, its plan is this one. Other runs are
    left as they are.

    Raises:
        StoreError: another process works at that run.
    """
    there = store.runs()
    if run.run_id in there:
        amend(store, run.run_id)
        return run
    if run.run_id != default_id(run.suite, run.plan):
        return run
    named = re.compile(rf"{re.escape(run.suite.name)}-[0-9a-f]{{8}}")
    for run_id in filter(named.fullmatch, there):
        if there[run_id].model_digest != run.plan.model_digest:
            continue
        begun = load_run(store, run_id)
        if changed_since(there[run_id], begun):
            continue
        amended = _amended(begun)
        if amended.plan.plan_id == run.plan.plan_id:
            _record(store, begun, amended)
            return replace(run, run_id=run_id)
    return run


def _amended(run: Run) -> Run:
    """Return a run with the domains planned anew whose audio could not be had, and can be now."""
    lacking = {cell.domain for cell in run.cells if cell.corpus_id.startswith(UNAVAILABLE)}
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
    """Write an amended run in the place of what it was."""
    if amended.cells == run.cells:
        return
    with lease(store, run.run_id):
        row = replace(store.run(run.run_id), plan_id=amended.plan.plan_id, suite_toml=amended.suite.to_toml())
        store.write_run(run.run_id, row)  # first: who dies here leaves a plan that lacks audio, and is amended again
        store.write_plan(run.run_id, [plan_row(cell) for cell in amended.cells])


def _with(suite: Suite, names: Sequence[str]) -> Suite:
    """Return the suite with these domains alone."""
    return suite.model_copy(update={"domains": tuple(suite.domain(name) for name in names)})


def _planned_anew(cells: Sequence[Cell], suite: Suite, model_digest: str, found: dict[str, Audio]) -> list[Cell]:
    """Return the cells with those of the found domains planned anew."""
    new = {
        (cell.domain, cell.method): cell
        for name, audio in found.items()
        for cell in cells_of(suite.domain(name), suite, model_digest, audio)
    }
    return [new.get((cell.domain, cell.method), cell) for cell in cells]
