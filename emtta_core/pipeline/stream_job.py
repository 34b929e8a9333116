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
from emtta_core.pipeline.batches import Going, begin, check_languages
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

SIDE_BY_SIDE = 64
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
    going = _Evaluation(job, store, model, progress, stop)
    try:
        with tempfile.TemporaryFile() as file:
            return going.finish(file)
    except LeaseLostError:
        raise
    except BaseException as error:
        going.fail(error)
        raise


class Speech:
    """The prepared utterances of a job's cells, readable in any order: their audio is copied to a local file."""

    def __init__(self, job: Job, store: Store, model: Model, file: IO[bytes]) -> None:
        self._file = file
        self.rows: dict[str, list[PreparedRow]] = {}  # by corpus, without their audio
        self._places: dict[str, list[tuple[int, int]]] = {}
        for cell in job.cells:
            corpus = store.prepared(cell.corpus_id)
            if corpus is None:
                raise StoreError(
                    f"the prepared audio of {cell.domain} is not in the store; run the suite again to prepare it"
                )
            if cell.corpus_id in self.rows:
                continue
            rows, places = self.rows.setdefault(cell.corpus_id, []), self._places.setdefault(cell.corpus_id, [])
            for row in store.read_prepared(corpus):
                places.append((self._file.tell(), 0 if row.audio is None else self._file.write(row.audio.bytes)))
                rows.append(row if row.audio is None else replace(row, audio=replace(row.audio, bytes=b"")))
            if job.model.language == "corpus":
                check_languages(model, rows)

    def row(self, corpus_id: str, number: int) -> PreparedRow:
        """An utterance with its audio."""
        row, (place, size) = self.rows[corpus_id][number], self._places[corpus_id][number]
        if row.audio is None:
            return row
        self._file.seek(place)
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
        self._ended: set[int] = set()  # the cells whose attempts are recorded, or that were complete before
        self._shards: dict[int, int] = defaultdict(int)
        self._made: list[tuple[int, Outcome]] = []  # outcomes not yet in a shard
        self._kept_at = time.monotonic()
        self._reused: list[Tally] = []
        self._refusal: Exception | None = None
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
        self._left = [len(names) for names in ids]
        self._segments = segments_of(self._stream, arranged(self._stream, ids))
        self._resume(ids)
        # 2) continue, batch by batch of the segments' utterances
        while waiting := [segment for segment in self._segments if not segment.over][:SIDE_BY_SIDE]:
            self._go_on(waiting)
            asked = self._stop()
            if asked or self._is_due():
                self._keep()
            if asked and not all(segment.over for segment in self._segments):
                raise InterruptedRunError("the run was asked to stop; finished utterances are kept")
        remove_state(self._store.backend, job.run_id, self._id)
        # 3) the stream fails if too many utterances of a cell are in error
        if self._refusal is not None:
            raise self._refusal
        assert self._report is not None
        return self._report

    def fail(self, error: BaseException) -> None:
        """Record the unfinished attempts as failed; if there are none, one at the next cell."""
        open_attempts = [attempt for number, attempt in self._attempts.items() if number not in self._ended]
        for attempt in open_attempts:
            row = attempt.row(error, peak_memory=peak_memory(self._model.device))
            record_failure(self._store, attempt, row, self._progress)
        waiting = [cell for number, cell in enumerate(self._job.cells) if number not in self._ended]
        if waiting and not open_attempts and not isinstance(error, InterruptedRunError):
            fail_cell(waiting[0], self._store, self._job.run_id, error, self._progress, device=self._device)

    def _resume(self, ids: Sequence[Sequence[str]]) -> None:
        # Restore the segments from the last stored state if all results leading to it are there; else start over.
        job, cells = self._job, self._job.cells
        done = [{} if job.redo == "all" else self._store.done(cell.key(job.run_id), cell.cell_id) for cell in cells]
        content = read_state(self._store.backend, job.run_id, self._id)
        errors = any(utterance.error for found in done for utterance in found.values())
        behind: list[list[DoneUtterance]] = [[] for _ in cells]
        if content is not None and job.redo != "all" and not (job.redo == "errors" and errors):
            begun = segments_of(self._stream, [place for segment in self._segments for place in segment.places])
            known = unpack(content, begun, self._model.device)
            places = [place for segment in begun for place in segment.places[: segment.next]]
            if known and all(ids[place.cell][place.row] in done[place.cell] for place in places):
                self._segments = begun
                for place in places:
                    behind[place.cell].append(done[place.cell][ids[place.cell][place.row]])
            else:
                log.warning("results leading to the stored state of %s are missing: the stream starts over", job.name)
        for number, (cell, utterances) in enumerate(zip(cells, behind, strict=True)):
            self._left[number] -= len(utterances)
            self._reused.append(tally_done(utterances))
            if utterances:
                self._progress(shard_event(cell, self._reused[number], resumed=True))
            if not self._left[number]:
                recorded = self._store.cells(cell.key(job.run_id))
                if any(row.state == COMPLETE and row.cell_id == cell.cell_id for row in recorded):
                    self._ended.add(number)
                else:  # it was killed after its last shard, before its record was written
                    self._end(number)

    def _go_on(self, segments: Sequence[Segment]) -> None:
        # Adapt to the next window of each segment.
        ready: list[tuple[Segment, Going, Window]] = []
        for segment in segments:
            if segment.going is None:
                self._attempt(segment.places[segment.next].cell)
                begun = begin(self._row(segment), self._model, self._job.model)
                if isinstance(begun, Outcome):
                    self._settle(segment, begun)
                    continue
                segment.going, segment.state = begun, segment.settled
            going = segment.going
            ready.append((segment, going, next(window for window in going.windows if window.id in going.waiting)))
        results = self._carry(ready) if ready else []
        for (segment, going, _), result in zip(ready, results, strict=True):
            going.take(result)
            if not going.waiting:
                self._settle(segment, going.outcome())

    def _carry(self, ready: Sequence[tuple[Segment, Going, Window]]) -> list[AdaptationResult]:
        # Adapt side by side; if a library fails, one by one, so that only the utterance at fault is in error.
        states: list[Carried | None] = [segment.state for segment, _, _ in ready]
        try:
            results = self._adapter.carry(
                [window.waveform for _, _, window in ready],
                [going.language for _, going, _ in ready],
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

    def _settle(self, segment: Segment, outcome: Outcome) -> None:
        # Advance to the next utterance of a segment, or retry this one.
        place, going, segment.going = segment.places[segment.next], segment.going, None
        if outcome.is_error and segment.tries < self._job.runtime.retry_on_error:
            segment.tries += 1
            return
        result = outcome.result
        if segment.reset and not isinstance(result, str):
            result = replace(result, flags=(*result.flags, "reset"))
        self._made.append((place.cell, replace(outcome, result=result, position=place.position)))
        segment.next, segment.tries, segment.reset = segment.next + 1, 0, False
        if outcome.is_error or isinstance(result, str) or going is None:
            return
        segment.settled = segment.state
        if segment.detector is not None and segment.detector.hears_shift(
            result.entropy_before - self._source_entropy(going)
        ):
            segment.settled, segment.reset = None, True

    def _source_entropy(self, going: Going) -> float:
        # The source model's entropy along its greedy hypothesis for an utterance, in nats per token.
        again = begin(going.row, self._model, self._job.model)
        if isinstance(again, Outcome):
            return math.nan
        for window in again.windows:
            if window.id in again.waiting:
                (result,) = self._source.transcribe([window.waveform], going.language, [window.id])
                again.take(result)
        made = again.outcome().result
        return math.nan if isinstance(made, str) else made.entropy_before

    def _row(self, segment: Segment) -> PreparedRow:
        place = segment.places[segment.next]
        return self._speech.row(self._job.cells[place.cell].corpus_id, place.row)

    def _is_due(self) -> bool:
        # A shard ends when it is full, or where a cell ends.
        made: dict[int, int] = defaultdict(int)
        for number, _ in self._made:
            made[number] += 1
        late = time.monotonic() - self._kept_at > SHARD_SECONDS
        full = len(self._made) >= SHARD_UTTERANCES
        return bool(made) and (late or full or any(count == self._left[number] for number, count in made.items()))

    def _keep(self) -> None:
        # Write the rows of the new outcomes, then the stream's state.
        job, store = self._job, self._store
        job.check_lease(store)
        tallies: dict[int, Tally] = {}
        for number in sorted({number for number, _ in self._made}):
            cell, attempt = job.cells[number], self._attempts[number]
            outcomes = [outcome for of_cell, outcome in self._made if of_cell == number]
            shard = make_shard(cell, attempt.number, outcomes, job.scorer)
            write_shard(store, attempt, self._shards[number], shard)
            self._shards[number] += 1
            tallies[number] = tally_shard(shard)
        write_state(store.backend, job.run_id, self._id, packed(self._segments))
        self._made, self._kept_at = [], time.monotonic()
        for number, tally in tallies.items():
            self._attempts[number].done.add(tally)
            self._left[number] -= tally.utterances
            self._progress(shard_event(job.cells[number], tally))
            if not self._left[number]:
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
        self._ended.add(number)
        memory = peak_memory(self._model.device)
        try:
            check_errors(self._job.runtime, attempt)
        except Exception as error:
            self._refusal = error
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
