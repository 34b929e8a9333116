"""What the recipes are put together from: slow drifts, periodic tones, trains of events, and bursts."""

import numpy as np

from emtta_core.audio.spectrum import Response, Samples, coloured_noise
from emtta_core.audio.waveform import SAMPLE_RATE


def clock(samples: int) -> Samples:
    """Return the time of each sample in seconds, shape `(samples,)`."""
    return np.arange(samples) / SAMPLE_RATE


def drift(samples: int, rng: np.random.Generator, hertz: float) -> Samples:
    """Return a random curve, shape `(samples,)`, within -1 and 1, that turns about `hertz` times a second."""
    knots = rng.uniform(-1, 1, int(samples / SAMPLE_RATE * hertz) + 2)
    return np.interp(clock(samples) * hertz, np.arange(knots.size), knots)


def tone(hertz: Samples, rng: np.random.Generator, levels: Samples) -> Samples:
    """Return a periodic sound of unit RMS, shape `(N,)`, whose pitch may move.

    Args:
        hertz: the pitch at each sample, shape `(N,)`.
        rng: draws the phases of the harmonics.
        levels: the amplitude of harmonic 1, 2, …; those above half the sample rate are left out.
    """
    kept = levels[: max(1, int(SAMPLE_RATE / 2 / hertz.max()))]
    spectrum = np.zeros(_PERIOD // 2 + 1, dtype=np.complex128)
    spectrum[1 : kept.size + 1] = kept * np.exp(2j * np.pi * rng.random(kept.size))
    period = np.fft.irfft(spectrum)
    period /= np.sqrt(np.mean(period**2))
    phase = rng.random() + np.cumsum(hertz) / SAMPLE_RATE
    sound: Samples = np.interp(phase % 1 * _PERIOD, np.arange(_PERIOD + 1), np.append(period, period[0]))
    return sound


_PERIOD = 2048
"""Samples in the table that holds one period of a `tone`."""


def times(seconds: float, rng: np.random.Generator, shortest: float, longest: float) -> Samples:
    """Return the times of irregular events in seconds: intervals uniform between `shortest` and `longest`.

    The first comes within one `shortest`, so that no stretch of `longest` is without an event. Shape `(E,)`.
    """
    intervals = rng.uniform(shortest, longest, int(seconds / shortest) + 1)
    starts = rng.uniform(0, shortest) + np.cumsum(intervals) - intervals
    return starts[starts < seconds]


def burst(seconds: float, rng: np.random.Generator, response: Response, decay: float) -> Samples:
    """Return a burst of noise: colour `response`, falling by 1/e in `decay` seconds, cut after `seconds`."""
    samples = int(seconds * SAMPLE_RATE)
    return coloured_noise(samples, rng, response) * np.exp(-clock(samples) / decay)


def ring(seconds: float, hertz: float, decay: float) -> Samples:
    """Return a struck body: a sine at `hertz` that falls by 1/e in `decay` seconds, cut after `seconds`."""
    time = clock(int(seconds * SAMPLE_RATE))
    return np.sin(2 * np.pi * hertz * time) * np.exp(-time / decay)


def placed(samples: int, starts: Samples, levels: Samples, sound: Samples) -> Samples:
    """Return `sound` begun at each of `starts` (seconds, shape `(E,)`) at its level, summed: `(samples,)`."""
    total = np.zeros(samples + sound.size)
    for start, level in zip((starts * SAMPLE_RATE).astype(int), levels, strict=True):
        if 0 <= start < samples:
            total[start : start + sound.size] += level * sound
    return total[:samples]


def spread_levels(count: int, rng: np.random.Generator, spread_db: float) -> Samples:
    """Return `count` amplitudes, shape `(count,)`, spread about 1 by a normal deviate of `spread_db` dB."""
    return 10 ** (rng.normal(0, spread_db, count) / 20)
