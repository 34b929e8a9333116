"""Evaluate a cell: adapt to each utterance of a domain with one method, score it and store it, shard by shard.

Utterances that an earlier attempt finished are skipped. The caller may be a task of the flow, a separate process, or a
notebook.
"""

import itertools
import logging
import resource
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from emtta_core.adaptation import Adapter
from emtta_core.errors import EmttaError, StoreError
from emtta_core.model import Model
from emtta_core.pipeline.batches import adapt, check_languages
from emtta_core.pipeline.events import AttemptBegun, CellFinished, Listener, UtterancesDone, ignore, never
from emtta_core.pipeline.job import Attempt, CellReport, InterruptedRunError, Job, fail_cell, record_failure
from emtta_core.pipeline.models import model_for
from emtta_core.pipeline.plan import Cell
from emtta_core.pipeline.rows import Shard, Tally, make_shard, tally_done, tally_shard
from emtta_core.plugins import check_sources
from emtta_core.store import PreparedRow, Store
from emtta_core.store.lease import LeaseLostError
from emtta_core.suite import Runtime

log = logging.getLogger("emtta.pipeline")


class TooManyErrorsError(EmttaError):
    """All utterances of a cell are in error, or more than the suite allows."""


def evaluate_job(
    job: Job, store: Store, *, progress: Listener = ignore, stop: Callable[[], bool] = never
) -> CellReport:
    """Load the model of a job and evaluate its cell, or the cells of its stream; see `evaluate_cell`.

    Raises:
        ModelError: this machine lacks the model, or has another of that name; the attempt is recorded as failed.
        Exception: as for `evaluate_cell`, or any other error while loading the model; it is recorded too.
    """
    try:
        model = model_for(job)
    except BaseException as error:
        fail_cell(job.cell, store, job.run_id, error, progress, device=job.device or job.model.device)
        raise
    if job.stream is not None:
        from emtta_core.pipeline.stream_job import evaluate_stream  # imports functions defined below

        return evaluate_stream(job, store, model, progress=progress, stop=stop)
    return evaluate_cell(job, store, model, progress=progress, stop=stop)


def evaluate_cell(
    job: Job,
    store: Store,
    model: Model,
    *,
    progress: Listener = ignore,
    stop: Callable[[], bool] = never,
) -> CellReport:
    """Adapt to each unfinished utterance of a cell, and record the attempt.

    Args:
        job: the cell, and how to evaluate it; its domain must be prepared.
        store: the job's store.
        model: the job's model, with the digest with which the cell was planned.
        progress: receives an event for each shard, and at the end.
        stop: called after each shard; true ends the attempt, which can be resumed.

    Raises:
        InterruptedRunError: `stop` returned true.
        LeaseLostError: another process has taken over the run; nothing more is written.
        StoreError: the store cannot be read or written.
        Exception: any other error that ends the attempt, which is first recorded as failed.
    """
    cell, runtime = job.cell, job.runtime
    key = job.key
    job.check_lease(store)
    attempt = Attempt(cell, key, store.begin_attempt(key), job.device or str(model.device))
    progress(AttemptBegun(cell.name, attempt.number))
    forget_peak_memory(model.device)
    try:
        check_sources(job.plugins)
        adapter = Adapter(
            model, job.method.method(), job.adaptation, batch_size=runtime.batch_size, trace=runtime.trace
        )
        attempt.adapter = adapter
        _evaluate(attempt, adapter, store, job, progress, stop)
    except LeaseLostError:
        raise
    except BaseException as error:
        record_failure(store, attempt, attempt.row(error, peak_memory=peak_memory(model.device)), progress)
        raise
    row = attempt.row(peak_memory=peak_memory(model.device))
    store.write_cell(key, row)
    total = Tally()
    total.add(attempt.reused)
    total.add(attempt.done)
    progress(CellFinished(cell.name, total.utterances, total.errors, total.wer, row.seconds))
    return CellReport(cell, attempt.number, row.done, row.reused, row.errors, total.wer, row.seconds)


