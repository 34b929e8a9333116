"""What a waveform is throughout the system, where in one there is speech, and where a long one can be cut."""

from typing import Any

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
