"""Scoring: text normalized as Whisper's evaluation does it, and its word and character errors."""

from emtta_core.scoring.normalizer import Normalizer, Rule, normalizer, normalizer_named, normalizer_names, unified
from emtta_core.scoring.wer import EmptyReferenceError, WordErrors, check_reference, step_errors, word_errors

__all__ = [
    "EmptyReferenceError",
    "Normalizer",
    "Rule",
    "WordErrors",
    "check_reference",
    "normalizer",
    "normalizer_named",
    "normalizer_names",
    "step_errors",
    "unified",
    "word_errors",
]
