"""Scoring: text normalised as Whisper's evaluation does it, and its word and character errors."""

from emtta_core.scoring.errors import EmptyReferenceError, WordErrors, check_reference, step_errors, word_errors
from emtta_core.scoring.normaliser import Normaliser, Rule, normaliser, normaliser_named, normaliser_names, unified

__all__ = [
    "EmptyReferenceError",
    "Normaliser",
    "Rule",
    "WordErrors",
    "check_reference",
    "normaliser",
    "normaliser_named",
    "normaliser_names",
    "step_errors",
    "unified",
    "word_errors",
]
