"""Levels in decibels relative to full scale, and speech mixed with noise at a signal-to-noise ratio."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emtta_core.audio.waveform import Waveform, checked, refuse_silence, speech_mask
from emtta_core.errors import AudioError


class ScaledBack(NamedTuple):
    """A waveform within full scale."""

    waveform: Waveform  # shape `(N,)`, within -1 and 1
    gain: float  # the factor it was scaled by; 1.0 if it was already within full scale


def rms(samples: NDArray[np.float64]) -> float:
    """The root mean square of `samples`, shape `(N,)`, as a fraction of full scale."""
    return math.sqrt(float(np.mean(np.square(samples))))


def rms_dbfs(waveform: ArrayLike) -> float:
    """The level of `waveform`, shape `(N,)`, in dB FS RMS; minus infinity for digital silence.

    Raises:
        AudioError: when it is not a waveform, is empty, or contains NaN or infinity.
    """
    level = rms(checked(waveform, "the waveform"))
    return 20 * math.log10(level) if level > 0 else -math.inf


def scale_to_dbfs(waveform: ArrayLike, dbfs: float = -25.0) -> Waveform:
    """Scale `waveform`, shape `(N,)`, to a level of `dbfs` dB FS RMS; its peaks may exceed full scale.

    Raises:
        AudioError: when it is not a waveform, is empty or silent, or contains NaN or infinity; or when `dbfs` is not
            finite.
    """
    if not math.isfinite(dbfs):
        raise AudioError(f"the level is {dbfs} dB FS; it must be a finite number such as -25")
    samples = checked(waveform, "the waveform")
    refuse_silence(samples, "the waveform")
    return (samples * (10 ** (dbfs / 20) / rms(samples))).astype(np.float32)


def scale_back(waveform: ArrayLike) -> ScaledBack:
    """Scale `waveform`, shape `(N,)`, down to a peak of 1 if it exceeds full scale; nothing is clipped.

    Raises:
        AudioError: when it is not a waveform, is empty, or contains NaN or infinity.
    """
    samples = checked(waveform, "the waveform")
    gain = min(1.0, 1.0 / max(float(np.abs(samples).max()), 1.0))
    return ScaledBack((samples * gain).astype(np.float32), gain)


LEVEL_DBFS = -25.0
"""The level in dB FS RMS that speech and noise are scaled to before the ratio is set."""

MAX_SNR_DB = 60.0
"""Beyond this ratio, in either direction, single precision no longer represents both parts to 0.001 dB."""

SnrOver = Literal["utterance", "speech"]
"""What the ratio is measured over: all samples, or those of `emtta_core.audio.waveform.speech_mask`."""

SnrConvention = Literal["exact", "msnsd-old"]
"""How a ratio is interpreted: literally, or as by the first mixer of MS-SNSD.

That mixer (`snr_mixer` in `audiolib.py` of https://github.com/microsoft/MS-SNSD, since fixed there) scaled speech and
noise to the same level and then the noise by sqrt(1 / 10^(SNR/20)) = 10^(-SNR/40): half the decibels.
"""


def true_snr_db(snr_db: float, convention: SnrConvention) -> float:
    """The actual ratio in dB of a mixture whose nominal ratio is `snr_db`."""
    return snr_db / 2 if convention == "msnsd-old" else snr_db


@dataclass(frozen=True, slots=True)
class Mixture:
    """Noisy speech and its parts; each waveform has the speech's shape, `(N,)`."""

    waveform: Waveform  # `speech` + `noise`, within full scale
    speech: Waveform  # the speech as in `waveform`
    noise: Waveform  # the noise as in `waveform`
    gain: float  # the factor that scaled all three back because their sum exceeded full scale; 1.0 if it did not


def mix_at_snr(speech: ArrayLike, noise: ArrayLike, snr_db: float, *, offset: int = 0) -> Waveform:
    """Mix speech and noise as `mix` does, and return only the mixture, shape `(N,)`.

    Args:
        speech: shape `(N,)`.
        noise: shape `(M,)`, of any length.
        snr_db: the ratio of the two RMS levels in the result, in dB.
        offset: the sample of the noise to begin with.

    Raises:
        AudioError: as in `mix`.
    """
    return mix(speech, noise, snr_db, offset=offset).waveform


def mix(
    speech: ArrayLike,
    noise: ArrayLike,
    snr_db: float,
    *,
    offset: int = 0,
    over: SnrOver = "utterance",
    level_dbfs: float = LEVEL_DBFS,
) -> Mixture:
    """Add noise to speech so that the ratio of their RMS levels in the result is `snr_db`.

    The noise is taken from `offset` on, repeated without a gap, and cut to the speech's length; its level is measured
    over the piece used. A sum that exceeds full scale is scaled back, never clipped. The speech has `level_dbfs` over
    the whole utterance, whatever the ratio is measured over.

    Args:
        speech: shape `(N,)`.
        noise: shape `(M,)`, of any length.
        snr_db: dB, within ±`MAX_SNR_DB`.
        offset: the sample of the noise to begin with, 0 or more, modulo the noise's length.
        over: what the two levels of the ratio are measured over.
        level_dbfs: the level in dB FS RMS that speech and noise are scaled to first.

    Raises:
        AudioError: when speech or noise is not a waveform, is empty or silent, or contains NaN or infinity, or when the
            ratio or the offset is out of range.
    """
    if not (math.isfinite(snr_db) and abs(snr_db) <= MAX_SNR_DB):
        raise AudioError(f"the SNR is {snr_db} dB; it must be between {-MAX_SNR_DB:g} and {MAX_SNR_DB:g} dB")
    if offset < 0:
        raise AudioError(f"the noise's offset is {offset}; it must be 0 or more")
    samples = checked(speech, "the speech")
    source = checked(noise, "the noise")
    refuse_silence(samples, "the speech")
    piece = source[np.arange(offset, offset + samples.size) % source.size]
    refuse_silence(
        piece,
        f"the piece of the noise used ({samples.size} samples from sample {offset % source.size} on)",
    )
    # Both are scaled to their levels over the whole utterance; over speech only, each is louder by `_above`.
    above = 0.0 if over == "utterance" else _above(samples, speech_mask(samples)) - _above(piece, speech_mask(samples))
    clean = scale_to_dbfs(samples, level_dbfs)
    added = scale_to_dbfs(piece, level_dbfs - snr_db + above)
    waveform, gain = scale_back(clean + added)
    return Mixture(waveform, speech=clean * np.float32(gain), noise=added * np.float32(gain), gain=gain)


def _above(samples: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    # How many dB the level of the samples in `mask` is above that of all of them.
    refuse_silence(samples[mask], "the noise during speech")
    return 20 * math.log10(rms(samples[mask]) / rms(samples))
