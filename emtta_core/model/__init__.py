"""Speech models as needed for adaptation: loading, families, prompts, features, decoding policy, candidates.

Modules that need torch are imported lazily, so that finding a model's files is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emtta_core.model.load import load_model
    from emtta_core.model.speech_model import Model, SpeechModel
    from emtta_core.model.transformers_model import TransformersModel

__all__ = ["Model", "SpeechModel", "TransformersModel", "load_model"]

_MODULES = {
    "Model": "emtta_core.model.speech_model",
    "SpeechModel": "emtta_core.model.speech_model",
    "TransformersModel": "emtta_core.model.transformers_model",
    "load_model": "emtta_core.model.load",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
