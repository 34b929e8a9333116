"""Word and character errors of a hypothesis against its reference."""

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer

from emtta_core.errors import EmttaError
from emtta_core.scoring.normalizer import Normalizer, Rule, normalizer


class EmptyReferenceError(EmttaError):
    """A transcript normalizes to nothing, so that no rate of errors is defined for it."""


@dataclass(frozen=True, slots=True)
class WordErrors:
    """The errors of one utterance. A rate over many is a sum of errors over a sum of words."""

    hits: int  # words that agree
    substitutions: int  # words that differ
    deletions: int  # words of the reference that are missing
    insertions: int  # words that the reference has not
    words: int  # words of the reference
    characters: int  # characters of the reference, its single spaces included where words are written apart
    character_errors: int  # edits between the two texts by character
    normalizer: str  # the normalizer and its release
    reference_normalized: str  # the reference as it was compared
    hypothesis_normalized: str  # the hypothesis as it was compared

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions


def word_errors(reference: str, hypothesis: str, language: str, rule: Rule = "whisper") -> WordErrors:
    """Count the errors of `hypothesis` against `reference`, both normalized for `language` by a rule first.

    Raises:
        EmptyReferenceError: when the reference normalizes to nothing.
    """
    normalize = normalizer(language, rule)
    expected, heard = _normalized_reference(reference, normalize), normalize(hypothesis)
    by_word = jiwer.process_words(expected, heard)
    between = "" if normalize.by_letter else " "
    by_character = jiwer.process_characters(expected.replace(" ", between), heard.replace(" ", between))
    return WordErrors(
        hits=by_word.hits,
        substitutions=by_word.substitutions,
        deletions=by_word.deletions,
        insertions=by_word.insertions,
        words=by_word.hits + by_word.substitutions + by_word.deletions,
        characters=by_character.hits + by_character.substitutions + by_character.deletions,
        character_errors=by_character.substitutions + by_character.deletions + by_character.insertions,
        normalizer=normalize.name,
        reference_normalized=expected,
        hypothesis_normalized=heard,
    )


def step_errors(
    reference: str, hypotheses: Sequence[str | None], language: str, rule: Rule = "whisper"
) -> tuple[int | None, ...]:
    """Count the word errors of each hypothesis of one utterance; None for one that is None.

    Hypotheses repeat from step to step, so each text is compared once.

    Raises:
        EmptyReferenceError: when the reference normalizes to nothing.
    """
    normalize = normalizer(language, rule)
    expected = _normalized_reference(reference, normalize)
    counts: dict[str | None, int | None] = {None: None}
    for text in hypotheses:
        if text is not None and text not in counts:
            found = jiwer.process_words(expected, normalize(text))
            counts[text] = found.substitutions + found.deletions + found.insertions
    return tuple(counts[text] for text in hypotheses)


def check_reference(reference: str, language: str, rule: Rule = "whisper") -> None:
    """Refuse a transcript of which no word is left, as of `Mm-hmm`: no model need hear what cannot be scored.

    Raises:
        EmptyReferenceError: when the reference normalizes to nothing.
    """
    _normalized_reference(reference, normalizer(language, rule))


def _normalized_reference(reference: str, normalize: Normalizer) -> str:
    text = normalize.reference(reference)
    if not any(character.isalnum() for character in text):  # "…" leaves dots behind
        raise EmptyReferenceError(
            f"the transcript {reference!r} has no word left when normalized by {normalize.name}, so that no error rate "
            "is defined: the utterance is in none; mend the transcript where it is your own, or leave the utterance out"
        )
    return text
