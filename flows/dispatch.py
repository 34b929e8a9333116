"""Waiting for Prefect's server to have the records of all task runs, which are lost where the process ends too soon."""

import queue
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import httpx
from prefect import get_client, get_run_logger
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run

from emtta_core.errors import EmttaError
from emtta_core.pipeline.events import CellFinished, DomainPrepared, channel
from emtta_core.pipeline.job import Job, describe, fail_cell
from emtta_core.pipeline.plan import Cell
from emtta_core.pipeline.preparation import Prepared
from emtta_core.pipeline.reuse import Reuse
from emtta_core.pipeline.run import Run
from emtta_core.pipeline.selection import Redo, works_of
from emtta_core.pipeline.state import CellState, cell_states
from emtta_core.store import Store
from emtta_core.store.lease import Lease
from flows.executor import Executor, LostTaskError, error_of
from tasks.cells import evaluate, prepare, retry_options

PAGE = 200
"""The most task runs that the server gives at once."""


def wait_for_records(expected: int, *, timeout: float = 60.0, poll: float = 0.2) -> bool:
    """Wait, inside a flow run, until the server shows all of its task runs in a final state, or no longer answers.

    Args:
        expected: how many task runs there are.
        timeout: seconds after which to go on; the store has the results in any case.
        poll: the most seconds between two looks; the first ones follow each other faster.

    Returns:
        Whether the server still answers.
    """
    deadline, pause = time.monotonic() + timeout, poll / 8
    while True:
        try:
            runs = _task_runs()
        except httpx.TransportError as error:
            get_run_logger().warning("Prefect's server no longer answers (%s); the store has all results", error)
            return False
        # States reach the server as events, some moments after the tasks have ended here.
        final = sum(run.state is not None and run.state.is_final() for run in runs)
        if final >= expected:
            return True
        if time.monotonic() > deadline:
            get_run_logger().warning("Prefect has %d of %d task records; the store has all results", final, expected)
            return True
        time.sleep(pause)
        pause = min(2 * pause, poll)


def _task_runs() -> list[TaskRun]:
    runs: list[TaskRun] = []
    this_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.get_id()]))
    with get_client(sync_client=True) as client:
        while True:
            page = client.read_task_runs(flow_run_filter=this_run, limit=PAGE, offset=len(runs))
            runs += page
            if len(page) < PAGE:
                return runs


NOT_BEGUN = "not begun: the run was asked to stop"
"""Why a cell is not complete that nothing else is known of."""


