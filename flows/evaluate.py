"""The flow that evaluates a run: domains are prepared in parallel, and a domain's cells start once it is ready.

The remaining work is read from the store, never from Prefect's records: running a flow again finishes what is missing.
Each cell is one task, so a failure affects only that cell; a domain that cannot be prepared affects only its own cells.
"""

import queue
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import FrameType
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed

from emtta_core.errors import EmttaError, UsageError
from emtta_core.pipeline.events import CellFinished, DomainPrepared, Started, channel
from emtta_core.pipeline.job import Job, describe, fail_cell
from emtta_core.pipeline.models import digest_of
from emtta_core.pipeline.plan import Cell
from emtta_core.pipeline.preparation import Prepared
from emtta_core.pipeline.rescoring import finalize_figures
from emtta_core.pipeline.reuse import Reuse
from emtta_core.pipeline.run import Run, check_unchanged, load_run, with_current_settings
from emtta_core.pipeline.selection import Redo, expand_to_streams, resume_command, work_units_of
from emtta_core.pipeline.state import CellState, cell_states
from emtta_core.store import Store
from emtta_core.store.lease import Lease, lease
from emtta_core.suite import Isolation, ModelChoice, Runtime
from flows.artifacts import publish, wait_for_records
from flows.executor import Executor, LostTaskError, error_of, start_executor
from flows.runner import Runner
from tasks.cells import evaluate as evaluate_cell
from tasks.cells import hide_passwords, prepare, retry_options

INTERRUPTED = "Interrupted"
"""The name of the final state of a run that was asked to stop."""

MAX_LISTED_FAILURES = 20
"""The most failures that a state's message names; the report `failures` has all."""


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
    """Execute a recorded run, finishing what is missing.

    Args:
        run_id: the run.
        store: the store's location.
        cells: the domain, method and seed (None for no seed) of each cell; by default all cells.
        redo: which utterances of the cells: the missing ones, also those in error, or all of them again.
        runtime: how to execute cells; by default as recorded.
        model: the model as its suite names it now, with the same weights; by default as recorded.
        devices: where cells run, such as `cuda:0,cuda:1`; by default as the model says.
        isolation: whether cells run in separate processes; by default as the runtime says.
        runner: processes on this machine, or the machines of a Ray cluster, which must all reach the store.
        ray_address: the address of that cluster, such as `HOST:6379`; by default the one this machine belongs to.

    Raises:
        StoreError: another process is working on the run, or has taken it over.
        UsageError: there is no such run; it was planned with another model or by different code; or an option does not
            apply to the runner.
        EmttaError: the cluster cannot be reached, or cannot reach the store.

    Returns:
        Completed; or Failed, with a message that names failed cells and the command that finishes just those. A run
        stopped by Ctrl-C or SIGTERM ends likewise, in a state of the type FAILED named `Interrupted`.
    """
    opened = Store.open(store)
    run = load_run(opened, run_id)
    run = with_current_settings(run, runtime or run.suite.runtime, model or run.suite.model)
    check_unchanged(opened, run)
    _check_model(run)
    chosen = None if cells is None else set(cells)
    selected = [cell for cell in run.cells if chosen is None or (cell.domain, cell.method, cell.seed) in chosen]
    start = partial(start_executor, run, opened, runner, ray_address, devices, isolation)
    with lease(opened, run_id) as held:
        return _execute(run, opened, selected, start, redo, held)


