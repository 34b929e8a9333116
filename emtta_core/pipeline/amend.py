"""A plan is amended when audio can be had that could not be had before; nothing else of it ever changes."""

import re
from collections.abc import Sequence
from dataclasses import replace

from emtta_core.pipeline.cell import Cell
from emtta_core.pipeline.locate import locate
from emtta_core.pipeline.plan import UNAVAILABLE, Audio, cells_of, plan_audio, plan_id_of
from emtta_core.pipeline.run import Run, default_id, load_run, plan_row
from emtta_core.store import Store
from emtta_core.store.lease import lease
from emtta_core.suite import Suite


def amend(store: Store, run_id: str) -> tuple[str, ...]:
    """Plan the domains of a run anew whose audio could not be had when it was planned, and can be now.

    Returns:
        Their names; the run goes on with them as if they had been there from the beginning.

    Raises:
        UsageError: there is no such run; lists those there are.
        StoreError: another process works at the run.
    """
    run = load_run(store, run_id)
    lacking = {cell.domain for cell in run.cells if cell.corpus_id.startswith(UNAVAILABLE)}
    if not lacking:
        return ()
    suite = locate(run.suite)
    audio = plan_audio(_with(suite, [domain.name for domain in suite.domains if domain.name in lacking]))
    found = {name: here for name, here in audio.items() if here.error is None}
    if not found:
        return ()
    cells = _amended(run.cells, suite, run.plan.model_digest, found)
    domains = tuple(suite.domain(old.name) if old.name in found else old for old in run.suite.domains)
    amended = run.suite.model_copy(update={"domains": domains})
    with lease(store, run_id):
        row = replace(store.run(run_id), plan_id=plan_id_of(cells, amended), suite_toml=amended.to_toml())
        store.write_plan(run_id, [plan_row(cell) for cell in cells])
        store.write_run(run_id, row)
    return tuple(found)


def begun_before(run: Run, store: Store) -> Run:
    """Return a run, under the id of the one as which it was begun when some of its audio could not be had.

    That one had another plan, and so another id where none was chosen; amended, its plan is this one.

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
        if _lacks(store, run_id):
            amend(store, run_id)
        if store.run(run_id).plan_id == run.plan.plan_id:
            return replace(run, run_id=run_id)
    return run


def _lacks(store: Store, run_id: str) -> bool:
    """Return whether audio of a run could not be had when it was planned."""
    return any(row.corpus_id.startswith(UNAVAILABLE) for row in store.plan(run_id))


def _with(suite: Suite, names: Sequence[str]) -> Suite:
    """Return the suite with these domains alone."""
    return suite.model_copy(update={"domains": tuple(suite.domain(name) for name in names)})


def _amended(cells: Sequence[Cell], suite: Suite, model_digest: str, found: dict[str, Audio]) -> list[Cell]:
    """Return the cells with those of the found domains planned anew."""
    new = {
        (cell.domain, cell.method): cell
        for name, audio in found.items()
        for cell in cells_of(suite.domain(name), suite, model_digest, audio)
    }
    return [new.get((cell.domain, cell.method), cell) for cell in cells]
