"""A speech model as the adaptation needs it: loading, families, prompt, features, decoding policy, candidates."""

from emtta_core.model.load import load_model
from emtta_core.model.speech_model import SpeechModel

__all__ = ["SpeechModel", "load_model"]
