"""Where in an utterance there is speech, by its level alone.

A simple measure for clean recordings, in the spirit of the active speech level of ITU-T P.56 (a level below the
speech's own, and a hangover of 200 ms that keeps the short pauses between words), without its exact procedure.
"""

from typing import Any

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
    return np.repeat(active_frames(frame_powers(samples)), FRAME)[: samples.size]


def frame_powers(samples: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the mean power of each frame of `FRAME` samples, the last filled up with zeros."""
    frames = -(-samples.size // FRAME)
    powers: NDArray[np.floating[Any]] = (
        np.square(np.pad(samples, (0, frames * FRAME - samples.size))).reshape(frames, FRAME).mean(axis=1)
    )
    return powers


def active_frames(powers: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Return which frames are speech, from the power of each; the loudest always are."""
    loud = float(np.quantile(powers, 0.95)) or float(powers.max())  # the maximum where nearly all is digital silence
    active = powers >= loud * 10 ** (-RANGE_DB / 10)
    recent: NDArray[np.bool_] = np.convolve(active, np.ones(HANGOVER + 1))[: len(powers)] > 0
    return recent
