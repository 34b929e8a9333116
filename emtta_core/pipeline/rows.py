"""From what the engine returns to the rows that the store keeps, and their scores."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from emtta_core.adaptation import AdaptationResult
from emtta_core.audio.waveform import SAMPLE_RATE
from emtta_core.faults import is_fatal, unexpected
from emtta_core.pipeline.long_audio import SILENT, HeardWindow, Outcome
from emtta_core.pipeline.plan import Cell, utterance_key
from emtta_core.scoring import EmptyReferenceError, Rule, normalizer, step_errors, word_errors
from emtta_core.store import DoneUtterance, HypothesisRow, PreparedRow, ScoreRow, StepRow, WindowRow

log = logging.getLogger("emtta.pipeline")


@dataclass(frozen=True, slots=True)
class Shard:
    """The rows of some utterances of a cell, for the tables that are written together."""

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
        """Word error rate in percent; none where nothing was scored."""
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
        """Add the words of an utterance and the errors in them; nothing for one that has no score."""
        self.word_errors += (row.substitutions or 0) + (row.deletions or 0) + (row.insertions or 0)
        self.words += row.words or 0


def make_shard(cell: Cell, attempt: int, outcomes: Sequence[Outcome], rule: Rule = "whisper") -> Shard:
    """Return the rows of some utterances: their hypotheses, steps, scores and windows.

    Args:
        cell: whose utterances they are.
        attempt: number of the attempt.
        outcomes: what became of each.
        rule: how texts are normalized before they are compared.
    """
    hypotheses, steps, scores, windows = [], [], [], []
    for outcome in outcomes:
        result = outcome.result
        hypothesis = _hypothesis(cell, attempt, outcome.row, result)
        hypotheses.append(hypothesis)
        windows += [_window(hypothesis, window) for window in outcome.windows]
        if isinstance(result, str) or hypothesis.error is not None:
            continue
        steps += _steps(hypothesis, result)
        scores.append(score(hypothesis, [record.text for record in result.trace], rule))
    return Shard(tuple(hypotheses), tuple(steps), tuple(scores), tuple(windows))


def score(hypothesis: HypothesisRow, step_texts: Sequence[str | None], rule: Rule) -> ScoreRow:
    """Return the score of a hypothesis, and the word errors after each step.

    A transcript that normalizes to nothing, or at which a library fails, gives a row with an `error`.
    """
    text, language = hypothesis.hypothesis or "", hypothesis.language
    try:
        found = word_errors(hypothesis.reference, text, language, rule)
        by_step = step_errors(hypothesis.reference, step_texts, language, rule)
    except Exception as error:
        if is_fatal(error) and not isinstance(error, EmptyReferenceError):
            raise
        if isinstance(error, EmptyReferenceError):
            reason = str(error)
        else:
            log.warning("utterance %s could not be scored", hypothesis.utterance_id, exc_info=True)
            reason = unexpected("scored", error)
        return ScoreRow(
            cell_id=hypothesis.cell_id,
            attempt=hypothesis.attempt,
            utterance_id=hypothesis.utterance_id,
            hits=None,
            substitutions=None,
            deletions=None,
            insertions=None,
            words=None,
            characters=None,
            character_errors=None,
            normalizer=normalizer(language, rule).name,
            reference_normalized=None,
            hypothesis_normalized=None,
            error=reason,
        )
    return ScoreRow(
        cell_id=hypothesis.cell_id,
        attempt=hypothesis.attempt,
        utterance_id=hypothesis.utterance_id,
        hits=found.hits,
        substitutions=found.substitutions,
        deletions=found.deletions,
        insertions=found.insertions,
        words=found.words,
        characters=found.characters,
        character_errors=found.character_errors,
        normalizer=found.normalizer,
        reference_normalized=found.reference_normalized,
        hypothesis_normalized=found.hypothesis_normalized,
        step_errors=by_step,
    )


def tally_shard(shard: Shard) -> Tally:
    """Return the sums over a shard just made."""
    tally = Tally(utterances=len(shard.hypotheses))
    tally.audio_seconds = sum(row.audio_seconds for row in shard.hypotheses)
    tally.seconds = sum(row.seconds or 0.0 for row in shard.hypotheses)
    tally.errors = sum(row.error is not None for row in shard.hypotheses)
    tally.errors += sum(row.error is not None for row in shard.scores)
    for row in shard.scores:
        tally.add_score(row)
    return tally


def tally_done(done: Sequence[DoneUtterance]) -> Tally:
    """Return the sums over utterances that an earlier attempt had done, as it scored them."""
    tally = Tally(utterances=len(done), errors=sum(utterance.error is not None for utterance in done))
    for utterance in done:
        if utterance.score is not None:
            tally.add_score(utterance.score)
    return tally


def _hypothesis(cell: Cell, attempt: int, row: PreparedRow, result: AdaptationResult | str) -> HypothesisRow:
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
        hypothesis=known.text if known else None,
        source_hypothesis=known.source_text if known else None,
        entropy_before=known.entropy_before if known else None,
        entropy_after=known.entropy_after if known else None,
        tokens=known.tokens if known else None,
        seconds=known.seconds if known else None,
        flags=tuple(known.flags) if known else (),
        error=error,
        utterance_key=utterance_key(cell.recipe_id, row),
    )


def _window(hypothesis: HypothesisRow, heard: HeardWindow) -> WindowRow:
    window, result = heard.window, heard.result
    error = SILENT if result is None else result.error
    known = result if error is None else None
    return WindowRow(
        cell_id=hypothesis.cell_id,
        attempt=hypothesis.attempt,
        utterance_id=hypothesis.utterance_id,
        window=window.number,
        begins=window.begin / SAMPLE_RATE,
        seconds=len(window.waveform) / SAMPLE_RATE,
        language=heard.language,
        language_probability=heard.probability,
        hypothesis=known.text if known else None,
        source_hypothesis=known.source_text if known else None,
        entropy_before=known.entropy_before if known else None,
        entropy_after=known.entropy_after if known else None,
        tokens=known.tokens if known else None,
        updates=known.updates if known else None,
        flags=known.flags if known else (),
        error=error,
    )


def _steps(hypothesis: HypothesisRow, result: AdaptationResult) -> list[StepRow]:
    return [
        StepRow(
            cell_id=hypothesis.cell_id,
            attempt=hypothesis.attempt,
            utterance_id=hypothesis.utterance_id,
            step=record.step,
            hypothesis=record.text,
            entropy=record.entropy,
            tokens=record.tokens,
            loss=record.loss,
            policy_loss=record.policy_loss,
            entropy_loss=record.entropy_loss,
            candidate_entropy=record.candidate_entropy,
            advantage_std=record.advantage_std,
            gradient_norm=record.gradient_norm,
            candidate_tokens=record.candidate_tokens,
        )
        for record in result.trace
    ]