class Dispatch:
    """The cells of one run on their way through preparation and evaluation."""

    def __init__(self, run: Run, store: Store, executor: Executor, redo: Redo, held: Lease, reuse: Reuse) -> None:
        """Prepare to do cells of a run, whose lease is `held`."""
        self._run, self._store, self._executor, self._redo = run, store, executor, redo
        self._lease, self._reuse = held, reuse
        self._retries = retry_options(run.suite.runtime)
        self._ended: queue.SimpleQueue[PrefectFuture[Any] | signal.Signals] = queue.SimpleQueue()
        self._preparing: dict[PrefectFuture[Any], str] = {}
        self._evaluating: dict[PrefectFuture[Any], tuple[Cell, ...]] = {}
        self._waiting: dict[tuple[Cell, ...], set[str]] = {}  # for these domains
        self._failed: set[str] = set()
        self._complete: set[Cell] = set()
        self._failures: dict[Cell, str] = {}
        self._lost: Counter[tuple[Cell, ...]] = Counter()
        self.records = 0  # task runs handed to Prefect so far, whose end it will have on record

    def run_all(self, states: Sequence[CellState]) -> dict[Cell, str]:
        """Do these cells, and return those that failed with the reason.

        Of a stream through several domains, all cells are among them. Domains are begun in the order of their first
        cell. Ctrl-C or SIGTERM lets the cells at work finish their shard, begins no other, and returns; a second one
        ends at once.
        """
        cells = [state.cell for state in states]
        self._failed = {state.cell.domain for state in states if state.has_failed}
        domains: dict[str, list[Cell]] = {}
        for cell in cells:
            domains.setdefault(cell.domain, []).append(cell)
        self._waiting = {work: {cell.domain for cell in work} for work in works_of(self._run.suite, cells)}
        waiting, ready = deque(domains), deque[tuple[Cell, ...]]()
        runtime = self._run.suite.runtime
        # Tasks end and signals arrive in other threads or between any two lines: both come through one queue, so that
        # this thread alone changes what is begun.
        with _interrupts(self._ended.put):
            while waiting or ready or self._preparing or self._evaluating:
                # Preparing takes cores and evaluating devices: each is kept as busy as it may be, whatever the other
                # does.
                while waiting and len(self._preparing) < runtime.prepare_workers:
                    self._prepare(domains[waiting.popleft()][0])
                while ready and len(self._evaluating) < self._executor.size:
                    self._evaluate(ready.popleft())
                future = self._ended.get()
                if isinstance(future, signal.Signals):
                    channel.ask_to_stop(future)
                    waiting.clear()
                    ready.clear()
                elif future in self._preparing:
                    ready.extend(self._prepared(future, domains[self._preparing.pop(future)]))
                else:
                    ready.extend(self._evaluated(future, self._evaluating.pop(future)))
        return {cell: self._failures.get(cell, NOT_BEGUN) for cell in cells if cell not in self._complete}

    def _prepare(self, cell: Cell) -> None:
        suite = self._run.suite
        task = prepare.with_options(**self._retries)
        # Where a cell failed before, its audio may have been at fault: utterances in error are prepared once more.
        again = cell.domain in self._failed
        future = task.submit(suite.domain(cell.domain), cell.corpus_id, self._store.location, suite.limit, again)
        self._preparing[future] = cell.domain
        self._follow(future)

    def _evaluate(self, work: tuple[Cell, ...]) -> None:
        task = evaluate.with_options(**self._retries)
        first, *further = work
        job = Job.of(self._run, first, self._store.location, self._redo, self._lease.number, further)
        future = self._executor.submit(task, job)
        self._evaluating[future] = work
        self._follow(future)

    def _follow(self, future: PrefectFuture[Any]) -> None:
        self.records += 1
        future.add_done_callback(self._ended.put)

    def _prepared(self, future: PrefectFuture[Any], cells: list[Cell]) -> list[tuple[Cell, ...]]:
        # What can begin now that the preparation of a domain with these cells has ended: nothing of it where it failed.
        domain, error = cells[0].domain, error_of(future)
        if error is None:
            done: Prepared = future.result()
            channel.publish(DomainPrepared(domain, done.corpus.utterances, done.reused, done.seconds))
            return [] if channel.stopping() else self._begun_by(domain, self._not_reused(cells))
        channel.publish(DomainPrepared(domain, 0, reused=False, seconds=0.0, error=describe(error)))
        lost = [cell for work in self._waiting if not set(work).isdisjoint(cells) for cell in work]
        self._waiting = {work: domains for work, domains in self._waiting.items() if set(work).isdisjoint(cells)}
        for cell in lost:
            which = "the domain" if cell.domain == domain else f"the domain {domain} of its stream"
            reason = EmttaError(f"{which} could not be prepared: {describe(error)}")
            fail_cell(cell, self._store, self._run.run_id, reason, channel.publish)
            self._failures[cell] = describe(reason)
        return []

    def _begun_by(self, domain: str, cells: Collection[Cell]) -> list[tuple[Cell, ...]]:
        # What can begin of cells of this domain, which is prepared: a stream when it was the last of its domains.
        ready = []
        for work, lacking in self._waiting.items():
            lacking.discard(domain)
            if not lacking and not set(work).isdisjoint(cells):
                ready.append(work)
        self._waiting = {work: lacking for work, lacking in self._waiting.items() if lacking}
        return ready

    def _not_reused(self, cells: list[Cell]) -> list[Cell]:
        # Link what other runs have done of a domain's utterances, and return the cells that still have some to do.
        found = self._reuse.of_utterances(cells)
        if not found:
            return cells
        self._reuse.link(found)
        states = {state.cell: state for state in cell_states(self._store, self._run.run_id)}
        for cell in [cell for cell in found if not states[cell].open_to(self._redo)]:
            self._complete.add(cell)
            channel.publish(CellFinished(cell.name, cell.utterances, 0, states[cell].wer, 0.0))
        return [cell for cell in cells if cell not in self._complete]

    def _evaluated(self, future: PrefectFuture[Any], work: tuple[Cell, ...]) -> list[tuple[Cell, ...]]:
        # Note how the evaluation of cells has ended, and return them where they are to go on: their task run was lost.
        error = self._executor.error_of(future)
        if error is None:
            self._complete.update(work)
            return []
        done: set[Cell] = set()
        if len(work) > 1:  # of a stream, the cells before the one at fault
            done = {state.cell for state in cell_states(self._store, self._run.run_id) if state.complete}
        self._complete |= done.intersection(work)
        self._failures |= {cell: describe(error) for cell in work if cell not in done}
        if isinstance(error, LostTaskError):
            self.records -= 1  # Prefect's record of it stays open
            self._lost[work] += 1
            if self._lost[work] <= self._run.suite.runtime.retries and not channel.stopping():
                return [work]
        return []


@contextmanager
def _interrupts(notify: Callable[[signal.Signals], None]) -> Iterator[None]:
    # Call `notify` at the first Ctrl-C or SIGTERM; the second raises an exception as usual. An exception could strike
    # anywhere, Prefect's own code included, where it is lost or leaves something half done. Signals come to the main
    # thread alone; in another nothing is changed.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def first(number: int, _frame: FrameType | None) -> None:
        # From now on a second signal does what it usually does, so that nobody has to wait for a shard.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, usual[signal.SIGTERM])
        notify(signal.Signals(number))

    for number in usual:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
