"""What the columns of a data set are called that emtta does not know by name, and what they must hold."""

from collections.abc import Mapping
from typing import Annotated, Any

import pyarrow as pa
from pydantic import Field

from emtta_core.corpora.hosted import said, stem_of
from emtta_core.corpora.hub_split import refuse_types
from emtta_core.corpora.manifest import LANGUAGE_ALIASES
from emtta_core.errors import UsageError
from emtta_core.identity import IDENTITY, Record

Name = Annotated[str, IDENTITY, Field(min_length=1)]


class DatasetColumns(Record):
    """The columns that are read of a data set, and what no column says.

    Attributes:
        audio: of the audio files, as `datasets.Audio` keeps them: bytes and path.
        text: of the transcripts.
        id: of the utterances' ids; None for the names of the audio files.
        speaker: of the speakers; None where no column says who speaks.
        language: ISO 639-1 code of every utterance; it must be given where a column of the data set says it too, which
            is not read.
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

    def refuse_schema(self, place: str, schema: "pa.Schema") -> None:
        """Refuse a data set whose columns hold something else than they should, or say that a language is not read.

        Args:
            place: what messages call it.
            schema: of its table, of which all columns that are named are there.

        Raises:
            UsageError: naming the column, its type, and what is wanted.
        """
        refuse_types(place, schema, self.named())
        told = [name for name in schema.names if name.lower() in LANGUAGE_ALIASES and name not in self.named().values()]
        if told and "language" not in self.model_fields_set:
            raise UsageError(
                f"{place} has a column {told[0]!r}, which is not read, and its corpus names no language, so that it "
                'would be taken for English; write language = "…" in the corpus, and keep other languages out of it'
            )

    def unused(self, schema: "pa.Schema") -> tuple[str, ...]:
        """Return a note of the columns that are not read, if there are any."""
        others = [name for name in schema.names if name not in self.named().values()]
        return (f"columns that are not used: {', '.join(others)}",) if others else ()