def _execute(
    run: Run,
    store: Store,
    selected: Collection[Cell],
    start: Callable[[int], AbstractContextManager[Executor]],
    redo: Redo,
    held: Lease,
) -> State[Any]:
    # 1) link results of other runs for these cells
    selected = expand_to_streams(run.suite, run.cells, selected)
    states = cell_states(store, run.run_id)
    incomplete = [state.cell for state in states if state.missing and state.cell in selected]
    reuse = Reuse(store, run, incomplete if redo != "all" else [])
    reusable = reuse.of_cells()
    if reusable:
        reuse.link(reusable)
        states = cell_states(store, run.run_id)
    open_cells = [state.cell for state in states if state.cell in selected and state.open_to(redo)]
    todo_cells = expand_to_streams(run.suite, run.cells, open_cells)
    todo = [state for state in states if state.cell in todo_cells]
    if not todo:
        finalize_figures(store, run.run_id, held)
        return Completed(message=f"run {run.run_id}: {len(selected)} cells complete")
    # 2) prepare the domains and evaluate the cells, on an executor for that many cells
    with start(len(todo)) as executor:
        dispatch = Dispatch(run, store, executor, redo, held, reuse)
        channel.publish(_started(run, todo, redo, executor.size))
        failures = dispatch.run_all(todo)
        server_answers = wait_for_records(dispatch.records)  # while the processes that send some of them still exist
    # 3) score with the suite's other scorers, compute the statistics, and return the final state
    held.check(store)
    publish_page = (lambda catalogue: publish(store, run.run_id, catalogue=catalogue)) if server_answers else None
    finalize_figures(store, run.run_id, held, publish_page)
    if not failures:
        return Completed(message=f"run {run.run_id}: {len(selected)} cells complete")
    others = [state.cell for state in states if not (state.complete or state.cell in selected)]
    command = resume_command(run.run_id, store.location, list(failures), [*failures, *others])
    return _failed(run.run_id, len(selected), failures, command)


def _started(run: Run, todo: Sequence[CellState], redo: Redo, workers: int) -> Started:
    utterances: dict[str, int] = {}
    for state in todo:
        utterances[state.cell.method] = utterances.get(state.cell.method, 0) + state.to_do(redo)
    domains = {state.cell.domain for state in todo}
    return Started(run.run_id, len(domains), len(todo), utterances, workers)


def _check_model(run: Run) -> None:
    # Raises UsageError if the model's weights are not those with which the run was planned.
    digest = digest_of(run.suite.model)
    if digest != run.plan.model_digest:
        raise UsageError(
            f"run {run.run_id} was planned with a model of the digest {run.plan.model_digest}, "
            f"but {run.suite.model.name!r} now has {digest}; start a new run, or restore the model"
        )


def _failed(run_id: str, selected: int, failures: dict[Cell, str], command: str) -> State[Any]:
    named = [f"{cell.name}: {error}" for cell, error in list(failures.items())[:MAX_LISTED_FAILURES]]
    if len(failures) > MAX_LISTED_FAILURES:
        named.append(f"… and {len(failures) - MAX_LISTED_FAILURES} more")
    by = channel.stopped_by
    how = "failed" if by is None else f"are not complete, as it was asked to stop by {by.name}"
    head, tail = f"run {run_id}: {len(failures)} of {selected} cells {how}", f"finish them with: {command}"
    message = "\n".join([head, *named, tail])
    get_run_logger().error(message)
    return Failed(message=message) if by is None else Failed(name=INTERRUPTED, message=message)


NOT_STARTED = "not started: the run was asked to stop"
"""Why a cell is not complete, if nothing else is known."""


