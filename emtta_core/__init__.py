"""Test-time adaptation of speech recognisers by entropy minimisation: the method, and its evaluation.

    from emtta_core import Adapter, load_model, mix_at_snr, open_store

They are imported when first asked for, so that `import emtta_core` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emtta_core.adaptation.adapter import Adapter
    from emtta_core.audio.mix import mix_at_snr
    from emtta_core.model.load import load_model
    from emtta_core.store.opened import open_store

__all__ = ["Adapter", "load_model", "mix_at_snr", "open_store"]

_HOMES = {
    "Adapter": "emtta_core.adaptation.adapter",
    "load_model": "emtta_core.model.load",
    "mix_at_snr": "emtta_core.audio.mix",
    "open_store": "emtta_core.store.opened",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*globals(), *__all__])
