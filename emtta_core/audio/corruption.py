"""Corruptions: what a suite can do to clean speech, given by name and settings or by name and severity."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from emtta_core.audio.corrupted import Corrupted, Voices, release
from emtta_core.audio.effects import EFFECTS, EffectName
from emtta_core.audio.mix import (
    LEVEL_DBFS,
    MAX_SNR_DB,
    SnrConvention,
    SnrOver,
    mix,
    scale_back,
    scale_to_dbfs,
    true_snr_db,
)
from emtta_core.audio.noise import VOICES, NoiseKind, synthesise
from emtta_core.audio.noise_file import NoiseFile, ratio_label
from emtta_core.audio.waveform import SAMPLE_RATE, checked, refuse_silence
from emtta_core.identity import IDENTITY, Record, digest

MAX_SEVERITY = 5


class Graded(Record):
    """A corruption of the table `emtta_core.audio.effects.EFFECTS`, at one of its severities.

    The speech is first scaled to -25 dB FS RMS. It is never clipped, except by `clipping`, and never cut off.
    """

    name: Annotated[EffectName, IDENTITY]  # one of the table
    severity: Annotated[int, IDENTITY, Field(ge=0, le=MAX_SEVERITY)]  # 0 (clean, as if there were no corruption) to 5
    seed: Annotated[int, IDENTITY] = 0  # another seed draws different noise, rooms, losses and directions

    def determinants(self, voices: Callable[[], str]) -> dict[str, Any] | None:
        """Everything that determines the effect on an utterance; None for severity 0, which has none.

        Args:
            voices: returns the digest of the other speakers' voices.

        Raises:
            UsageError: a required library is not installed; gives the command that installs it.
        """
        if not self.severity:
            return None
        effect = EFFECTS[self.name]
        determinants: dict[str, Any] = {"version": effect.version, "settings": self.identity()}
        if effect.libraries:
            determinants["libraries"] = {library: release(library, self.name) for library in effect.libraries}
        return determinants | ({"voices": voices()} if effect.spoken else {})

    def label(self) -> str | None:
        """The label in rows of prepared audio: name, severity and amount; None for clean."""
        if not self.severity:
            return None
        return f"{self.name}/{self.severity} ({EFFECTS[self.name].describe(self.severity)})"

    def apply(self, waveform: ArrayLike, utterance_id: str, voices: Voices) -> Corrupted:
        """Corrupt `waveform` in a way that depends on the utterance's id, the name and the seed.

        Args:
            waveform: clean speech, shape `(N,)`.
            utterance_id: the same id gives the same random draws, at any severity.
            voices: called only by corruptions that add speech.

        Raises:
            AudioError: when the speech is not a waveform, is empty or silent, or contains NaN or infinity.
            UsageError: a required library is not installed.
        """
        samples = checked(waveform, "the speech")
        if not self.severity:
            clean = scale_back(samples)
            return Corrupted(clean.waveform, clean.gain, None)
        refuse_silence(samples, "the speech")
        effect = EFFECTS[self.name]
        rng = np.random.default_rng(int(digest([self.seed, utterance_id, self.name], 64), 16))
        speech = scale_to_dbfs(samples, LEVEL_DBFS).astype(np.float64)
        result = effect.make(speech, effect.amounts[self.severity - 1], rng, voices)
        refuse_silence(checked(result.waveform, "the corrupted speech"), "the corrupted speech")
        scaled = scale_back(result.waveform)
        return Corrupted(scaled.waveform, result.gain * scaled.gain, result.snr_db)


CORRUPTION_VERSION = 1
"""Incremented whenever the same settings of `Noise` would give different samples."""


class Noise(Record):
    """Noise of one of ten kinds, synthesised for each utterance, at a signal-to-noise ratio."""

    name: Annotated[Literal["noise"], IDENTITY] = "noise"
    kind: Annotated[NoiseKind, IDENTITY]  # one of `emtta_core.audio.noise.NOISES`
    # The ratio of the RMS levels of speech and noise, in dB.
    snr_db: Annotated[float, IDENTITY, Field(ge=-MAX_SNR_DB, le=MAX_SNR_DB, allow_inf_nan=False)]
    snr_over: Annotated[SnrOver, IDENTITY] = "utterance"  # what the levels are measured over
    snr_convention: Annotated[SnrConvention, IDENTITY] = "exact"  # how the ratio is interpreted
    seed: Annotated[int, IDENTITY] = 0  # another seed gives different noise

    def determinants(self, voices: Callable[[], str]) -> dict[str, Any]:
        """Everything that determines the effect on an utterance; `voices` returns the digest of the other speakers."""
        return {"version": CORRUPTION_VERSION, "settings": self.identity(), "voices": voices()}

    def label(self) -> str:
        """The label in rows of prepared audio."""
        return f"{self.name}/{self.kind}{ratio_label(self.snr_db, self.snr_over, self.snr_convention)}"

    def apply(self, waveform: ArrayLike, utterance_id: str, voices: Voices) -> Corrupted:
        """Add noise to `waveform` that depends on the utterance's id and the seed.

        Args:
            waveform: clean speech, shape `(N,)`.
            utterance_id: the same id gives the same noise, at any ratio.
            voices: called only by the kinds made of speech.

        Raises:
            AudioError: when the speech is not a waveform, is empty or silent, or contains NaN or infinity.
        """
        speech = checked(waveform, "the speech")
        rng = np.random.default_rng(int(digest([self.seed, utterance_id, self.kind], 64), 16))
        count = VOICES.get(self.kind, 0)
        noise = synthesise(self.kind, speech.size / SAMPLE_RATE, rng, voices=voices(count) if count else ())
        ratio = true_snr_db(self.snr_db, self.snr_convention)
        mixture = mix(speech, noise, ratio, over=self.snr_over)
        return Corrupted(mixture.waveform, mixture.gain, ratio)


Corruption = Annotated[Noise | NoiseFile | Graded, Field(discriminator="name")]
"""Any corruption, identified by its `name`."""
