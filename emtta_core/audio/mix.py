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
    gain: float  # the factor that brought it there; 1.0 where nothing had to be done


def rms(samples: NDArray[np.float64]) -> float:
    """The root mean square of `samples`, shape `(N,)`, as a fraction of full scale."""
    return math.sqrt(float(np.mean(np.square(samples))))


def rms_dbfs(waveform: ArrayLike) -> float:
    """The level of `waveform`, shape `(N,)`, in dB FS RMS; minus infinity for digital silence.

    Raises:
        AudioError: when it is no waveform, or is empty, or holds NaN or infinity.
    """
    level = rms(checked(waveform, "the waveform"))
    return 20 * math.log10(level) if level > 0 else -math.inf


def scale_to_dbfs(waveform: ArrayLike, dbfs: float = -25.0) -> Waveform:
    """Scale `waveform`, shape `(N,)`, to a level of `dbfs` dB FS RMS; its peaks may pass full scale.

    Raises:
        AudioError: when it is no waveform, or is empty or silent, or holds NaN or infinity; or when `dbfs` is
            not finite.
    """
    if not math.isfinite(dbfs):
        raise AudioError(f"a level of {dbfs} dB FS cannot be reached; it must be a finite number such as -25")
    samples = checked(waveform, "the waveform")
    refuse_silence(samples, "the waveform")
    return (samples * (10 ** (dbfs / 20) / rms(samples))).astype(np.float32)


def scale_back(waveform: ArrayLike) -> ScaledBack:
    """Scale `waveform`, shape `(N,)`, down to a peak of 1 where it passes full scale.

    Nothing is clipped: the shape of the sound stays, and the gain tells by how much it was turned down.

    Raises:
        AudioError: when it is no waveform, or is empty, or holds NaN or infinity.
    """
    samples = checked(waveform, "the waveform")
    gain = min(1.0, 1.0 / max(float(np.abs(samples).max()), 1.0))
    return ScaledBack((samples * gain).astype(np.float32), gain)


LEVEL_DBFS = -25.0
"""dB FS RMS that speech and noise are brought to before the ratio is set."""

MAX_SNR_DB = 60.0
"""Beyond this ratio, in either direction, single precision no longer holds both parts to 0.001 dB."""

SnrOver = Literal["utterance", "speech"]
"""What the ratio is measured over: all samples, or those of `emtta_core.audio.waveform.speech_mask`."""

SnrConvention = Literal["exact", "msnsd-old"]
"""How a ratio is understood: as what it says, or as the first mixer of MS-SNSD did.

That mixer (`snr_mixer` in `audiolib.py` of https://github.com/microsoft/MS-SNSD, mended there since) brought speech
and noise to the same level and then scaled the noise by sqrt(1 / 10^(SNR/20)) = 10^(-SNR/40): half of the decibels.
"""


def true_snr_db(snr_db: float, convention: SnrConvention) -> float:
    """The ratio in dB that a mixture has whose nominal one is `snr_db`."""
    return snr_db / 2 if convention == "msnsd-old" else snr_db


@dataclass(frozen=True, slots=True)
class Mixture:
    """Noisy speech and what it is made of; each waveform has shape `(N,)`, the speech's."""

    waveform: Waveform  # `speech` + `noise`, within full scale
    speech: Waveform  # the speech as it is in `waveform`
    noise: Waveform  # the noise as it is in `waveform`
    gain: float  # the factor that scaled all three back because their sum passed full scale; 1.0 where it did not


def mix_at_snr(speech: ArrayLike, noise: ArrayLike, snr_db: float, *, offset: int = 0) -> Waveform:
    """Mix speech and noise as `mix` does, and return the mixture alone, shape `(N,)`.

    Args:
        speech: shape `(N,)`.
        noise: shape `(M,)`, of any length.
        snr_db: the ratio of the two RMS levels in the result, in dB.
        offset: the sample of the noise to begin with.

    Raises:
        AudioError: as `mix` does.
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
    """Add noise to speech, so that the ratio of their RMS levels in the result is `snr_db`.

    The noise is taken from `offset` on, repeated without a gap, and cut to the speech's length; its level is
    measured over the piece that is used. A sum that passes full scale is scaled back, never clipped. The speech
    has `level_dbfs` over the whole utterance, whatever the ratio is measured over.

    Args:
        speech: shape `(N,)`.
        noise: shape `(M,)`, of any length.
        snr_db: dB, within `MAX_SNR_DB` of 0.
        offset: the sample of the noise to begin with, 0 or more; counted round where it is beyond the end.
        over: what the two levels of the ratio are measured over.
        level_dbfs: dB FS RMS that speech and noise are brought to first.

    Raises:
        AudioError: when speech or noise is no waveform, or is empty or silent, or holds NaN or infinity, or
            when the ratio or the offset is out of range.
    """
    if not (math.isfinite(snr_db) and abs(snr_db) <= MAX_SNR_DB):
        raise AudioError(
            f"an SNR of {snr_db} dB cannot be set; it must lie between {-MAX_SNR_DB:g} and {MAX_SNR_DB:g} dB"
        )
    if offset < 0:
        raise AudioError(f"the noise cannot begin at sample {offset}; the offset must be 0 or more")
    samples = checked(speech, "the speech")
    source = checked(noise, "the noise")
    refuse_silence(samples, "the speech")
    piece = source[np.arange(offset, offset + samples.size) % source.size]
    refuse_silence(
        piece,
        f"the piece of the noise that is used ({samples.size} samples from sample {offset % source.size} on)",
    )
    # Both are brought to their levels over the whole utterance; over speech alone each is louder by so much.
    above = 0.0 if over == "utterance" else _above(samples, speech_mask(samples)) - _above(piece, speech_mask(samples))
    clean = scale_to_dbfs(samples, level_dbfs)
    added = scale_to_dbfs(piece, level_dbfs - snr_db + above)
    waveform, gain = scale_back(clean + added)
    return Mixture(waveform, speech=clean * np.float32(gain), noise=added * np.float32(gain), gain=gain)


def _above(samples: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    # By how many dB the level of the samples in `mask` is above that of all of them.
    refuse_silence(samples[mask], "what there is of the noise while there is speech")
    return 20 * math.log10(rms(samples[mask]) / rms(samples))
