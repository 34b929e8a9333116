"""Filters and reverberation in the frequency domain: a gain for each frequency, and no phase.

The noises need sounds of a given colour, not filters of a given structure. So a filter is a function from
frequencies in Hz to gains, and is applied by one discrete Fourier transform of the whole sound.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from emtta_core.audio.waveform import SAMPLE_RATE

Samples = NDArray[np.float64]
"""Samples in double precision, shape `(N,)`."""

Response = Callable[[Samples], Samples]
"""Gains for frequencies in Hz; both shape `(F,)`."""


_RINGING = 4096
"""Samples of silence behind a sound that is filtered, in which the filter may ring: a quarter of a second."""


def low_pass(hertz: float, order: int = 2) -> Response:
    """The gains of a Butterworth low-pass: -3 dB at `hertz`, falling by 6·`order` dB an octave."""
    return lambda frequencies: 1 / np.sqrt(1 + (frequencies / hertz) ** (2 * order))


def high_pass(hertz: float, order: int = 2) -> Response:
    """The gains of a Butterworth high-pass: -3 dB at `hertz`, falling by 6·`order` dB an octave."""
    return lambda frequencies: 1 / np.sqrt(1 + (hertz / np.maximum(frequencies, 1e-3)) ** (2 * order))


def band_pass(low: float, high: float, order: int = 2) -> Response:
    """The gains that keep what lies between `low` and `high`, both in Hz."""
    rising, falling = high_pass(low, order), low_pass(high, order)
    return lambda frequencies: rising(frequencies) * falling(frequencies)


def filtered(samples: Samples, response: Response) -> Samples:
    """Scale each frequency of `samples` by `response`; nothing wraps from the end to the start."""
    size = _fast_size(samples.size + _RINGING)
    spectrum = np.fft.rfft(samples, size) * response(_frequencies(size))
    return np.fft.irfft(spectrum, size)[: samples.size]


def coloured_noise(samples: int, rng: np.random.Generator, response: Response) -> Samples:
    """Draw Gaussian noise of the colour `response`, shape `(samples,)`, of unit RMS in the mean."""
    size = _fast_size(samples)
    gains = response(_frequencies(size))
    spectrum = rng.standard_normal((2, gains.size)) * gains
    noise = np.fft.irfft(spectrum[0] + 1j * spectrum[1], size)[:samples]
    # By Parseval: each of the two parts of a frequency has variance gain², and the real transform counts it twice.
    return noise * (size / (2 * math.sqrt(float(np.sum(gains**2)))))


def reverberated(samples: Samples, rng: np.random.Generator, seconds: float, wet: float) -> Samples:
    """Convolve `samples` with a room, shape as before: the direct sound, and its reverberation.

    The room's impulse response is Gaussian noise with an exponential decay.

    Args:
        samples: the dry sound.
        rng: draws the room.
        seconds: the time in which the reverberation falls by 60 dB.
        wet: the RMS level of the reverberation of a steady sound, relative to the direct sound.
    """
    length = int(seconds * SAMPLE_RATE)
    # 60 dB are a factor of 10^-3 in amplitude.
    tail = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    tail *= wet / np.sqrt(np.sum(tail**2))
    size = _fast_size(samples.size + length)
    echo = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)
    return samples + echo[: samples.size]


def _frequencies(size: int) -> Samples:
    # The frequencies in Hz of a real transform of `size` samples, shape `(size / 2 + 1,)`.
    return np.linspace(0, SAMPLE_RATE / 2, size // 2 + 1, dtype=np.float64)


def _fast_size(samples: int) -> int:
    # The power of two, at least 2, that `samples` fit into: no size transforms faster.
    return 1 << max(1, (samples - 1).bit_length())
