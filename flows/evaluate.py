"""The flow that evaluates a run: domains are prepared side by side, and a domain's cells start when it is ready.

What is to be done is read from the store, never from Prefect's records: a flow that is run again finishes what is
missing. One task owns its cell, so that a failure costs that cell; a domain that cannot be prepared costs its own.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from emtta_core.errors import UsageError
from emtta_core.pipeline.events import Started, channel
from emtta_core.pipeline.models import digest_of
from emtta_core.pipeline.plan import Cell
from emtta_core.pipeline.rescoring import settle_figures
from emtta_core.pipeline.reuse import Reuse
from emtta_core.pipeline.run import Run, as_now, check_unchanged, load_run
from emtta_core.pipeline.selection import Redo, resume_command, with_whole_streams
from emtta_core.pipeline.state import CellState, cell_states
from emtta_core.store import Store
from emtta_core.store.lease import Lease, lease
from emtta_core.suite import Isolation, ModelChoice, Runtime
from flows.artifacts import publish
from flows.dispatch import Dispatch, wait_for_records
from flows.executor import Executor, start_executor
from flows.runner import Runner
from tasks.cells import hide_passwords

INTERRUPTED = "Interrupted"
"""The name of the state in which a run ends that was asked to stop."""

FAILURES_NAMED = 20
"""How many failures a state's message names; the report `failures` has all."""


@flow(name="evaluate", flow_run_name="{run_id}", persist_result=False, validate_parameters=True)
@hide_passwords()
def evaluate(
    run_id: str,
    store: str,
    cells: Sequence[tuple[str, str, int | None]] | None = None,
    redo: Redo = "missing",
    runtime: Runtime | None = None,
    model: ModelChoice | None = None,
    devices: str | None = None,
    isolation: Isolation | None = None,
    runner: Runner = "threads",
    ray_address: str | None = None,
) -> State[Any]:
    """Execute a recorded run: finish what is missing of it.

    Args:
        run_id: the run.
        store: the store's location.
        cells: which cells, as domain, method and seed of each (no seed: None); left out, all.
        redo: which utterances of the cells: the missing ones, those in error too, or all of them anew.
        runtime: how cells are executed; left out, as it was recorded.
        model: the model as its suite names it now, of the same weights; left out, as it was recorded.
        devices: where cells run, as in `cuda:0,cuda:1`; left out, as the model says.
        isolation: whether cells run in processes of their own; left out, as the runtime says.
        runner: processes of this machine, or the machines of a Ray cluster, which must see the store.
        ray_address: of that cluster, as in `HOST:6379`; left out, the one that this machine belongs to.

    Raises:
        StoreError: another process works on the run, or has taken it over.
        UsageError: there is no such run; it was planned with another model or by other code; or the runner has no use
            for an option.
        EmttaError: the cluster cannot be reached, or does not see the store.

    Returns:
        Completed, or Failed with a message that names each failed cell and the command that finishes just those; a run
        that was asked to stop by Ctrl-C or SIGTERM likewise, in a state of the type FAILED and the name `Interrupted`.
    """
    opened = Store.open(store)
    run = load_run(opened, run_id)
    run = as_now(run, runtime or run.suite.runtime, model or run.suite.model)
    check_unchanged(opened, run)
    _check_model(run)
    chosen = None if cells is None else set(cells)
    wanted = [cell for cell in run.cells if chosen is None or (cell.domain, cell.method, cell.seed) in chosen]
    start = partial(start_executor, run, opened, runner, ray_address, devices, isolation)
    with lease(opened, run_id) as held:
        return _execute(run, opened, wanted, start, redo, held)


def _execute(
    run: Run,
    store: Store,
    wanted: Collection[Cell],
    start: Callable[[int], AbstractContextManager[Executor]],
    redo: Redo,
    held: Lease,
) -> State[Any]:
    # 1) link what other runs have done of these cells
    wanted = with_whole_streams(run.suite, run.cells, wanted)
    states = cell_states(store, run.run_id)
    lacking = [state.cell for state in states if state.missing and state.cell in wanted]
    reuse = Reuse(store, run, lacking if redo != "all" else [])
    found = reuse.of_cells()
    if found:
        reuse.link(found)
        states = cell_states(store, run.run_id)
    open_cells = [state.cell for state in states if state.cell in wanted and state.open_to(redo)]
    todo_cells = with_whole_streams(run.suite, run.cells, open_cells)
    todo = [state for state in states if state.cell in todo_cells]
    if not todo:
        settle_figures(store, run.run_id, held)
        return Completed(message=f"run {run.run_id}: {len(wanted)} cells complete")
    # 2) prepare the domains, and evaluate the cells, on an executor for so many
    with start(len(todo)) as executor:
        dispatch = Dispatch(run, store, executor, redo, held, reuse)
        channel.publish(_started(run, todo, redo, executor.size))
        failures = dispatch.run_all(todo)
        answers = wait_for_records(dispatch.records)  # while the processes that send some of them are there
    # 3) score as the suite says besides, compute the statistics, and say how it ended
    held.check(store)
    show = (lambda catalogue: publish(store, run.run_id, catalogue=catalogue)) if answers else None
    settle_figures(store, run.run_id, held, show)
    if not failures:
        return Completed(message=f"run {run.run_id}: {len(wanted)} cells complete")
    others = [state.cell for state in states if not (state.complete or state.cell in wanted)]
    command = resume_command(run.run_id, store.location, list(failures), [*failures, *others])
    return _failed(run.run_id, len(wanted), failures, command)


def _started(run: Run, todo: Sequence[CellState], redo: Redo, workers: int) -> Started:
    utterances: dict[str, int] = {}
    for state in todo:
        utterances[state.cell.method] = utterances.get(state.cell.method, 0) + state.to_do(redo)
    domains = {state.cell.domain for state in todo}
    return Started(run.run_id, len(domains), len(todo), utterances, workers)


def _check_model(run: Run) -> None:
    # UsageError where the model has other weights than those that the run was planned with.
    digest = digest_of(run.suite.model)
    if digest != run.plan.model_digest:
        raise UsageError(
            f"run {run.run_id} was planned with a model of the digest {run.plan.model_digest}, "
            f"but {run.suite.model.name!r} now has {digest}; begin another run, or bring the model back"
        )


def _failed(run_id: str, wanted: int, failures: dict[Cell, str], command: str) -> State[Any]:
    named = [f"{cell.name}: {error}" for cell, error in list(failures.items())[:FAILURES_NAMED]]
    if len(failures) > FAILURES_NAMED:
        named.append(f"… and {len(failures) - FAILURES_NAMED} more")
    by = channel.stopped_by
    how = "failed" if by is None else f"are not complete, for it was asked to stop by {by.name}"
    head, tail = f"run {run_id}: {len(failures)} of {wanted} cells {how}", f"finish them with: {command}"
    message = "\n".join([head, *named, tail])
    get_run_logger().error(message)
    return Failed(message=message) if by is None else Failed(name=INTERRUPTED, message=message)
