"""A recording in a file, with what is said in it: what the corpora that lie in folders are made of."""

from dataclasses import dataclass
from pathlib import Path

from emtta_core.audio.files import length_in_seconds, read_audio
from emtta_core.audio.waveform import Waveform
from emtta_core.corpora.utterance import Utterance
from emtta_core.errors import AudioError


@dataclass(frozen=True, slots=True)
class Recording:
    """An utterance in a folder.

    Attributes:
        id: as in `Utterance`, and so are the text, the language and the speaker.
        path: its audio file.
        error: why it cannot be used, where that is known already.
    """

    id: str
    text: str
    language: str
    speaker: str
    path: Path
    error: str | None = None

    def utterance(self) -> Utterance:
        """Return it as every corpus does."""
        return Utterance(self.id, self.text, self.language, self.speaker, self.read, self.seconds)

    def read(self) -> Waveform:
        """Return what is heard, shape `(N,)`; AudioError where that cannot be had or used."""
        if self.error is not None:
            raise AudioError(self.error)
        return self.samples()

    def samples(self) -> Waveform:
        """Return the samples of its audio, shape `(N,)`; AudioError where there are none."""
        return read_audio(self.path)

    def seconds(self) -> float | None:
        """Return its length as the audio's header tells it; None where it does not."""
        return length_in_seconds(self.path)
