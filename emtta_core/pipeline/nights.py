"""A night: a run of a suite whose id carries its date, and the runs that it can be compared with."""

import itertools

from emtta_core.pipeline.run import Run, plan_run
from emtta_core.pipeline.state import cell_states
from emtta_core.store import Catalogue, Store
from emtta_core.suite import Suite


def plan_night(suite: Suite, model_digest: str, store: Store, date: str) -> Run:
    """Plan the run of a date: `<suite>-<date>`, or that with `-2`, `-3`, … behind it.

    A run of the date that has the same plan and is not complete is the one that goes on. One that is complete, or has
    another plan (the suite, the model or the algorithm changed during the day), is left as it is.

    Args:
        suite: what to evaluate.
        model_digest: of the suite's model.
        store: where it will lie.
        date: as in `2026-11-23`.

    Raises:
        StoreError: a run of that date is there and cannot be read.
    """
    night = plan_run(suite, model_digest, f"{suite.name}-{date}")
    for number in itertools.count(2):
        row = store.find_run(night.run_id)
        if row is None:
            return night
        if row.plan_id == night.plan.plan_id and not all(cell.complete for cell in cell_states(store, night.run_id)):
            return night
        night = Run(f"{suite.name}-{date}-{number}", suite, night.plan)
    raise AssertionError("numbers do not end")


def baselines(store: Store, run_id: str) -> list[str]:
    """Return the complete runs of the same suite and model that were begun before a run, the newest first."""
    query = """
        SELECT earlier.run_id
        FROM runs AS earlier
        INNER JOIN raw.runs AS this USING (suite, model)
        WHERE
            this.run_id = $run_id
            AND earlier.run_id <> this.run_id
            AND earlier.created_at <= this.created_at
            AND earlier.state = 'complete'
        ORDER BY earlier.created_at DESC, earlier.run_id DESC
    """
    with Catalogue(store) as catalogue:
        return [str(row[0]) for row in catalogue.query(query, {"run_id": run_id}).rows]