def _evaluate(
    attempt: Attempt, adapter: Adapter, store: Store, job: Job, progress: Listener, stop: Callable[[], bool]
) -> None:
    cell, runtime = job.cell, job.runtime
    # 1) the prepared audio, in languages that the model knows
    corpus = store.prepared(cell.corpus_id)
    if corpus is None:
        raise StoreError(f"the prepared audio of {cell.domain} is not in the store; run the suite again to prepare it")
    if job.model.language == "corpus":
        check_languages(adapter.model, store.read_prepared(corpus))
    # 2) what earlier attempts finished; if they left too many utterances in error, those are retried
    done = {} if job.redo == "all" else store.done(attempt.key, cell.cell_id)
    errors = sum(utterance.error is not None for utterance in done.values())
    if job.redo == "errors" or too_many(runtime.fail_on_error, errors, cell):
        done = {name: utterance for name, utterance in done.items() if utterance.hypothesis.error is None}
    if done:
        attempt.reused = tally_done(list(done.values()))
        progress(shard_event(cell, attempt.reused, resumed=True))
    # 3) adapt and score, a shard at a time
    shards = itertools.count()

    def store_shard(shard: Shard) -> None:
        job.check_lease(store)
        write_shard(store, attempt, next(shards), shard)
        tally = tally_shard(shard)
        attempt.done.add(tally)
        progress(shard_event(cell, tally))
        if stop() and attempt.done.utterances + attempt.reused.utterances < cell.utterances:
            raise InterruptedRunError("the run was asked to stop; finished utterances are kept")

    waiting: Iterable[PreparedRow] = (row for row in store.read_prepared(corpus) if row.utterance_id not in done)
    for retries_left in range(runtime.retry_on_error, -1, -1):  # utterances in error are retried after all others
        retried: list[PreparedRow] = []
        for outcomes in adapt(adapter, waiting, job.model):
            final = [outcome for outcome in outcomes if not (retries_left and outcome.is_error)]
            retried += [outcome.row for outcome in outcomes if retries_left and outcome.is_error]
            if final:
                store_shard(make_shard(cell, attempt.number, final, job.scorer))
        waiting = retried
    # 4) the cell fails if too many utterances are in error
    check_errors(runtime, attempt)


def write_shard(store: Store, attempt: Attempt, number: int, shard: Shard) -> None:
    """Write shard `number` (from 0) of an attempt."""
    if shard.windows:
        store.write_windows(attempt.key, attempt.number, number, shard.windows)
    store.write_steps(attempt.key, attempt.number, number, shard.steps)
    store.write_hypotheses(attempt.key, attempt.number, number, shard.hypotheses)
    store.write_scores(attempt.key, attempt.number, number, shard.scores)


def check_errors(runtime: Runtime, attempt: Attempt) -> None:
    """Raise `TooManyErrorsError` if too many utterances of an attempt's cell are in error."""
    cell = attempt.cell
    errors = attempt.done.errors + attempt.reused.errors
    if too_many(runtime.fail_on_error, errors, cell):
        extent = (
            f"all {errors} utterances are in error"
            if errors == cell.utterances
            else f"{errors} of {cell.utterances} utterances are in error, and fail_on_error is {runtime.fail_on_error}"
        )
        raise TooManyErrorsError(
            f"{extent}; the report `failures` gives the reasons; they are retried when the run is resumed"
        )


def too_many(limit: int | float | None, errors: int, cell: Cell) -> bool:
    """Whether all of a cell's utterances are in error, or more than the limit: a count, or a share if below 1."""
    if limit is None:
        return errors == cell.utterances
    return errors == cell.utterances or errors > (limit * cell.utterances if isinstance(limit, float) else limit)


def shard_event(cell: Cell, tally: Tally, *, resumed: bool = False) -> UtterancesDone:
    """The event for a shard with these sums."""
    return UtterancesDone(
        cell.method,
        utterances=tally.utterances,
        errors=tally.errors,
        word_errors=tally.word_errors,
        words=tally.words,
        seconds=tally.seconds,
        resumed=resumed,
    )


def forget_peak_memory(device: torch.device) -> None:
    """Reset a CUDA device's peak memory; that of the process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """The peak memory so far, in bytes: of a CUDA device, otherwise of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")  # on Linux, getrusage reports a peak inherited from the parent process
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, kibibytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
