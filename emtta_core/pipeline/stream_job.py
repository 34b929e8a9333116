"""Evaluate a stream: adapted parameters carry over from each utterance to the next, until a reset to the source model.

Segments advance side by side, the next utterance of each in one batch; that changes no result. After each shard of
utterances, the state they left is written, and an interrupted stream resumes from the last state. Utterances after
that state are evaluated again, with the same results. An utterance in error leaves the model as it was before it.
"""

import logging
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import IO

from emtta_core.adaptation import AdaptationResult, Adapter
from emtta_core.adaptation.optimizer import Carried
from emtta_core.errors import StoreError
from emtta_core.faults import is_fatal, unexpected
from emtta_core.identity import digest
from emtta_core.model import Model
from emtta_core.pipeline.batches import OpenUtterance, begin, check_languages
from emtta_core.pipeline.evaluate import check_errors, forget_peak_memory, peak_memory, shard_event, write_shard
from emtta_core.pipeline.events import AttemptBegun, CellFinished, Listener, ignore, never
from emtta_core.pipeline.job import Attempt, CellReport, InterruptedRunError, Job, fail_cell, record_failure
from emtta_core.pipeline.long_audio import Outcome, Window
from emtta_core.pipeline.rows import Tally, make_shard, tally_done, tally_shard
from emtta_core.pipeline.stream_state import Segment, arranged, packed, segments_of, unpack
from emtta_core.plugins import check_sources
from emtta_core.store import COMPLETE, DoneUtterance, PreparedRow, Store
from emtta_core.store.lease import LeaseLostError
from emtta_core.store.states import read_state, remove_state, write_state

log = logging.getLogger("emtta.pipeline")

SHARD_UTTERANCES, SHARD_SECONDS = 16, 10.0
"""Limits of a shard, whichever is reached first: a stream that is killed loses no more than that."""

MAX_PARALLEL_SEGMENTS = 64
"""The most segments that advance at once; the adapter takes fewer at a time if memory is short."""


def evaluate_stream(
    job: Job,
    store: Store,
    model: Model,
    *,
    progress: Listener = ignore,
    stop: Callable[[], bool] = never,
) -> CellReport:
    """Run a job's stream from its current position, and record an attempt at each cell that it reaches.

    Arguments and errors are those of `emtta_core.pipeline.evaluate.evaluate_cell`; the report is on the last cell.
    """
    job.check_lease(store)
    evaluation = _Evaluation(job, store, model, progress, stop)
    try:
        with tempfile.TemporaryFile() as file:
            return evaluation.finish(file)
    except LeaseLostError:
        raise
    except BaseException as error:
        evaluation.fail(error)
        raise


class Speech:
    """The prepared utterances of a job's cells, readable in any order: their audio is copied to a local file."""

    def __init__(self, job: Job, store: Store, model: Model, file: IO[bytes]) -> None:
        self._file = file
        self.rows: dict[str, list[PreparedRow]] = {}  # by corpus, without their audio
        self._spans: dict[str, list[tuple[int, int]]] = {}
        for cell in job.cells:
            corpus = store.prepared(cell.corpus_id)
            if corpus is None:
                raise StoreError(
                    f"the prepared audio of {cell.domain} is not in the store; run the suite again to prepare it"
                )
            if cell.corpus_id in self.rows:
                continue
            rows, spans = self.rows.setdefault(cell.corpus_id, []), self._spans.setdefault(cell.corpus_id, [])
            for row in store.read_prepared(corpus):
                spans.append((self._file.tell(), 0 if row.audio is None else self._file.write(row.audio.bytes)))
                rows.append(row if row.audio is None else replace(row, audio=replace(row.audio, bytes=b"")))
            if job.model.language == "corpus":
                check_languages(model, rows)

    def row(self, corpus_id: str, number: int) -> PreparedRow:
        """An utterance with its audio."""
        row, (offset, size) = self.rows[corpus_id][number], self._spans[corpus_id][number]
        if row.audio is None:
            return row
        self._file.seek(offset)
        return replace(row, audio=replace(row.audio, bytes=self._file.read(size)))


