"""Sounds in the frequency domain: filters and reverberation, spectrograms, and distances between sounds.

The noises need sounds of a given colour, not filters of a given structure. A filter is therefore a function from
frequencies in Hz to gains, without phase, and is applied by one discrete Fourier transform of the whole sound.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emtta_core.audio.waveform import SAMPLE_RATE, checked, refuse_silence

Samples = NDArray[np.float64]
"""Samples in double precision, shape `(N,)`."""

Response = Callable[[Samples], Samples]
"""Gains for frequencies in Hz; both shape `(F,)`."""


_RINGING = 4096
"""Samples of silence after a filtered sound, in which the filter may ring: a quarter of a second."""


def low_pass(hertz: float, order: int = 2) -> Response:
    """The gains of a Butterworth low-pass: -3 dB at `hertz`, falling by 6·`order` dB per octave."""
    return lambda frequencies: 1 / np.sqrt(1 + (frequencies / hertz) ** (2 * order))


def high_pass(hertz: float, order: int = 2) -> Response:
    """The gains of a Butterworth high-pass: -3 dB at `hertz`, falling by 6·`order` dB per octave."""
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
    """Draw Gaussian noise of colour `response`, shape `(samples,)`, with an expected RMS of 1."""
    size = _fast_size(samples)
    gains = response(_frequencies(size))
    spectrum = rng.standard_normal((2, gains.size)) * gains
    noise = np.fft.irfft(spectrum[0] + 1j * spectrum[1], size)[:samples]
    # By Parseval: the real and imaginary parts have variance gain² each, and the real transform counts them twice.
    return noise * (size / (2 * math.sqrt(float(np.sum(gains**2)))))


def reverberated(samples: Samples, rng: np.random.Generator, seconds: float, wet: float) -> Samples:
    """Add the reverberation of a room to `samples`; the shape is unchanged.

    The room's impulse response is Gaussian noise with an exponential decay.

    Args:
        samples: the dry sound.
        rng: draws the room.
        seconds: the time in which the reverberation falls by 60 dB.
        wet: the RMS level of the reverberation of a steady sound, relative to the direct sound.
    """
    length = int(seconds * SAMPLE_RATE)
    # -60 dB is a factor of 10^-3 in amplitude.
    tail = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    tail *= wet / np.sqrt(np.sum(tail**2))
    size = _fast_size(samples.size + length)
    echo = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)
    return samples + echo[: samples.size]


def _frequencies(size: int) -> Samples:
    # The frequencies in Hz of a real transform of `size` samples, shape `(size / 2 + 1,)`.
    return np.linspace(0, SAMPLE_RATE / 2, size // 2 + 1, dtype=np.float64)


def _fast_size(samples: int) -> int:
    # The smallest power of two, at least 2, that `samples` fit into: the fastest size to transform.
    return 1 << max(1, (samples - 1).bit_length())


WINDOW = 400
"""Samples in a window of a spectrogram: 25 ms."""

HOP = 160
"""Samples from one window to the next: 10 ms."""

RANGE_DB = 80.0
"""Anything further below the loudest counts as silent, as in Whisper's own spectrogram."""

_BANDS = 64


def spectrogram_db(waveform: ArrayLike, window: int = WINDOW, hop: int = HOP) -> NDArray[np.float64]:
    """The power of each frequency at each time in dB relative to the loudest, shape `(window / 2 + 1, frames)`.

    Args:
        waveform: shape `(N,)`.
        window: samples in a Hann window.
        hop: samples from one window to the next.

    Raises:
        AudioError: when it is not a waveform, is empty or silent, or contains NaN or infinity.
    """
    samples = checked(waveform, "the waveform")
    refuse_silence(samples, "the waveform")
    padded = np.pad(samples, (window // 2, window // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    return _decibels(np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)).T ** 2)


def spectral_distance_db(clean: ArrayLike, corrupted: ArrayLike) -> float:
    """The mean difference of two sounds in 64 mel bands, in dB, whatever their levels.

    Each is compared in the 80 dB below its own maximum. The shorter one is stretched to the other's length.

    Raises:
        AudioError: when one is not a waveform, is empty or silent, or contains NaN or infinity.
    """
    spectra = [_mel_db(samples) for samples in (clean, corrupted)]
    frames = max(bands.shape[1] for bands in spectra)
    a, b = (bands[:, np.arange(frames) * bands.shape[1] // frames] for bands in spectra)
    return float(np.abs(a - b).mean())


def signal_to_distortion_db(clean: ArrayLike, corrupted: ArrayLike) -> float | None:
    """The scale-invariant signal-to-distortion ratio: the part of `corrupted` that is `clean`, relative to the rest.

    None if the lengths differ. Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, equation 3.

    Raises:
        AudioError: when one is not a waveform, is empty or silent, or contains NaN or infinity.
    """
    speech, noisy = checked(clean, "the clean speech"), checked(corrupted, "the corrupted speech")
    refuse_silence(speech, "the clean speech")
    refuse_silence(noisy, "the corrupted speech")
    if speech.size != noisy.size:
        return None
    part = speech * (float(speech @ noisy) / float(speech @ speech))
    signal, distortion = float(part @ part), float(np.sum(np.square(noisy - part)))
    if not distortion:
        return math.inf
    return 10 * math.log10(signal / distortion) if signal else -math.inf


def _mel_db(waveform: ArrayLike) -> NDArray[np.float64]:
    # The power in each mel band at each time in dB relative to the loudest, shape `(bands, frames)`.
    power = 10 ** (spectrogram_db(waveform) / 10)
    hertz = np.linspace(0, SAMPLE_RATE / 2, power.shape[0])
    mel = 2595 * np.log10(1 + hertz / 700)
    centres = np.linspace(mel[0], mel[-1], _BANDS + 2)
    width = centres[1] - centres[0]
    weights = np.maximum(0, 1 - np.abs(mel[None, :] - centres[1:-1, None]) / width)
    return _decibels(weights @ power)


def _decibels(power: NDArray[np.float64]) -> NDArray[np.float64]:
    # Power in dB relative to its maximum, limited to 80 dB below it.
    decibels: NDArray[np.float64] = np.maximum(10 * np.log10(np.maximum(power / power.max(), 1e-12)), -RANGE_DB)
    return decibels
