"""The ten noises of the paper's noise domains, each synthesised by a short recipe.

>>> rng = np.random.default_rng(0)
>>> synthesise("typing", 3.0, rng).shape
(48000,)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from emtta_core.audio.level import rms
from emtta_core.audio.noise import impulsive, speech, stationary
from emtta_core.audio.spectrum import Samples
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform, checked, refuse_silence
from emtta_core.errors import UsageError, unknown

NoiseKind = Literal[
    "gaussian",
    "air-conditioner",
    "airport-announcements",
    "babble",
    "copy-machine",
    "munching",
    "neighbour",
    "shutting-door",
    "typing",
    "vacuum-cleaner",
]
"""The names of the noises; the paper calls them GS, AC, AA, BA, CM, MU, NB, SD, TP and VC."""

NOISES: tuple[NoiseKind, ...] = get_args(NoiseKind)
"""The names in the paper's order."""

PEAK = 0.5
"""The peak of a synthesised noise, as a fraction of full scale."""

VOICES: Mapping[NoiseKind, int] = {"airport-announcements": 4, "babble": 8, "neighbour": 3}
"""How many voices a noise should be given; those not named here need none."""

_SOUNDS: Mapping[str, Callable[[int, np.random.Generator], Samples]] = {
    "gaussian": stationary.gaussian,
    "air-conditioner": stationary.air_conditioner,
    "copy-machine": impulsive.copy_machine,
    "munching": impulsive.munching,
    "shutting-door": impulsive.shutting_door,
    "typing": impulsive.typing,
    "vacuum-cleaner": stationary.vacuum_cleaner,
}

_SPOKEN: Mapping[str, Callable[[int, np.random.Generator, Sequence[Samples]], Samples]] = {
    "airport-announcements": speech.airport_announcements,
    "babble": speech.babble,
    "neighbour": speech.neighbour,
}


def synthesise(kind: str, seconds: float, rng: np.random.Generator, *, voices: Sequence[ArrayLike] = ()) -> Waveform:
    """Return `seconds` of the noise `kind`, shape `(seconds · 16000,)`, with a peak of `PEAK`.

    Args:
        kind: one of `NOISES`.
        seconds: the length, rounded to a sample.
        rng: the only source of chance: the same state gives the same bits.
        voices: clean speech of several speakers, each of shape `(N,)`; the kinds in `VOICES` need some.

    Raises:
        UsageError: when there is no such kind, or it needs voices and has none, or `seconds` is no length.
        AudioError: when a voice is no waveform, or is empty or silent, or holds NaN or infinity.
    """
    if kind not in NOISES:
        raise unknown("noise", kind, NOISES)
    if not 0.5 / SAMPLE_RATE < seconds < float("inf"):
        raise UsageError(f"a noise of {seconds} seconds cannot be made; it must be at least one sample long")
    samples = round(seconds * SAMPLE_RATE)
    if kind in _SPOKEN:
        if not voices:
            raise UsageError(f"the noise {kind!r} is made of speech: give it voices (such as {VOICES[kind]})")
        noise = _SPOKEN[kind](samples, rng, [_levelled(voice, i) for i, voice in enumerate(voices)])
    else:
        noise = _SOUNDS[kind](samples, rng)
    waveform: Waveform = (noise * (PEAK / np.abs(noise).max())).astype(np.float32)
    return waveform


def _levelled(voice: ArrayLike, index: int) -> Samples:
    """Return a voice at unit RMS, shape `(N,)`, so that no speaker outweighs the others."""
    samples = checked(voice, f"voice {index}")
    refuse_silence(samples, f"voice {index}")
    return samples / rms(samples)