class _Evaluation:
    """The attempts in progress at a stream's cells."""

    def __init__(self, job: Job, store: Store, model: Model, progress: Listener, stop: Callable[[], bool]) -> None:
        assert job.stream is not None
        self._job, self._store, self._model, self._progress, self._stop = job, store, model, progress, stop
        self._stream = job.stream
        self._id = digest([[cell.domain, cell.method, cell.seed, cell.cell_id] for cell in job.cells])
        self._device = job.device or str(model.device)
        self._attempts: dict[int, Attempt] = {}  # those begun, by cell number
        self._finished: set[int] = set()  # the cells whose attempts are recorded, or that were complete before
        self._shards: dict[int, int] = defaultdict(int)
        self._outcomes: list[tuple[int, Outcome]] = []  # outcomes not yet in a shard
        self._last_shard_at = time.monotonic()
        self._reused: list[Tally] = []
        self._error: Exception | None = None
        self._report: CellReport | None = None

    def finish(self, file: IO[bytes]) -> CellReport:
        """Run the stream to its end, keeping its audio in `file` meanwhile."""
        job = self._job
        check_sources(job.plugins)
        forget_peak_memory(self._model.device)
        # 1) the utterances in stream order, and the stream's position
        size, trace = job.runtime.batch_size, job.runtime.trace
        self._adapter = Adapter(self._model, job.method.method(), job.adaptation, batch_size=size, trace=trace)
        self._source = Adapter(self._model, "source", batch_size=1, trace="metrics")
        self._speech = Speech(job, self._store, self._model, file)
        ids = [[row.utterance_id for row in self._speech.rows[cell.corpus_id]] for cell in job.cells]
        self._remaining = [len(names) for names in ids]
        self._segments = segments_of(self._stream, arranged(self._stream, ids))
        self._resume(ids)
        # 2) continue, batch by batch of the segments' utterances
        while waiting := [segment for segment in self._segments if not segment.finished][:MAX_PARALLEL_SEGMENTS]:
            self._advance(waiting)
            stopping = self._stop()
            if stopping or self._is_due():
                self._write_shards()
            if stopping and not all(segment.finished for segment in self._segments):
                raise InterruptedRunError("the run was asked to stop; finished utterances are kept")
        remove_state(self._store.backend, job.run_id, self._id)
        # 3) the stream fails if too many utterances of a cell are in error
        if self._error is not None:
            raise self._error
        assert self._report is not None
        return self._report

    def fail(self, error: BaseException) -> None:
        """Record the unfinished attempts as failed; if there are none, one at the next cell."""
        open_attempts = [attempt for number, attempt in self._attempts.items() if number not in self._finished]
        for attempt in open_attempts:
            row = attempt.row(error, peak_memory=peak_memory(self._model.device))
            record_failure(self._store, attempt, row, self._progress)
        waiting = [cell for number, cell in enumerate(self._job.cells) if number not in self._finished]
        if waiting and not open_attempts and not isinstance(error, InterruptedRunError):
            fail_cell(waiting[0], self._store, self._job.run_id, error, self._progress, device=self._device)

    def _resume(self, ids: Sequence[Sequence[str]]) -> None:
        # Restore the segments from the last stored state if all results leading to it are there; else start over.
        job, cells = self._job, self._job.cells
        done = [{} if job.redo == "all" else self._store.done(cell.key(job.run_id), cell.cell_id) for cell in cells]
        content = read_state(self._store.backend, job.run_id, self._id)
        errors = any(utterance.error for finished in done for utterance in finished.values())
        completed: list[list[DoneUtterance]] = [[] for _ in cells]
        if content is not None and job.redo != "all" and not (job.redo == "errors" and errors):
            segments = segments_of(self._stream, [item for segment in self._segments for item in segment.items])
            restored = unpack(content, segments, self._model.device)
            items = [item for segment in segments for item in segment.items[: segment.next]]
            if restored and all(ids[item.cell][item.row] in done[item.cell] for item in items):
                self._segments = segments
                for item in items:
                    completed[item.cell].append(done[item.cell][ids[item.cell][item.row]])
            else:
                log.warning("results leading to the stored state of %s are missing: the stream starts over", job.name)
        for number, (cell, finished) in enumerate(zip(cells, completed, strict=True)):
            self._remaining[number] -= len(finished)
            self._reused.append(tally_done(finished))
            if finished:
                self._progress(shard_event(cell, self._reused[number], resumed=True))
            if not self._remaining[number]:
                recorded = self._store.cells(cell.key(job.run_id))
                if any(row.state == COMPLETE and row.cell_id == cell.cell_id for row in recorded):
                    self._finished.add(number)
                else:  # it was killed after its last shard, before its record was written
                    self._end(number)

    def _advance(self, segments: Sequence[Segment]) -> None:
        # Adapt to the next window of each segment.
        ready: list[tuple[Segment, OpenUtterance, Window]] = []
        for segment in segments:
            if segment.current is None:
                self._attempt(segment.items[segment.next].cell)
                started = begin(self._row(segment), self._model, self._job.model)
                if isinstance(started, Outcome):
                    self._finish_utterance(segment, started)
                    continue
                segment.current, segment.state = started, segment.carried
            utterance = segment.current
            ready.append(
                (segment, utterance, next(window for window in utterance.windows if window.id in utterance.waiting))
            )
        results = self._carry(ready) if ready else []
        for (segment, utterance, _), result in zip(ready, results, strict=True):
            utterance.add_result(result)
            if not utterance.waiting:
                self._finish_utterance(segment, utterance.outcome())

    def _carry(self, ready: Sequence[tuple[Segment, OpenUtterance, Window]]) -> list[AdaptationResult]:
        # Adapt side by side; if a library fails, one by one, so that only the utterance at fault is in error.
        states: list[Carried | None] = [segment.state for segment, _, _ in ready]
        try:
            results = self._adapter.carry(
                [window.waveform for _, _, window in ready],
                [utterance.language for _, utterance, _ in ready],
                [window.id for _, _, window in ready],
                states,
            )
        except Exception as error:
            if is_fatal(error):
                raise
            log.warning("a batch failed; retrying its %d utterances one by one", len(ready), exc_info=True)
            if len(ready) > 1:
                return [result for one in ready for result in self._carry([one])]
            reason = unexpected("adapted to", error)
            return [AdaptationResult(ready[0][2].id, "", "", math.nan, math.nan, (), 0.0, error=reason)]
        for (segment, _, _), state in zip(ready, states, strict=True):
            segment.state = state
        return results

    def _finish_utterance(self, segment: Segment, outcome: Outcome) -> None:
        # Advance to the next utterance of a segment, or retry this one.
        item, utterance, segment.current = segment.items[segment.next], segment.current, None
        if outcome.is_error and segment.tries < self._job.runtime.retry_on_error:
            segment.tries += 1
            return
        result = outcome.result
        if segment.reset and not isinstance(result, str):
            result = replace(result, flags=(*result.flags, "reset"))
        self._outcomes.append((item.cell, replace(outcome, result=result, position=item.position)))
        segment.next, segment.tries, segment.reset = segment.next + 1, 0, False
        if outcome.is_error or isinstance(result, str) or utterance is None:
            return
        segment.carried = segment.state
        if segment.detector is not None and segment.detector.detects_shift(
            result.entropy_before - self._source_entropy(utterance)
        ):
            segment.carried, segment.reset = None, True

    def _source_entropy(self, utterance: OpenUtterance) -> float:
        # The source model's entropy along its greedy hypothesis for an utterance, in nats per token.
        unadapted = begin(utterance.row, self._model, self._job.model)
        if isinstance(unadapted, Outcome):
            return math.nan
        for window in unadapted.windows:
            if window.id in unadapted.waiting:
                (result,) = self._source.transcribe([window.waveform], utterance.language, [window.id])
                unadapted.add_result(result)
        transcribed = unadapted.outcome().result
        return math.nan if isinstance(transcribed, str) else transcribed.entropy_before

    def _row(self, segment: Segment) -> PreparedRow:
        item = segment.items[segment.next]
        return self._speech.row(self._job.cells[item.cell].corpus_id, item.row)

    def _is_due(self) -> bool:
        # A shard ends when it is full, or where a cell ends.
        counts: dict[int, int] = defaultdict(int)
        for number, _ in self._outcomes:
            counts[number] += 1
        late = time.monotonic() - self._last_shard_at > SHARD_SECONDS
        full = len(self._outcomes) >= SHARD_UTTERANCES
        return bool(counts) and (
            late or full or any(count == self._remaining[number] for number, count in counts.items())
        )

    def _write_shards(self) -> None:
        # Write the rows of the new outcomes, then the stream's state.
        job, store = self._job, self._store
        job.check_lease(store)
        tallies: dict[int, Tally] = {}
        for number in sorted({number for number, _ in self._outcomes}):
            cell, attempt = job.cells[number], self._attempts[number]
            outcomes = [outcome for cell_number, outcome in self._outcomes if cell_number == number]
            shard = make_shard(cell, attempt.number, outcomes, job.scorer)
            write_shard(store, attempt, self._shards[number], shard)
            self._shards[number] += 1
            tallies[number] = tally_shard(shard)
        write_state(store.backend, job.run_id, self._id, packed(self._segments))
        self._outcomes, self._last_shard_at = [], time.monotonic()
        for number, tally in tallies.items():
            self._attempts[number].done.add(tally)
            self._remaining[number] -= tally.utterances
            self._progress(shard_event(job.cells[number], tally))
            if not self._remaining[number]:
                self._end(number)

    def _attempt(self, number: int) -> Attempt:
        # The attempt at a cell, which begins with its first utterance.
        if number not in self._attempts:
            cell = self._job.cells[number]
            key = cell.key(self._job.run_id)
            attempt = Attempt(cell, key, self._store.begin_attempt(key), self._device, self._adapter)
            attempt.reused = self._reused[number]
            self._attempts[number] = attempt
            self._progress(AttemptBegun(cell.name, attempt.number))
        return self._attempts[number]

    def _end(self, number: int) -> None:
        # Record the end of a cell.
        attempt = self._attempt(number)
        self._finished.add(number)
        memory = peak_memory(self._model.device)
        try:
            check_errors(self._job.runtime, attempt)
        except Exception as error:
            self._error = error
            record_failure(self._store, attempt, attempt.row(error, peak_memory=memory), self._progress)
            return
        row = attempt.row(peak_memory=memory)
        self._store.write_cell(attempt.key, row)
        total = Tally()
        total.add(attempt.reused)
        total.add(attempt.done)
        self._progress(CellFinished(attempt.cell.name, total.utterances, total.errors, total.wer, row.seconds))
        self._report = CellReport(
            attempt.cell, attempt.number, row.done, row.reused, row.errors, total.wer, row.seconds
        )
