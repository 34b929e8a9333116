"""Levels: root mean square in decibels relative to full scale, and scaling to one.

0 dB FS is the level of a square wave of full scale, so a sine of full scale has -3.01 dB FS.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emtta_core.audio.waveform import Waveform, checked, refuse_silence
from emtta_core.errors import AudioError


class ScaledBack(NamedTuple):
    """A waveform within full scale.

    Attributes:
        waveform: shape `(N,)`, within -1 and 1.
        gain: the factor that brought it there; 1.0 where nothing had to be done.
    """

    waveform: Waveform
    gain: float


def rms(samples: NDArray[np.float64]) -> float:
    """Return the root mean square of `samples`, shape `(N,)`, as a fraction of full scale."""
    return math.sqrt(float(np.mean(np.square(samples))))


def rms_dbfs(waveform: ArrayLike) -> float:
    """Return the level of `waveform`, shape `(N,)`, in dB FS RMS; minus infinity for digital silence.

    Raises:
        AudioError: when it is no waveform, or is empty, or holds NaN or infinity.
    """
    level = rms(checked(waveform, "the waveform"))
    return 20 * math.log10(level) if level > 0 else -math.inf


def scale_to_dbfs(waveform: ArrayLike, dbfs: float = -25.0) -> Waveform:
    """Return `waveform`, shape `(N,)`, scaled to a level of `dbfs` dB FS RMS; its peaks may pass full scale.

    Raises:
        AudioError: when it is no waveform, or is empty or silent, or holds NaN or infinity; or when `dbfs` is
            not finite.
    """
    if not math.isfinite(dbfs):
        raise AudioError(f"a level of {dbfs} dB FS cannot be reached; it must be a finite number such as -25")
    samples = checked(waveform, "the waveform")
    refuse_silence(samples, "the waveform")
    return (samples * (10 ** (dbfs / 20) / rms(samples))).astype(np.float32)


def scale_back(waveform: ArrayLike) -> ScaledBack:
    """Return `waveform`, shape `(N,)`, as it is if it is within full scale, else scaled down to a peak of 1.

    Nothing is clipped: the shape of the sound stays, and the gain tells by how much it was turned down.

    Raises:
        AudioError: when it is no waveform, or is empty, or holds NaN or infinity.
    """
    samples = checked(waveform, "the waveform")
    gain = min(1.0, 1.0 / max(float(np.abs(samples).max()), 1.0))
    return ScaledBack((samples * gain).astype(np.float32), gain)
