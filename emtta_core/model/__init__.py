"""Whisper as the adaptation needs it: loading, prompt, log-mel, the decoding policy, and candidates."""

from emtta_core.model.load import load_model
from emtta_core.model.speech_model import SpeechModel

__all__ = ["SpeechModel", "load_model"]
