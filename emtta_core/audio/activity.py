"""Where in an utterance there is speech, by its level alone.

A simple measure for clean recordings, in the spirit of the active speech level of ITU-T P.56 (a level below the
speech's own, and a hangover of 200 ms that keeps the short pauses between words), without its exact procedure.
"""

import numpy as np
from numpy.typing import NDArray

from emtta_core.audio.waveform import SAMPLE_RATE

FRAME = SAMPLE_RATE // 50
"""Samples of a frame: 20 ms."""

RANGE_DB = 30.0
"""A frame is speech whose level is no further below that of the loud frames (their 95th percentile)."""

HANGOVER = 10
"""Frames after speech that still count as speech: 200 ms."""


def speech_mask(samples: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which samples are speech, shape `(N,)`; the loudest always are.

    Args:
        samples: clean speech that is not silent, shape `(N,)`.
    """
    frames = -(-samples.size // FRAME)
    power = np.square(np.pad(samples, (0, frames * FRAME - samples.size))).reshape(frames, FRAME).mean(axis=1)
    loud = float(np.quantile(power, 0.95)) or float(power.max())  # the maximum where nearly all is digital silence
    active = power >= loud * 10 ** (-RANGE_DB / 10)
    recent = np.convolve(active, np.ones(HANGOVER + 1))[:frames] > 0
    return np.repeat(recent, FRAME)[: samples.size]
