"""Evaluate a cell: adapt to each utterance of a domain with one method, score it, store it, shard by shard.

Nothing is done twice: utterances that an earlier attempt has finished are left alone. Nothing here knows who calls
it: a task of the flow, a process of its own, or a notebook.
"""

import logging
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from emtta_core.adaptation import Adapter, Method
from emtta_core.adaptation.batch_size import BatchSizeChoice
from emtta_core.adaptation.episode import Trace
from emtta_core.errors import EmttaError, StoreError
from emtta_core.model import SpeechModel
from emtta_core.pipeline.batches import adapt
from emtta_core.pipeline.cell import Cell
from emtta_core.pipeline.progress import CellFinished, Listener, UtterancesDone, ignore, never
from emtta_core.pipeline.rows import Tally, make_shard, tally_done, tally_shard
from emtta_core.store import COMPLETE, FAILED, CellKey, CellRow, Store
from emtta_core.suite_method import Adaptation

log = logging.getLogger("emtta.pipeline")


class InterruptedRunError(EmttaError):
    """The run was asked to stop; what is finished is in the store."""


@dataclass(frozen=True, slots=True)
class CellReport:
    """What an attempt at a cell came to.

    Attributes:
        cell: which.
        attempt: its number.
        done: utterances that this attempt did.
        reused: utterances that an earlier one had done.
        errors: of both, those in error.
        wer: word error rate of both in percent; none where nothing was scored.
        seconds: wall seconds.
    """

    cell: Cell
    attempt: int
    done: int
    reused: int
    errors: int
    wer: float | None
    seconds: float


@dataclass(slots=True)
class _Attempt:
    """An attempt at a cell while it goes on."""

    cell: Cell
    key: CellKey
    number: int
    device: str
    adapter: Adapter | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=time.perf_counter)
    reused: Tally = field(default_factory=Tally)
    done: Tally = field(default_factory=Tally)

    def row(self, error: BaseException | None = None) -> CellRow:
        """Return the record of the attempt as it ends now."""
        return CellRow(
            cell_id=self.cell.cell_id,
            attempt=self.number,
            group=self.cell.group,
            state=COMPLETE if error is None else FAILED,
            planned=self.cell.utterances,
            done=self.done.utterances,
            reused=self.reused.utterances,
            errors=self.done.errors + self.reused.errors,
            error=None if error is None else describe(error),
            started_at=self.started_at,
            finished_at=datetime.now(UTC),
            seconds=time.perf_counter() - self.started,
            audio_seconds=self.done.audio_seconds,
            device=self.device,
            peak_memory_bytes=_peak_memory(self.device),
            host=platform.node(),
            batch_size=self.adapter.batch_size if self.adapter is not None else 0,
        )


def evaluate_cell(
    cell: Cell,
    store: Store,
    run_id: str,
    model: SpeechModel,
    method: Method,
    adaptation: Adaptation,
    *,
    batch_size: BatchSizeChoice = "auto",
    trace: Trace = "hypotheses",
    progress: Listener = ignore,
    stop: Callable[[], bool] = never,
) -> CellReport:
    """Adapt to each utterance of a cell that is not done yet, and record the attempt.

    Args:
        cell: which; its domain must be prepared.
        store: where its audio lies and its rows go.
        run_id: the run that it belongs to.
        model: of the digest with which the cell was planned.
        method: the cell's.
        adaptation: its options.
        batch_size: utterances side by side.
        trace: what is kept of each step.
        progress: is told of each shard, and of the end.
        stop: is asked after each shard; true ends the attempt resumable.

    Raises:
        InterruptedRunError: `stop` said so.
        StoreError: the store cannot be read or written.
        Exception: whatever else ends the attempt; it is recorded as failed first.
    """
    key = CellKey(run_id, cell.domain, cell.method)
    attempt = _Attempt(cell, key, store.begin_attempt(key), str(model.device))
    _forget_peak_memory(attempt.device)
    try:
        options = {name: getattr(adaptation, name) for name in type(adaptation).model_fields}
        attempt.adapter = Adapter(model, method, batch_size=batch_size, trace=trace, **options)
        _evaluate(attempt, attempt.adapter, store, progress, stop)
    except BaseException as error:
        _record_failure(store, key, attempt.row(error), progress)
        raise
    row = attempt.row()
    store.write_cell(key, row)
    total = Tally()
    total.add(attempt.reused)
    total.add(attempt.done)
    progress(CellFinished(cell.domain, cell.method, total.utterances, total.errors, total.wer, row.seconds))
    return CellReport(cell, attempt.number, row.done, row.reused, row.errors, total.wer, row.seconds)


