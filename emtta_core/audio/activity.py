"""Where in a waveform there is speech, by its level alone, and where a long one can be cut into windows."""

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
    """Find which samples are speech, shape `(N,)`; the loudest always are.

    Args:
        samples: clean speech that is not silent, shape `(N,)`.
    """
    return np.repeat(active_frames(frame_powers(samples)), FRAME)[: samples.size]


def frame_powers(samples: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """The mean power of each frame of `FRAME` samples, the last filled up with zeros."""
    # Rounded up: -(-a // b).
    frames = -(-samples.size // FRAME)
    powers: NDArray[np.floating[Any]] = (
        np.square(np.pad(samples, (0, frames * FRAME - samples.size))).reshape(frames, FRAME).mean(axis=1)
    )
    return powers


def active_frames(powers: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Find which frames are speech, from the power of each; the loudest always are."""
    loud = float(np.quantile(powers, 0.95)) or float(powers.max())  # the maximum where nearly all is digital silence
    active = powers >= loud * 10 ** (-RANGE_DB / 10)
    # A frame counts if any of the ones before it does, as far back as the hangover reaches.
    recent: NDArray[np.bool_] = np.convolve(active, np.ones(HANGOVER + 1))[: len(powers)] > 0
    return recent


EARLIEST = 0.5
"""A window is at least this share of the longest: a cut is looked for behind it."""

REST = 0.1
"""At least this share of the longest is left for the last window."""

SMOOTH = 11
"""Frames over which levels are averaged where there is no pause: 220 ms, so that no single quiet period is taken."""


def windows_of(waveform: NDArray[np.floating[Any]], longest: int) -> list[slice]:
    """Choose where to cut a waveform, as slices of it, in order and without a gap.

    A cut lies in the middle of the longest pause between half and the whole of the longest window, the last one of
    several as long; where there is none, at the quietest place.

    Args:
        waveform: shape `(N,)`; one that fits is one window.
        longest: samples that a window may have; at least 40 frames of 20 ms.
    """
    if len(waveform) <= longest:
        return [slice(0, len(waveform))]
    powers = frame_powers(waveform)
    silent = ~active_frames(powers)
    levels = np.convolve(powers, np.ones(SMOOTH) / SMOOTH, mode="same")
    cuts = [0]
    while len(waveform) - cuts[-1] > longest:
        begin = cuts[-1] + EARLIEST * longest
        end = min(cuts[-1] + longest, len(waveform) - REST * longest)
        first, behind = int(np.ceil(begin / FRAME)), int(end / FRAME)
        frame = first + _pause(silent[first:behind], levels[first:behind])
        cuts.append(frame * FRAME + FRAME // 2)
    return [slice(begin, end) for begin, end in zip(cuts, [*cuts[1:], len(waveform)], strict=True)]


def _pause(silent: NDArray[np.bool_], levels: NDArray[np.floating[Any]]) -> int:
    # The middle of the longest run of silent frames, or else the quietest frame; the last one of several.
    # Where silence begins and ends, in turn; a frame that is not silent stands before and behind all.
    edges = np.flatnonzero(np.diff(np.concatenate([[False], silent, [False]])))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return len(levels) - 1 - int(np.argmin(levels[::-1]))
    lengths = ends - starts
    chosen = len(lengths) - 1 - int(np.argmax(lengths[::-1]))
    return int(starts[chosen] + ends[chosen] - 1) // 2
