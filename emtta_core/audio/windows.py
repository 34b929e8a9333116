"""Cutting a long waveform into windows where nobody speaks.

Pauses are found by `emtta_core.audio.activity`: by level alone, so that the same waveform is always cut at the same
samples. Nothing is lost and nothing heard twice: one window ends where the next begins.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emtta_core.audio.activity import FRAME, active_frames, frame_powers

EARLIEST = 0.5
"""A window is at least this share of the longest: a cut is looked for behind it."""

REST = 0.1
"""At least this share of the longest is left for the last window."""

SMOOTH = 11
"""Frames over which levels are averaged where there is no pause: 220 ms, so that no single quiet period is taken."""


def windows_of(waveform: NDArray[np.floating[Any]], longest: int) -> list[slice]:
    """Return where to cut a waveform, as slices of it, in order and without a gap.

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
    """Return the middle of the longest run of silent frames, or else the quietest frame; the last one of several."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], silent, [False]])))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return len(levels) - 1 - int(np.argmin(levels[::-1]))
    lengths = ends - starts
    chosen = len(lengths) - 1 - int(np.argmax(lengths[::-1]))
    return int(starts[chosen] + ends[chosen] - 1) // 2
