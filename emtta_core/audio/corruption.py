"""Corruptions: what a suite can do to clean speech, by name and with settings.

Each is a record whose identity fields settle the result: the same settings, utterance and speech give the same
samples, whatever was corrupted before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from emtta_core.audio.mix import MAX_SNR_DB, mix
from emtta_core.audio.noise import VOICES, NoiseKind, synthesise
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform, checked
from emtta_core.identity import IDENTITY, Record, digest

CORRUPTION_VERSION = 1
"""Raised whenever the same settings would give other samples."""

Voices = Callable[[int], Sequence[Waveform]]
"""Gives so many stretches of clean speech, each shape `(N,)`, of voices foreign to the utterance; always the same."""


@dataclass(frozen=True, slots=True)
class Corrupted:
    """Corrupted speech.

    Attributes:
        waveform: shape `(N,)`, the clean speech's, within full scale.
        gain: the factor that scaled it back because it passed full scale; 1.0 where it did not.
        snr_db: the signal-to-noise ratio in dB; None where there is no noise.
    """

    waveform: Waveform
    gain: float
    snr_db: float | None


class Noise(Record):
    """Noise of one of ten kinds, synthesised anew for each utterance, at a signal-to-noise ratio.

    Attributes:
        kind: one of `emtta_core.audio.noise.NOISES`.
        snr_db: the ratio of the RMS levels of speech and noise over the whole utterance, in dB.
        seed: another seed gives other noise.
    """

    name: Annotated[Literal["noise"], IDENTITY] = "noise"
    kind: Annotated[NoiseKind, IDENTITY]
    snr_db: Annotated[float, IDENTITY, Field(ge=-MAX_SNR_DB, le=MAX_SNR_DB, allow_inf_nan=False)]
    seed: Annotated[int, IDENTITY] = 0

    def apply(self, waveform: ArrayLike, utterance_id: str, voices: Voices) -> Corrupted:
        """Return `waveform` with noise that depends on the utterance's id and the seed.

        Args:
            waveform: clean speech, shape `(N,)`.
            utterance_id: the same id draws the same noise, at any ratio.
            voices: asked by the kinds that are made of speech, and by no other.

        Raises:
            AudioError: when the speech is no waveform, or is empty or silent, or holds NaN or infinity.
        """
        speech = checked(waveform, "the speech")
        rng = np.random.default_rng(int(digest([self.seed, utterance_id, self.kind], 64), 16))
        wanted = VOICES.get(self.kind, 0)
        noise = synthesise(self.kind, speech.size / SAMPLE_RATE, rng, voices=voices(wanted) if wanted else ())
        mixture = mix(speech, noise, self.snr_db)
        return Corrupted(mixture.waveform, mixture.gain, self.snr_db)


Corruption: TypeAlias = Noise
"""Any corruption. A second kind makes this a union that is told apart by `name`."""
