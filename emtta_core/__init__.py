"""Test-time adaptation of speech recognisers by entropy minimisation: the method, and its evaluation.

    from emtta_core import Adapter, em_loss, load_model, mix_at_snr, open_store, read_audio

They are imported on first use, so that `import emtta_core` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emtta_core.adaptation.adapter import Adapter
    from emtta_core.adaptation.objective import em_loss
    from emtta_core.audio.files import read_audio
    from emtta_core.audio.mix import mix_at_snr
    from emtta_core.model.load import load_model
    from emtta_core.store.catalogue import open_store

    __version__: str

__all__ = ["Adapter", "__version__", "em_loss", "load_model", "mix_at_snr", "open_store", "read_audio"]

_MODULES = {
    "Adapter": "emtta_core.adaptation.adapter",
    "em_loss": "emtta_core.adaptation.objective",
    "load_model": "emtta_core.model.load",
    "mix_at_snr": "emtta_core.audio.mix",
    "open_store": "emtta_core.store.catalogue",
    "read_audio": "emtta_core.audio.files",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("emtta")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*globals(), *__all__])