class Dispatch:
    """Takes the cells of one run through preparation and evaluation."""

    def __init__(self, run: Run, store: Store, executor: Executor, redo: Redo, held: Lease, reuse: Reuse) -> None:
        """Set up the dispatch for a run whose lease is `held`."""
        self._run, self._store, self._executor, self._redo = run, store, executor, redo
        self._lease, self._reuse = held, reuse
        self._retries = retry_options(run.suite.runtime)
        self._events: queue.SimpleQueue[PrefectFuture[Any] | signal.Signals] = queue.SimpleQueue()
        self._preparing: dict[PrefectFuture[Any], str] = {}
        self._evaluating: dict[PrefectFuture[Any], tuple[Cell, ...]] = {}
        self._waiting: dict[tuple[Cell, ...], set[str]] = {}  # work waiting for these domains
        self._same: dict[str, list[Cell]] = {}  # by the id of a running cell, the cells of the same id that wait for it
        self._failed: set[str] = set()
        self._complete: set[Cell] = set()
        self._failures: dict[Cell, str] = {}
        self._lost: Counter[tuple[Cell, ...]] = Counter()
        self.records = 0  # task runs passed to Prefect so far, whose end it will record

    def run_all(self, states: Sequence[CellState]) -> dict[Cell, str]:
        """Execute these cells, and return those that failed, each with the reason.

        They must include all cells of a stream through several domains. Domains are begun in the order of their first
        cell. Ctrl-C or SIGTERM lets running cells finish their shard, begins no others, and returns; a second signal
        stops immediately.
        """
        cells = [state.cell for state in states]
        self._failed = {state.cell.domain for state in states if state.has_failed}
        domains: dict[str, list[Cell]] = {}
        for cell in cells:
            domains.setdefault(cell.domain, []).append(cell)
        self._waiting = {work: {cell.domain for cell in work} for work in work_units_of(self._run.suite, cells)}
        waiting, ready = deque(domains), deque[tuple[Cell, ...]]()
        runtime = self._run.suite.runtime
        # Tasks end and signals arrive in other threads or between any two lines: both go through one queue, so that
        # only this thread changes what has begun.
        with _interrupts(self._events.put):
            while waiting or ready or self._preparing or self._evaluating:
                # Preparation uses cores, and evaluation devices: each is kept as busy as possible, independently.
                while waiting and len(self._preparing) < runtime.prepare_workers:
                    self._prepare(domains[waiting.popleft()][0])
                while ready and len(self._evaluating) < self._executor.size:
                    self._evaluate(ready.popleft())
                future = self._events.get()
                if isinstance(future, signal.Signals):
                    channel.ask_to_stop(future)
                    waiting.clear()
                    ready.clear()
                elif future in self._preparing:
                    ready.extend(self._prepared(future, domains[self._preparing.pop(future)]))
                else:
                    ready.extend(self._evaluated(future, self._evaluating.pop(future)))
        return {cell: self._failures.get(cell, NOT_STARTED) for cell in cells if cell not in self._complete}

    def _prepare(self, cell: Cell) -> None:
        suite = self._run.suite
        task = prepare.with_options(**self._retries)
        # If a cell failed before, its audio may have been the cause: utterances in error are prepared again.
        retry_errors = cell.domain in self._failed
        future = task.submit(suite.domain(cell.domain), cell.corpus_id, self._store.location, suite.limit, retry_errors)
        self._preparing[future] = cell.domain
        self._follow(future)

    def _evaluate(self, work: tuple[Cell, ...]) -> None:
        task = evaluate_cell.with_options(**self._retries)
        first, *further = work
        job = Job.of(self._run, first, self._store.location, self._redo, self._lease.number, further)
        future = self._executor.submit(task, job)
        self._evaluating[future] = work
        self._follow(future)

    def _follow(self, future: PrefectFuture[Any]) -> None:
        self.records += 1
        future.add_done_callback(self._events.put)

    def _prepared(self, future: PrefectFuture[Any], cells: list[Cell]) -> list[tuple[Cell, ...]]:
        # The work that can begin now that the preparation of a domain with these cells has ended; none if it failed.
        domain, error = cells[0].domain, error_of(future)
        if error is None:
            done: Prepared = future.result()
            channel.publish(DomainPrepared(domain, done.corpus.utterances, done.reused, done.seconds))
            return [] if channel.stopping() else self._distinct(self._ready_after(domain, self._not_reused(cells)))
        channel.publish(DomainPrepared(domain, 0, reused=False, seconds=0.0, error=describe(error)))
        blocked = [cell for work in self._waiting if not set(work).isdisjoint(cells) for cell in work]
        self._waiting = {work: domains for work, domains in self._waiting.items() if set(work).isdisjoint(cells)}
        for cell in blocked:
            which = "the domain" if cell.domain == domain else f"the domain {domain} of its stream"
            reason = EmttaError(f"{which} could not be prepared: {describe(error)}")
            fail_cell(cell, self._store, self._run.run_id, reason, channel.publish)
            self._failures[cell] = describe(reason)
        return []

    def _ready_after(self, domain: str, cells: Collection[Cell]) -> list[tuple[Cell, ...]]:
        # The work of this prepared domain that can begin; a stream, once the last of its domains is prepared.
        ready = []
        for work, missing in self._waiting.items():
            missing.discard(domain)
            if not missing and not set(work).isdisjoint(cells):
                ready.append(work)
        self._waiting = {work: missing for work, missing in self._waiting.items() if missing}
        return ready

    def _distinct(self, units: Sequence[tuple[Cell, ...]]) -> list[tuple[Cell, ...]]:
        # Among cells that are the same work (for example if a sweep includes a method's own value), one begins, and the
        # others reuse its results.
        distinct = []
        for work in units:
            cell = work[0]
            if len(work) == 1 and cell.cell_id in self._same and self._reuse.shares(cell):
                self._same[cell.cell_id].append(cell)
            else:
                self._same.setdefault(cell.cell_id, [])
                distinct.append(work)
        return distinct

    def _not_reused(self, cells: list[Cell]) -> list[Cell]:
        # Link results for the utterances of a corpus from other runs, or from other cells of this one, and return the
        # cells that still have utterances to do.
        reused = self._reuse.of_utterances(cells)
        if not reused:
            return cells
        self._reuse.link(reused)
        states = {state.cell: state for state in cell_states(self._store, self._run.run_id)}
        for cell in [cell for cell in reused if not states[cell].open_to(self._redo)]:
            self._complete.add(cell)
            channel.publish(CellFinished(cell.name, cell.utterances, 0, states[cell].wer, 0.0))
        return [cell for cell in cells if cell not in self._complete]

    def _evaluated(self, future: PrefectFuture[Any], work: tuple[Cell, ...]) -> list[tuple[Cell, ...]]:
        # Record how the evaluation of cells ended; return them if they must continue as their task run was lost.
        error = self._executor.error_of(future)
        if error is None:
            self._complete.update(work)
            return self._released(work)
        done: set[Cell] = set()
        if len(work) > 1:  # in a stream, the cells before the failed one
            done = {state.cell for state in cell_states(self._store, self._run.run_id) if state.complete}
        self._complete |= done.intersection(work)
        self._failures |= {cell: describe(error) for cell in work if cell not in done}
        if isinstance(error, LostTaskError):
            self.records -= 1  # Prefect's record of it remains open
            self._lost[work] += 1
            if self._lost[work] <= self._run.suite.runtime.retries and not channel.stopping():
                return [work]
        return self._released(work)

    def _released(self, work: tuple[Cell, ...]) -> list[tuple[Cell, ...]]:
        # The cells that waited for this work and can begin, except those whose utterances it has all done.
        same = self._same.pop(work[0].cell_id, [])
        ready = self._not_reused(same) if same else []
        return [] if channel.stopping() else self._distinct([(cell,) for cell in ready])


@contextmanager
def _interrupts(notify: Callable[[signal.Signals], None]) -> Iterator[None]:
    # Call `notify` on the first Ctrl-C or SIGTERM; the second raises an exception as usual. An exception could occur
    # anywhere, even inside Prefect, where it may be lost or leave something half done. Only the main thread receives
    # signals; in any other, nothing is changed.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def first(number: int, _frame: FrameType | None) -> None:
        # From now on, a second signal has its usual effect, so that the user need not wait for a shard.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, previous[signal.SIGTERM])
        notify(signal.Signals(number))

    for number in previous:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