def fail_unprepared(
    cell: Cell, store: Store, run_id: str, error: BaseException, progress: Listener = ignore
) -> EmttaError:
    """Record the attempt at a cell whose domain could not be prepared if the store still takes it, and tell of it.

    Returns:
        Why the cell has failed.
    """
    reason = EmttaError(f"the domain could not be prepared: {describe(error)}")
    key = CellKey(run_id, cell.domain, cell.method)
    try:
        number = store.begin_attempt(key)
    except StoreError as refusal:
        _log_unrecorded(key, refusal)
        progress(CellFinished(cell.domain, cell.method, 0, 0, None, 0.0, describe(reason)))
    else:
        _record_failure(store, key, _Attempt(cell, key, number, "none").row(reason), progress)
    return reason


def _record_failure(store: Store, key: CellKey, row: CellRow, progress: Listener) -> None:
    """Write the record of a failed attempt if the store still takes it, and tell of it."""
    try:
        store.write_cell(key, row)
    except StoreError as error:
        _log_unrecorded(key, error)
    progress(CellFinished(key.domain, key.method, row.done + row.reused, row.errors, None, row.seconds, row.error))


def _log_unrecorded(key: CellKey, error: StoreError) -> None:
    """Say that a failed attempt is not in the store."""
    log.error("the failed attempt at %s/%s could not be recorded: %s", key.domain, key.method, error)


def describe(error: BaseException) -> str:
    """Return an exception in one line: the message of ours, the kind and the message of any other."""
    text = " ".join(str(error).split())
    return text if isinstance(error, EmttaError) else f"{type(error).__name__}: {text}".removesuffix(": ")


def _evaluate(attempt: _Attempt, adapter: Adapter, store: Store, progress: Listener, stop: Callable[[], bool]) -> None:
    """Do what the attempt has to do, shard by shard."""
    cell = attempt.cell
    corpus = store.prepared(cell.corpus_id)
    if corpus is None:
        raise StoreError(f"the prepared audio of {cell.domain} is not in the store; run the suite again to prepare it")
    done = store.done(attempt.key, cell.cell_id)
    if done:
        attempt.reused = tally_done(list(done.values()))
        progress(_shard_event(cell, attempt.reused, resumed=True))
    missing = (row for row in store.read_prepared(corpus) if row.utterance_id not in done)
    for number, (rows, results) in enumerate(adapt(adapter, missing)):
        shard = make_shard(cell.cell_id, attempt.number, rows, results)
        store.write_steps(attempt.key, attempt.number, number, shard.steps)
        store.write_hypotheses(attempt.key, attempt.number, number, shard.hypotheses)
        store.write_scores(attempt.key, attempt.number, number, shard.scores)
        tally = tally_shard(shard)
        attempt.done.add(tally)
        progress(_shard_event(cell, tally))
        if stop() and attempt.done.utterances + attempt.reused.utterances < cell.utterances:
            raise InterruptedRunError("the run was asked to stop; what is finished is kept")


def _shard_event(cell: Cell, tally: Tally, *, resumed: bool = False) -> UtterancesDone:
    """Return the event that tells of a shard."""
    return UtterancesDone(
        cell.domain,
        cell.method,
        utterances=tally.utterances,
        errors=tally.errors,
        word_errors=tally.word_errors,
        words=tally.words,
        seconds=tally.seconds,
        resumed=resumed,
    )


def _forget_peak_memory(device: str) -> None:
    """Begin to measure a CUDA device's memory anew; of the process, the system knows the peak since its start alone."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device: str) -> int | None:
    """Return the most memory in use so far, in bytes: of a CUDA device, else of the process."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, kibibytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
