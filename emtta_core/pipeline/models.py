"""The model of a run, loaded once a process and shared by its cells."""

import threading

from emtta_core.model import SpeechModel, load_model
from emtta_core.suite import ModelChoice

_lock = threading.Lock()
_loaded: dict[str, SpeechModel] = {}


def digest_of(choice: ModelChoice) -> str:
    """Return the digest of the model that a suite names; no GPU is used for it.

    Raises:
        ModelError: there is no such model, or it is not of a kind that can be adapted.
    """
    return model_of(choice.model_copy(update={"device": "cpu", "precision": "float32"})).digest


def model_of(choice: ModelChoice) -> SpeechModel:
    """Return the model that a suite names; of several, only the last stays in memory.

    Raises:
        ModelError: there is no such model, or it is not of a kind that can be adapted.
        UsageError: there is no such device or precision.
    """
    key = choice.model_dump_json()
    with _lock:
        if key not in _loaded:
            _loaded.clear()
            _loaded[key] = load_model(
                choice.name, device=choice.device, precision=choice.precision, revision=choice.revision
            )
        return _loaded[key]
