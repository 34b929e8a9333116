"""What a waveform is throughout the system, and the check that a thing is one."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emtta_core.errors import AudioError

SAMPLE_RATE = 16_000
"""Hz, of every waveform in the system."""

Waveform = NDArray[np.float32]
"""Mono samples at `SAMPLE_RATE`, shape `(N,)`, full scale 1.0."""

SILENCE_PEAK = 1e-5
"""A waveform whose peak is below this (-100 dB FS, a third of a 16-bit step) is silent."""


def checked(samples: ArrayLike, what: str) -> NDArray[np.float64]:
    """Check `samples`, shape `(N,)`, and give them in double precision, for arithmetic.

    Args:
        samples: what should be a waveform.
        what: how the message of a refusal calls it, such as "the noise".

    Raises:
        AudioError: when it is no floating-point array of one dimension, is empty, or holds NaN or infinity.
    """
    array = np.asarray(samples)
    if not np.issubdtype(array.dtype, np.floating):
        raise AudioError(
            f"{what} has samples of type {array.dtype}; it must be floating point with full scale 1.0 "
            "(divide 16-bit integers by 32768)"
        )
    if array.ndim != 1:
        raise AudioError(f"{what} has shape {array.shape}; it must be mono, of shape (samples,)")
    if array.size == 0:
        raise AudioError(f"{what} is empty (0 samples)")
    finite = np.isfinite(array)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise AudioError(
            f"{what} holds {bad.size} of {array.size} samples that are not numbers: sample {bad[0]} is {array[bad[0]]}"
        )
    return array.astype(np.float64)


def refuse_silence(samples: NDArray[np.float64], what: str) -> None:
    """Refuse a silent waveform.

    Raises:
        AudioError: when the peak of `samples` is below `SILENCE_PEAK`; `what` is how the message calls it.
    """
    peak = float(np.abs(samples).max())
    if peak < SILENCE_PEAK:
        raise AudioError(f"{what} is silent: its peak is {peak:.3g} of full scale, below {SILENCE_PEAK:g}")
