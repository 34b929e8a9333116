"""A recording in a file, with what is said in it: what the corpora that lie in folders are made of."""

from dataclasses import dataclass
from pathlib import Path

from emtta_core.audio.files import length_in_seconds, read_audio
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform
from emtta_core.corpora.utterance import Utterance
from emtta_core.errors import AudioError

_TOLERANCE = 0.5
"""Seconds by which a length may differ from what a corpus says, which may be in milliseconds too; or by a tenth."""


@dataclass(frozen=True, slots=True)
class Recording:
    """An utterance in a folder.

    Attributes:
        id: as in `Utterance`, and so are the text, the language and the speaker.
        path: its audio file.
        error: why it cannot be used, where that is known already.
        told_seconds: how long it is according to the corpus; None where nobody says.
    """

    id: str
    text: str
    language: str
    speaker: str
    path: Path
    error: str | None = None
    told_seconds: float | None = None

    def utterance(self) -> Utterance:
        """Return it as every corpus does."""
        return Utterance(self.id, self.text, self.language, self.speaker, self.read, self.seconds)

    def read(self) -> Waveform:
        """Return what is heard, shape `(N,)`; AudioError where that cannot be had or used."""
        if self.error is not None:
            raise AudioError(self.error)
        samples = self.samples()
        told, there = self.told_seconds, len(samples) / SAMPLE_RATE
        if told is not None and min(abs(told - there), abs(told / 1000 - there)) > max(_TOLERANCE, there / 10):
            raise AudioError(
                f"{self.path}: the corpus says that it is {told:g} s long, and it is {there:.2f} s: the transcript may "
                "be of a part of it, or the file not whole; cut it, get it anew, or correct the duration"
            )
        return samples

    def samples(self) -> Waveform:
        """Return the samples of its audio, shape `(N,)`; AudioError where there are none."""
        return read_audio(self.path)

    def seconds(self) -> float | None:
        """Return its length as the audio's header tells it; None where it does not."""
        return length_in_seconds(self.path)
