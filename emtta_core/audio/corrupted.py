"""The common parts of corruptions: their result, the libraries they may need, and shared helpers."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import numpy as np
import soundfile
import soxr

from emtta_core.audio.mix import LEVEL_DBFS, scale_back, scale_to_dbfs
from emtta_core.audio.spectrum import Samples
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform
from emtta_core.errors import UsageError

Voices = Callable[[int], Sequence[Waveform]]
"""Returns the given number of pieces of clean speech, each `(N,)`, of other speakers; always the same ones."""


@dataclass(frozen=True, slots=True)
class Corrupted:
    """Corrupted speech."""

    waveform: Waveform  # shape `(N,)`, the clean speech's unless its speed was changed; within full scale
    gain: float  # the factor that scaled it back because it exceeded full scale; 1.0 if it did not
    snr_db: float | None  # the mixture's signal-to-noise ratio in dB; None if there is no noise


EXTRA = "pip install 'emtta[corruptions]'"
"""The command that installs the optional libraries."""

_MODULES = {"pyroomacoustics": "pyroomacoustics", "python-stretch": "python_stretch"}


@cache
def release(library: str, needed_by: str) -> str:
    """The installed release of a library.

    Args:
        library: its name on PyPI, or `libsndfile`, which comes with soundfile.
        needed_by: the corruption that needs it.

    Raises:
        UsageError: it is not installed; gives the command that installs it.
    """
    if library == "libsndfile":
        return str(soundfile.__libsndfile_version__)
    try:
        return version(library)
    except PackageNotFoundError as error:
        raise UsageError(
            f"the corruption {needed_by!r} needs {library}, which is not installed; {EXTRA}, or omit its domains"
        ) from error


def load(library: str, needed_by: str) -> ModuleType:
    """Import a library lazily, since that takes seconds.

    Raises:
        UsageError: it is not installed; gives the command that installs it.
    """
    release(library, needed_by)
    return importlib.import_module(_MODULES[library])


TELEPHONE_RATE = 8000
"""The sample rate of telephones and their codecs, in Hz."""


def levelled(samples: Samples, snr_db: float | None = None) -> Corrupted:
    """Scale samples to -25 dB FS RMS, and back to a peak of 1 if they exceed full scale."""
    scaled = scale_back(scale_to_dbfs(samples, LEVEL_DBFS))
    return Corrupted(scaled.waveform, scaled.gain, snr_db)


def fitted(samples: Samples, length: int) -> Samples:
    """Cut or zero-pad samples to `length`, as codecs work in whole frames."""
    return np.pad(samples[:length], (0, max(0, length - samples.size)))


def to_telephone(samples: Samples) -> Samples:
    """Resample from 16 kHz to 8 kHz, shape `(ceil(N / 2),)`, within full scale."""
    half = soxr.resample(samples, SAMPLE_RATE, TELEPHONE_RATE)
    return np.clip(fitted(half.astype(np.float64), -(-samples.size // 2)), -1, 1)


def from_telephone(samples: Samples, length: int) -> Samples:
    """Resample from 8 kHz to `length` samples at 16 kHz."""
    resampled = soxr.resample(samples, TELEPHONE_RATE, SAMPLE_RATE)
    return fitted(resampled.astype(np.float64), length)
