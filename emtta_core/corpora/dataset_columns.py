"""What the columns of a data set are called that emtta does not know by name."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from emtta_core.corpora.hosted import said, stem_of
from emtta_core.identity import IDENTITY, Record

Name = Annotated[str, IDENTITY, Field(min_length=1)]


class DatasetColumns(Record):
    """The columns that are read of a data set, and what no column says.

    Attributes:
        audio: of the audio files, as `datasets.Audio` keeps them: bytes and path.
        text: of the transcripts.
        id: of the utterances' ids; None for the names of the audio files.
        speaker: of the speakers; None where no column says who speaks.
        language: ISO 639-1 code of every utterance.
    """

    audio: Name = "audio"
    text: Name = "text"
    id: Annotated[str | None, IDENTITY, Field(min_length=1)] = None
    speaker: Annotated[str | None, IDENTITY, Field(min_length=1)] = None
    language: Annotated[str, IDENTITY, Field(pattern="^[a-z]{2,3}$")] = "en"

    def named(self) -> dict[str, str]:
        """Return what the columns are called, by what they hold."""
        names = {"audio": self.audio, "text": self.text, "id": self.id, "speaker": self.speaker}
        return {wanted: name for wanted, name in names.items() if name is not None}

    def read_row(self, row: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """Return id, transcript, language and speaker of a row, whose keys are those of `named`."""
        return stem_of(row), said(row, "text"), self.language, said(row, "speaker")
