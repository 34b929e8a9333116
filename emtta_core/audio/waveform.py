"""The waveform format used throughout, detection of speech in one, and where to cut a long one."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emtta_core.errors import AudioError

SAMPLE_RATE = 16_000
"""The sample rate of every waveform, in Hz."""

Waveform = NDArray[np.float32]
"""Mono samples at `SAMPLE_RATE`, shape `(N,)`, full scale 1.0."""

SILENCE_PEAK = 1e-5
"""A waveform whose peak is below this (-100 dB FS, a third of a 16-bit step) is silent."""


def checked(samples: ArrayLike, what: str) -> NDArray[np.float64]:
    """Check `samples`, shape `(N,)`, and return them in double precision, for arithmetic.

    Args:
        samples: what should be a waveform.
        what: its name in error messages, such as "the noise".

    Raises:
        AudioError: when it is not a one-dimensional floating-point array, is empty, or contains NaN or infinity.
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
            f"{what} has {bad.size} of {array.size} samples that are not finite: sample {bad[0]} is {array[bad[0]]}"
        )
    return array.astype(np.float64)


def refuse_silence(samples: NDArray[np.float64], what: str) -> None:
    """Refuse a silent waveform.

    Raises:
        AudioError: when the peak of `samples` is below `SILENCE_PEAK`; `what` is its name in the message.
    """
    peak = float(np.abs(samples).max())
    if peak < SILENCE_PEAK:
        raise AudioError(f"{what} is silent: its peak is {peak:.3g} of full scale, below {SILENCE_PEAK:g}")


FRAME = SAMPLE_RATE // 50
"""Samples of a frame: 20 ms."""

RANGE_DB = 30.0
"""A frame is speech if its level is at most this many dB below that of the loud frames (the 95th percentile)."""

HANGOVER = 10
"""Frames after speech that still count as speech: 200 ms."""


def speech_mask(samples: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Find which samples are speech, shape `(N,)`; the loudest always are.

    Args:
        samples: clean speech that is not silent, shape `(N,)`.
    """
    return np.repeat(active_frames(frame_powers(samples)), FRAME)[: samples.size]


def frame_powers(samples: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """The mean power of each frame of `FRAME` samples, the last padded with zeros."""
    # Rounded up: -(-a // b).
    frames = -(-samples.size // FRAME)
    powers: NDArray[np.floating[Any]] = (
        np.square(np.pad(samples, (0, frames * FRAME - samples.size))).reshape(frames, FRAME).mean(axis=1)
    )
    return powers


def active_frames(powers: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Find which frames are speech, from the power of each; the loudest always are."""
    loud = float(np.quantile(powers, 0.95)) or float(powers.max())  # the maximum if nearly all is digital silence
    active = powers >= loud * 10 ** (-RANGE_DB / 10)
    # A frame also counts if any within the hangover before it does.
    recent: NDArray[np.bool_] = np.convolve(active, np.ones(HANGOVER + 1))[: len(powers)] > 0
    return recent


MIN_WINDOW = 0.5
"""A window is at least this share of the longest: cuts are searched for after it."""

MIN_LAST_WINDOW = 0.1
"""At least this share of the longest is left for the last window."""

SMOOTH = 11
"""Frames over which levels are averaged if there is no pause: 220 ms, so that no single quiet period is chosen."""


def windows_of(waveform: NDArray[np.floating[Any]], longest: int) -> list[slice]:
    """Choose where to cut a waveform, as slices of it, in order and without a gap.

    A cut is in the middle of the longest pause between half and the whole of the longest window, the last of equally
    long ones; if there is no pause, at the quietest place.

    Args:
        waveform: shape `(N,)`; one that fits is one window.
        longest: the maximum samples of a window; at least 40 frames of 20 ms.
    """
    if len(waveform) <= longest:
        return [slice(0, len(waveform))]
    powers = frame_powers(waveform)
    silent = ~active_frames(powers)
    levels = np.convolve(powers, np.ones(SMOOTH) / SMOOTH, mode="same")
    cuts = [0]
    while len(waveform) - cuts[-1] > longest:
        begin = cuts[-1] + MIN_WINDOW * longest
        end = min(cuts[-1] + longest, len(waveform) - MIN_LAST_WINDOW * longest)
        first, last = int(np.ceil(begin / FRAME)), int(end / FRAME)
        frame = first + _pause(silent[first:last], levels[first:last])
        cuts.append(frame * FRAME + FRAME // 2)
    return [slice(begin, end) for begin, end in zip(cuts, [*cuts[1:], len(waveform)], strict=True)]


def _pause(silent: NDArray[np.bool_], levels: NDArray[np.floating[Any]]) -> int:
    # The middle of the longest run of silent frames, or else the quietest frame; ties go to the last.
    # Where silence begins and ends, alternately; a frame that is not silent is added before and after all.
    edges = np.flatnonzero(np.diff(np.concatenate([[False], silent, [False]])))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return len(levels) - 1 - int(np.argmin(levels[::-1]))
    lengths = ends - starts
    chosen = len(lengths) - 1 - int(np.argmax(lengths[::-1]))
    return int(starts[chosen] + ends[chosen] - 1) // 2
