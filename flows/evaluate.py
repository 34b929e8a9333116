"""The flow that evaluates a run: domains are prepared side by side, and a domain's cells start when it is ready.

What is to be done is read from the store, never from Prefect's records: a flow that is run again finishes what is
missing. One task owns its cell, so that a failure costs that cell; a domain that cannot be prepared costs its own.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from emtta_core.errors import UsageError
from emtta_core.pipeline.events import Started, channel
from emtta_core.pipeline.models import digest_of
from emtta_core.pipeline.plan import Cell
from emtta_core.pipeline.reuse import Reuse
from emtta_core.pipeline.run import Run, as_now, check_unchanged, load_run, plan_run, record
from emtta_core.pipeline.run_statistics import settle_statistics
from emtta_core.pipeline.selection import Redo, resume_command, select
from emtta_core.pipeline.state import CellState, cell_states
from emtta_core.store import Store
from emtta_core.store.lease import Lease, lease
from emtta_core.suite import Isolation, load_suite
from flows.artifacts import publish
from flows.dispatch import Dispatch, wait_for_records
from flows.executor import Crew, crew_of
from flows.runner import Runner
from tasks.discreet import discreet

INTERRUPTED = "Interrupted"
"""The name of the state in which a run ends that was asked to stop."""

FAILURES_NAMED = 20
"""How many failures a state's message names; the report `failures` has all."""


def _flow_run_name() -> str:
    # Prefect calls this flow run: the run's id, or the name of the suite that is yet to be planned.
    parameters = flow_run.get_parameters()
    return str(parameters.get("run_id") or Path(str(parameters["suite"])).stem)


@flow(name="evaluate", flow_run_name=_flow_run_name, persist_result=False, validate_parameters=True)
@discreet()
def evaluate(
    suite: str | None,
    store: str,
    run_id: str | None = None,
    only: Sequence[str] = (),
    limit: int | None = None,
    devices: str | None = None,
    isolation: Isolation | None = None,
    redo: Redo = "missing",
    runner: Runner = "threads",
    ray_address: str | None = None,
) -> State[Any]:
    """Finish an incomplete run.

    Args:
        suite: the name of a shipped suite, or the path of a suite file; none for a run that is planned already, to be
            carried out as it was recorded.
        store: the store's location.
        run_id: a run that is planned already; left out, the suite is planned.
        only: which cells, as in `domain=GS`; all where empty.
        limit: at most this many utterances per domain; a run that is planned already has been planned with it.
        devices: where cells run, as in `cuda:0,cuda:1`; left out, as the suite's model says.
        isolation: whether cells run in processes of their own; left out, as the suite says.
        redo: which utterances of the cells: the missing ones, those in error too, or all of them anew.
        runner: processes of this machine, or the machines of a Ray cluster, which must see the store.
        ray_address: of that cluster, as in `HOST:6379`; left out, the one that this machine belongs to.

    Raises:
        StoreError: another process works at the run, or has taken it over.
        UsageError: the runner has no use for an option; or the run was planned with another model or by other code.
        EmttaError: the cluster cannot be reached, or does not see the store.

    Returns:
        Completed, or Failed with a message that names each failed cell and the command that finishes just those; a run
        that was asked to stop by Ctrl-C or SIGTERM likewise, in a state of the type FAILED and the name `Interrupted`.
    """
    opened = Store.open(store, create=True)
    run = _recorded(run_id, suite, opened) if run_id else _planned(suite, opened, limit)
    hire = partial(crew_of, run, opened, runner, ray_address, devices, isolation)
    with lease(opened, run.run_id) as held:
        return _carry_out(run, opened, select(run.cells, only), hire, redo, held)


def _carry_out(
    run: Run,
    store: Store,
    wanted: Sequence[Cell],
    hire: Callable[[int], AbstractContextManager[Crew]],
    redo: Redo,
    held: Lease,
) -> State[Any]:
    # Do what is wanted of a run, whose lease is `held`; `hire` gives the crew for so many cells.
    reuse = _reuse(run, store, wanted, redo)
    states = cell_states(store, run.run_id)
    todo = [state for state in states if state.cell in wanted and state.open_to(redo)]
    if not todo:
        settle_statistics(store, run.run_id)
        return Completed(message=f"run {run.run_id}: {len(wanted)} cells complete")
    with hire(len(todo)) as crew:
        dispatch = Dispatch(run, store, crew, redo, held, reuse)
        channel.publish(_started(run, todo, redo, crew.size))
        failures = dispatch.run_all(todo)
        answers = wait_for_records(dispatch.records)  # while the processes that send some of them are there
    held.check(store)
    settle_statistics(store, run.run_id)
    if answers:
        publish(store, run.run_id)
    if not failures:
        return Completed(message=f"run {run.run_id}: {len(wanted)} cells complete")
    others = [state.cell for state in states if not (state.complete or state.cell in wanted)]
    command = resume_command(run.run_id, store.location, list(failures), [*failures, *others])
    return _failed(run.run_id, len(wanted), failures, command)


def _reuse(run: Run, store: Store, wanted: Sequence[Cell], redo: Redo) -> Reuse:
    # Link what other runs have done of the wanted cells, and return what is left to be found once audio is there.
    lacking = [state.cell for state in cell_states(store, run.run_id) if state.missing and state.cell in wanted]
    reuse = Reuse(store, run, lacking if redo != "all" else [])
    reuse.link(reuse.of_cells())
    return reuse


def _started(run: Run, todo: Sequence[CellState], redo: Redo, workers: int) -> Started:
    utterances: dict[str, int] = {}
    for state in todo:
        utterances[state.cell.method] = utterances.get(state.cell.method, 0) + state.to_do(redo)
    domains = {state.cell.domain for state in todo}
    return Started(run.run_id, len(domains), len(todo), utterances, workers)


def _recorded(run_id: str, suite: str | None, store: Store) -> Run:
    """Return a run that is planned already, carried out as its suite says now.

    Its cells are those of the model that it was planned with, and no other.

    Raises:
        UsageError: the model has other weights now, or this release adapts or scores differently.
    """
    run = load_run(store, run_id)
    check_unchanged(store, run)
    if suite is not None:
        run = as_now(run, load_suite(suite))
    digest = digest_of(run.suite.model)
    if digest != run.plan.model_digest:
        raise UsageError(
            f"run {run_id} was planned with a model of the digest {run.plan.model_digest}, "
            f"but {run.suite.model.name!r} now has {digest}; begin another run, or bring the model back"
        )
    return run


def _planned(suite: str | None, store: Store, limit: int | None) -> Run:
    if suite is None:
        raise UsageError("neither a suite nor a run was named; name one of them")
    loaded = load_suite(suite, limit=limit)
    run = plan_run(loaded, digest_of(loaded.model))
    for remark in run.plan.remarks:
        get_run_logger().warning(remark)
    record(run, store)
    return run


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
