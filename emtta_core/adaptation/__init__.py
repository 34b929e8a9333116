"""Test-time adaptation by entropy minimisation, many utterances in one batch.

Modules that need torch are imported lazily, so that listing the methods or planning a run is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from emtta_core.adaptation.methods import METHODS, Method, Objective, method
from emtta_core.adaptation.options import Options
from emtta_core.adaptation.parts import CandidateRequest, PluginError, Utterances
from emtta_core.adaptation.results import AdaptationResult, StepRecord

if TYPE_CHECKING:
    from emtta_core.adaptation.adapter import Adapter
    from emtta_core.adaptation.objective import Loss, em_loss
    from emtta_core.adaptation.scored import ScoredCandidates

ALGORITHM_VERSION = 2
"""Incremented whenever the same suite, model and audio may give a different result than before."""

__all__ = [
    "ALGORITHM_VERSION",
    "METHODS",
    "AdaptationResult",
    "Adapter",
    "CandidateRequest",
    "Loss",
    "Method",
    "Objective",
    "Options",
    "PluginError",
    "ScoredCandidates",
    "StepRecord",
    "Utterances",
    "em_loss",
    "method",
]

_MODULES = {
    "Adapter": "emtta_core.adaptation.adapter",
    "Loss": "emtta_core.adaptation.objective",
    "ScoredCandidates": "emtta_core.adaptation.scored",
    "em_loss": "emtta_core.adaptation.objective",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
