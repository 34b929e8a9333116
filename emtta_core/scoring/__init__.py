"""Scoring: normalization of hypotheses and references by a scorer's rule, and their word and character errors."""

from emtta_core.scoring.normalizer import Normalizer, Rule, normalizer, unified
from emtta_core.scoring.scorer import DEFAULT, Scorer, ScorerError, check_scorer, scorer
from emtta_core.scoring.wer import Edits, EmptyReferenceError, WordErrors, step_errors, word_errors

__all__ = [
    "DEFAULT",
    "Edits",
    "EmptyReferenceError",
    "Normalizer",
    "Rule",
    "Scorer",
    "ScorerError",
    "WordErrors",
    "check_scorer",
    "normalizer",
    "scorer",
    "step_errors",
    "unified",
    "word_errors",
]
