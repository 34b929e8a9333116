"""Word and character errors of a hypothesis against its reference, and the scores of an utterance and its steps."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import jiwer

from emtta_core.errors import EmttaError
from emtta_core.faults import is_fatal, unexpected
from emtta_core.scoring.normalizer import Normalizer
from emtta_core.scoring.scorer import DEFAULT, Scorer, ScorerError, scorer


class EmptyReferenceError(EmttaError):
    """A transcript is empty after normalization, so its error rate is undefined."""


@dataclass(frozen=True, slots=True)
class WordErrors:
    """The errors of one utterance. A rate over many is the sum of errors over the sum of words."""

    hits: int  # words that match
    substitutions: int  # words that differ
    deletions: int  # words of the reference that are missing
    insertions: int  # words that are not in the reference
    insertion_run: int  # the longest run of consecutive insertions
    words: int  # words of the reference
    characters: int  # characters of the reference, including its single spaces if words are separated by spaces
    character_errors: int  # character edits between the two texts
    normalizer: str  # the normalizer and its release
    reference_normalized: str  # the reference as compared
    hypothesis_normalized: str  # the hypothesis as compared

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions


@dataclass(frozen=True, slots=True)
class Edits:
    """The edits from a reference to a hypothesis, counted by kind."""

    hits: int
    substitutions: int
    deletions: int
    insertions: int
    insertion_run: int = 0  # the longest run of consecutive insertions

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.deletions + self.insertions


def word_errors(reference: str, hypothesis: str, language: str, by: str | Scorer = DEFAULT) -> WordErrors:
    """Count the errors of `hypothesis` against `reference` after a scorer has normalized both for `language`.

    An empty reference means audio without speech: each word of its hypothesis is an insertion.

    Raises:
        EmptyReferenceError: when a non-empty reference is empty after normalization.
        ScorerError: another package's normalizer failed.
        UsageError: there is no such scorer.
    """
    chosen = scorer(by) if isinstance(by, str) else by
    normalize = chosen.normalizer(language)
    expected = _normalized_reference(reference, normalize)
    by_word, normalized = _compared(chosen, expected, _normalized(normalize, hypothesis))
    between = "" if normalize.by_letter else " "
    by_character = _by_character(expected.replace(" ", between), normalized.replace(" ", between))
    return WordErrors(
        hits=by_word.hits,
        substitutions=by_word.substitutions,
        deletions=by_word.deletions,
        insertions=by_word.insertions,
        insertion_run=by_word.insertion_run,
        words=by_word.hits + by_word.substitutions + by_word.deletions,
        characters=by_character.hits + by_character.substitutions + by_character.deletions,
        character_errors=by_character.errors,
        normalizer=normalize.name,
        reference_normalized=expected,
        hypothesis_normalized=normalized,
    )


def step_errors(
    reference: str, hypotheses: Sequence[str | None], language: str, by: str | Scorer = DEFAULT
) -> tuple[Edits | None, ...]:
    """Count the word errors of each hypothesis of one utterance by kind; None stays None.

    Raises:
        EmptyReferenceError, ScorerError, UsageError: as in `word_errors`.
    """
    chosen = scorer(by) if isinstance(by, str) else by
    normalize = chosen.normalizer(language)
    expected = _normalized_reference(reference, normalize)
    return tuple(
        None if text is None else _compared(chosen, expected, _normalized(normalize, text))[0] for text in hypotheses
    )


def _normalized_reference(reference: str, normalize: Normalizer) -> str:
    text = _normalized(normalize, reference, is_reference=True)
    if reference.strip() and not any(character.isalnum() for character in text):  # "…" leaves dots
        raise EmptyReferenceError(
            f"the transcript {reference!r} has no words left after normalization by {normalize.name}, so its error "
            "rate is undefined and it is not in any: correct the transcript if it is your own, or remove the utterance"
        )
    return text


# Hypotheses repeat from step to step and from method to method, and references from domain to domain.


@lru_cache(maxsize=20_000)
def _normalized(normalize: Normalizer, text: str, *, is_reference: bool = False) -> str:
    return normalize.reference(text) if is_reference else normalize(text)


def _compared(chosen: Scorer, reference: str, hypothesis: str) -> tuple[Edits, str]:
    # The edits between two normalized texts, and the hypothesis with its compounds spelled as in the reference.
    return (
        _with_compounds(chosen, reference, hypothesis)
        if chosen.compounds and reference
        else (_by_word(reference, hypothesis), hypothesis)
    )


@lru_cache(maxsize=20_000)
def _with_compounds(chosen: Scorer, reference: str, hypothesis: str) -> tuple[Edits, str]:
    pairs = chosen.align(reference, hypothesis)
    same = [ref.replace(" ", "") == hyp.replace(" ", "") for ref, hyp in pairs]
    inserted = [not ref for ref, _ in pairs]
    deletions = sum(not hyp for _, hyp in pairs)
    substitutions = len(pairs) - sum(same) - sum(inserted) - deletions
    hits = len(reference.split()) - substitutions - deletions
    run = max((len(list(group)) for is_inserted, group in groupby(inserted) if is_inserted), default=0)
    spelled = " ".join(ref if equal else hyp for (ref, hyp), equal in zip(pairs, same, strict=True) if hyp)
    return Edits(hits, substitutions, deletions, sum(inserted), run), spelled


@lru_cache(maxsize=20_000)
def _by_word(reference: str, hypothesis: str) -> Edits:
    if not reference:
        words = len(hypothesis.split())
        return Edits(0, 0, 0, words, words)
    alignment = jiwer.process_words(reference, hypothesis)
    runs = (chunk.hyp_end_idx - chunk.hyp_start_idx for chunk in alignment.alignments[0] if chunk.type == "insert")
    return Edits(
        alignment.hits, alignment.substitutions, alignment.deletions, alignment.insertions, max(runs, default=0)
    )


@lru_cache(maxsize=20_000)
def _by_character(reference: str, hypothesis: str) -> Edits:
    if not reference:
        return Edits(0, 0, 0, len(hypothesis))
    alignment = jiwer.process_characters(reference, hypothesis)
    return Edits(alignment.hits, alignment.substitutions, alignment.deletions, alignment.insertions)


_COUNTED = tuple(field.name for field in fields(WordErrors))

log = logging.getLogger("emtta.scoring")


class Scorable(Protocol):
    """An utterance to score."""

    @property
    def utterance_id(self) -> str:
        """Its id, for logs."""

    @property
    def language(self) -> str:
        """Its ISO 639-1 code."""

    @property
    def reference(self) -> str:
        """The transcript; empty for audio without speech."""

    @property
    def hypothesis(self) -> str | None:
        """The hypothesis; None if the utterance is in error: then all of its words are deleted."""


class Transcription(NamedTuple):
    """An utterance of the store with the hypothesis after each step."""

    utterance_id: str
    language: str
    reference: str
    hypothesis: str | None
    steps: Sequence[str | None]


def score(utterance: Scorable, steps: Sequence[str | None], by: str, *, strict: bool = False) -> dict[str, Any]:
    """Score a hypothesis, and the one after each step.

    If a transcript is empty after normalization, or a library fails on it, the score has an `error`; likewise if
    another package's normalizer fails, unless `strict`.

    Args:
        utterance: the reference and the hypothesis.
        steps: the hypothesis after 0, 1, … updates; None where it was not decoded.
        by: the scorer.
        strict: whether to raise the failure of another package's normalizer.

    Returns:
        The columns of a row of scores, without its keys.

    Raises:
        ScorerError: another package's normalizer failed, and `strict`.
        UsageError: there is no such scorer.
    """
    language = utterance.language
    normalize = scorer(by).normalizer(language)
    try:
        errors = word_errors(utterance.reference, utterance.hypothesis or "", language, by)
        by_step = step_errors(utterance.reference, steps, language, by)
    except Exception as error:
        if isinstance(error, ScorerError) and strict:
            raise ScorerError(f"utterance {utterance.utterance_id}: {error}") from error
        if isinstance(error, EmptyReferenceError | ScorerError):
            reason = str(error)
        elif is_fatal(error):
            raise
        else:
            log.warning("utterance %s could not be scored", utterance.utterance_id, exc_info=True)
            reason = unexpected("scored", error)
        no_counts = dict.fromkeys(_COUNTED)
        return no_counts | {"scorer": by, "normalizer": normalize.name, "error": reason}
    kinds = ("substitutions", "deletions", "insertions")
    counts = {f"step_{kind}": tuple(edits and getattr(edits, kind) for edits in by_step) for kind in kinds}
    return {name: getattr(errors, name) for name in _COUNTED} | counts | {"scorer": by}


def score_all(utterances: Sequence[Transcription], by: str) -> list[dict[str, Any]]:
    """Score utterances of the store; raises as a strict `score` does."""
    return [score(utterance, utterance.steps, by, strict=True) for utterance in utterances]
