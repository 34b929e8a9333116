"""The score of one utterance, as the store keeps it: its hypothesis, and the one after each step."""

import logging
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple, Protocol

from emtta_core.faults import is_fatal, unexpected
from emtta_core.scoring.scorer import ScorerError, scorer
from emtta_core.scoring.wer import EmptyReferenceError, WordErrors, step_errors, word_errors

_COUNTED = tuple(field.name for field in fields(WordErrors))

log = logging.getLogger("emtta.scoring")


class Scorable(Protocol):
    """An utterance to be scored."""

    @property
    def utterance_id(self) -> str:
        """By which a log names it."""

    @property
    def language(self) -> str:
        """ISO 639-1 code."""

    @property
    def reference(self) -> str:
        """The transcript; empty for audio without speech."""

    @property
    def hypothesis(self) -> str | None:
        """What was heard; None where the utterance is in error: then all of its words are deleted."""


class Heard(NamedTuple):
    """An utterance of the store with the hypothesis after each step."""

    utterance_id: str
    language: str
    reference: str
    hypothesis: str | None
    steps: Sequence[str | None]


def score(utterance: Scorable, steps: Sequence[str | None], by: str, *, strict: bool = False) -> dict[str, Any]:
    """Score a hypothesis, and the one after each step.

    A transcript that normalizes to nothing, or at which a library fails, gives a score with an `error`; so does another
    package's normalizer that fails, unless `strict`.

    Args:
        utterance: what was said and heard.
        steps: the hypothesis after 0, 1, … updates; None where it was not decoded.
        by: the scorer.
        strict: whether the failure of another package's normalizer is raised.

    Returns:
        The columns of a row of scores but for its keys.

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
        nothing = dict.fromkeys(_COUNTED)
        return nothing | {"scorer": by, "normalizer": normalize.name, "error": reason}
    kinds = ("substitutions", "deletions", "insertions")
    counts = {f"step_{kind}": tuple(edits and getattr(edits, kind) for edits in by_step) for kind in kinds}
    return {name: getattr(errors, name) for name in _COUNTED} | counts | {"scorer": by}


def score_all(utterances: Sequence[Heard], by: str) -> list[dict[str, Any]]:
    """Score utterances of the store; exceptions are those of a strict `score`."""
    return [score(utterance, utterance.steps, by, strict=True) for utterance in utterances]
