"""Test-time adaptation by entropy minimisation, many utterances side by side."""

from emtta_core.adaptation.adapter import Adapter
from emtta_core.adaptation.methods import METHODS, Method, method
from emtta_core.adaptation.objective import Loss, em_loss
from emtta_core.adaptation.results import AdaptationResult, StepRecord

ALGORITHM_VERSION = 1
"""Raised whenever the same suite, model and audio may give another result than before."""

__all__ = [
    "ALGORITHM_VERSION",
    "METHODS",
    "AdaptationResult",
    "Adapter",
    "Loss",
    "Method",
    "StepRecord",
    "em_loss",
    "method",
]
