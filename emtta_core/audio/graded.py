"""Corruptions by name and severity: 1 is mild, 5 is harsh, 0 leaves the speech clean.

What a name and a severity mean never changes: whoever changes it raises the version of that name, which is part of
the identity of the audio. The same utterance has the same noise, room or losses at every severity of a name, only
more of it.
"""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from emtta_core.audio.corrupted import Corrupted, Voices
from emtta_core.audio.effects import EFFECTS, EffectName
from emtta_core.audio.effects.libraries import release
from emtta_core.audio.level import scale_back, scale_to_dbfs
from emtta_core.audio.mix import LEVEL_DBFS
from emtta_core.audio.waveform import checked, refuse_silence
from emtta_core.identity import IDENTITY, Record, digest

MAX_SEVERITY = 5


class Graded(Record):
    """A corruption of the table `emtta_core.audio.effects.EFFECTS`, at one of its severities.

    The speech is brought to -25 dB FS RMS first. It is never clipped, but by `clipping`, and never cut off.

    Attributes:
        name: one of the table.
        severity: 0 (clean, as if there were no corruption) to 5.
        seed: another seed draws other noise, rooms, losses and directions.
    """

    name: Annotated[EffectName, IDENTITY]
    severity: Annotated[int, IDENTITY, Field(ge=0, le=MAX_SEVERITY)]
    seed: Annotated[int, IDENTITY] = 0

    def made_of(self, voices: Callable[[], str]) -> dict[str, Any] | None:
        """Return all that settles what this does to an utterance; None for severity 0: it does nothing.

        Args:
            voices: gives the digest of the foreign voices.

        Raises:
            UsageError: a library that this needs is not installed; says the command that installs it.
        """
        if not self.severity:
            return None
        effect = EFFECTS[self.name]
        settled: dict[str, Any] = {"version": effect.version, "settings": self.identity()}
        if effect.libraries:
            settled["libraries"] = {library: release(library, self.name) for library in effect.libraries}
        return settled | ({"voices": voices()} if effect.spoken else {})

    def label(self) -> str | None:
        """Return what a row of prepared audio calls this: name, severity and amount; None for clean."""
        if not self.severity:
            return None
        return f"{self.name}/{self.severity} ({EFFECTS[self.name].said(self.severity)})"

    def apply(self, waveform: ArrayLike, utterance_id: str, voices: Voices) -> Corrupted:
        """Return `waveform` corrupted, in a way that depends on the utterance's id, the name and the seed.

        Args:
            waveform: clean speech, shape `(N,)`.
            utterance_id: the same id draws the same, at any severity.
            voices: asked by the corruptions that are made of speech, and by no other.

        Raises:
            AudioError: when the speech is no waveform, or is empty or silent, or holds NaN or infinity.
            UsageError: a library that this needs is not installed.
        """
        samples = checked(waveform, "the speech")
        if not self.severity:
            clean = scale_back(samples)
            return Corrupted(clean.waveform, clean.gain, None)
        refuse_silence(samples, "the speech")
        effect = EFFECTS[self.name]
        rng = np.random.default_rng(int(digest([self.seed, utterance_id, self.name], 64), 16))
        speech = scale_to_dbfs(samples, LEVEL_DBFS).astype(np.float64)
        made = effect.make(speech, effect.amounts[self.severity - 1], rng, voices)
        refuse_silence(checked(made.waveform, "the corrupted speech"), "the corrupted speech")
        within = scale_back(made.waveform)
        return Corrupted(within.waveform, made.gain * within.gain, made.snr_db)
