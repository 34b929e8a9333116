"""How far corrupted speech is from the clean speech: in the waveform, and in what a recogniser sees of it."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emtta_core.audio.waveform import SAMPLE_RATE, checked, refuse_silence

WINDOW = 400
"""Samples of a window of a spectrogram: 25 ms."""

HOP = 160
"""Samples from one window to the next: 10 ms."""

RANGE_DB = 80.0
"""What is further below the loudest is as good as silent; Whisper's own spectrogram ends there."""

_BANDS = 64


def spectrogram_db(waveform: ArrayLike, window: int = WINDOW, hop: int = HOP) -> NDArray[np.float64]:
    """The power of each frequency at each time in dB below the loudest, shape `(window / 2 + 1, frames)`.

    Args:
        waveform: shape `(N,)`.
        window: samples of a window, of Hann's shape.
        hop: samples from one window to the next.

    Raises:
        AudioError: when it is no waveform, or is empty or silent, or holds NaN or infinity.
    """
    samples = checked(waveform, "the waveform")
    refuse_silence(samples, "the waveform")
    padded = np.pad(samples, (window // 2, window // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    return _decibels(np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)).T ** 2)


def spectral_distance_db(clean: ArrayLike, corrupted: ArrayLike) -> float:
    """The mean difference of two sounds in 64 mel bands, in dB, whatever their levels.

    Each is seen in the 80 dB below its own loudest moment. A shorter one is stretched to the other's length.

    Raises:
        AudioError: when one is no waveform, or is empty or silent, or holds NaN or infinity.
    """
    seen = [_mel_db(samples) for samples in (clean, corrupted)]
    frames = max(bands.shape[1] for bands in seen)
    a, b = (bands[:, np.arange(frames) * bands.shape[1] // frames] for bands in seen)
    return float(np.abs(a - b).mean())


def signal_to_distortion_db(clean: ArrayLike, corrupted: ArrayLike) -> float | None:
    """The scale-invariant signal-to-distortion ratio: what of `corrupted` is `clean`, against all the rest.

    None where the lengths differ. Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, equation 3.

    Raises:
        AudioError: when one is no waveform, or is empty or silent, or holds NaN or infinity.
    """
    speech, noisy = checked(clean, "the clean speech"), checked(corrupted, "the corrupted speech")
    refuse_silence(speech, "the clean speech")
    refuse_silence(noisy, "the corrupted speech")
    if speech.size != noisy.size:
        return None
    part = speech * (float(speech @ noisy) / float(speech @ speech))
    wanted, rest = float(part @ part), float(np.sum(np.square(noisy - part)))
    if not rest:
        return math.inf
    return 10 * math.log10(wanted / rest) if wanted else -math.inf


def _mel_db(waveform: ArrayLike) -> NDArray[np.float64]:
    # The power in each mel band at each time in dB below the loudest, shape `(bands, frames)`.
    power = 10 ** (spectrogram_db(waveform) / 10)
    hertz = np.linspace(0, SAMPLE_RATE / 2, power.shape[0])
    mel = 2595 * np.log10(1 + hertz / 700)
    centres = np.linspace(mel[0], mel[-1], _BANDS + 2)
    width = centres[1] - centres[0]
    weights = np.maximum(0, 1 - np.abs(mel[None, :] - centres[1:-1, None]) / width)
    return _decibels(weights @ power)


def _decibels(power: NDArray[np.float64]) -> NDArray[np.float64]:
    # Power in dB below its maximum, 80 dB of it.
    decibels: NDArray[np.float64] = np.maximum(10 * np.log10(np.maximum(power / power.max(), 1e-12)), -RANGE_DB)
    return decibels
