"""Convert the engine's results to the rows of the store, and score them."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

from emtta_core.adaptation import AdaptationResult
from emtta_core.audio.waveform import SAMPLE_RATE
from emtta_core.pipeline.long_audio import SILENT, Outcome, WindowResult
from emtta_core.pipeline.plan import Cell, utterance_key
from emtta_core.scoring import DEFAULT
from emtta_core.scoring.wer import score
from emtta_core.store import DoneUtterance, HypothesisRow, ScoreRow, StepRow, WindowRow

log = logging.getLogger("emtta.pipeline")


@dataclass(frozen=True, slots=True)
class Shard:
    """The rows of some utterances of a cell, written to several tables together."""

    hypotheses: tuple[HypothesisRow, ...]
    steps: tuple[StepRow, ...]
    scores: tuple[ScoreRow, ...]
    windows: tuple[WindowRow, ...] = ()


@dataclass(slots=True)
class Tally:
    """Running sums over utterances; the word error rate is a ratio of sums, never a mean of rates."""

    utterances: int = 0
    errors: int = 0
    word_errors: int = 0
    words: int = 0
    audio_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def wer(self) -> float | None:
        """Word error rate in percent; None if nothing was scored."""
        return 100 * self.word_errors / self.words if self.words else None

    def add(self, other: "Tally") -> None:
        """Add the sums of other utterances."""
        self.utterances += other.utterances
        self.errors += other.errors
        self.word_errors += other.word_errors
        self.words += other.words
        self.audio_seconds += other.audio_seconds
        self.seconds += other.seconds

    def add_score(self, row: ScoreRow) -> None:
        """Add an utterance's words and word errors; an utterance without a score adds nothing."""
        self.word_errors += (row.substitutions or 0) + (row.deletions or 0) + (row.insertions or 0)
        self.words += row.words or 0


def make_shard(cell: Cell, attempt: int, outcomes: Sequence[Outcome], by: str = DEFAULT) -> Shard:
    """Make the hypotheses, steps, scores and windows of some utterances."""
    hypotheses, steps, scores, windows = [], [], [], []
    for outcome in outcomes:
        result = outcome.result
        hypothesis = _hypothesis(cell, attempt, outcome)
        hypotheses.append(hypothesis)
        windows += [_window(hypothesis, window) for window in outcome.windows]
        adapted = None if isinstance(result, str) or hypothesis.error is not None else result
        trace = adapted.trace if adapted else ()
        steps += [StepRow(**_key(hypothesis), **asdict(record)) for record in trace]
        texts = [record.hypothesis for record in trace]
        scores.append(ScoreRow(**_key(hypothesis), **score(hypothesis, texts, by)))
    return Shard(tuple(hypotheses), tuple(steps), tuple(scores), tuple(windows))


def tally_shard(shard: Shard) -> Tally:
    """The sums over a new shard."""
    tally = Tally(utterances=len(shard.hypotheses))
    tally.audio_seconds = sum(row.audio_seconds for row in shard.hypotheses)
    tally.seconds = sum(row.seconds or 0.0 for row in shard.hypotheses)
    in_error = {row.utterance_id for row in shard.hypotheses if row.error is not None}
    in_error |= {row.utterance_id for row in shard.scores if row.error is not None}
    tally.errors = len(in_error)
    for row in shard.scores:
        if row.utterance_id not in in_error:
            tally.add_score(row)
    return tally


def tally_done(done: Sequence[DoneUtterance]) -> Tally:
    """The sums over utterances of earlier attempts, as scored then."""
    tally = Tally(utterances=len(done), errors=sum(utterance.error is not None for utterance in done))
    for utterance in done:
        if utterance.error is None and utterance.score is not None:
            tally.add_score(utterance.score)
    return tally


def _hypothesis(cell: Cell, attempt: int, outcome: Outcome) -> HypothesisRow:
    row, result = outcome.row, outcome.result
    error = result if isinstance(result, str) else result.error
    known = None if isinstance(result, str) or error is not None else result
    return HypothesisRow(
        cell_id=cell.cell_id,
        attempt=attempt,
        utterance_id=row.utterance_id,
        language=row.language,
        speaker=row.speaker,
        audio_seconds=row.seconds,
        reference=row.text,
        metadata=row.metadata,
        error=error,
        utterance_key=utterance_key(cell.recipe_id, row),
        position=outcome.position,
        **_columns(known, HypothesisRow),
    )


def _window(hypothesis: HypothesisRow, adapted: WindowResult) -> WindowRow:
    window, result = adapted.window, adapted.result
    error = SILENT if result is None else result.error
    columns = _columns(result if error is None else None, WindowRow)
    columns["seconds"] = len(window.waveform) / SAMPLE_RATE  # in this table, not the wall-clock time
    return WindowRow(
        **_key(hypothesis),
        window=window.number,
        begins=window.begin / SAMPLE_RATE,
        language=adapted.language,
        language_probability=adapted.probability,
        error=error,
        **columns,
    )


def _key(row: HypothesisRow) -> dict[str, Any]:
    return {"cell_id": row.cell_id, "attempt": row.attempt, "utterance_id": row.utterance_id}


def _columns(result: AdaptationResult | None, row: type) -> dict[str, Any]:
    # The columns of a row that are fields of a result, by name; all null and without flags if there is no result.
    names = _names(AdaptationResult) & _names(row) - {"utterance_id", "error"}
    if result is None:
        return dict.fromkeys(names) | {"flags": ()}
    return {name: getattr(result, name) for name in names}


@cache
def _names(record: type) -> frozenset[str]:
    return frozenset(field.name for field in fields(record))
