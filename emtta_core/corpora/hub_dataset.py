"""Corpora that are read only from the hub: any data set there that is Parquet, or converted to it, and AMI.

AMI is meetings of four people (Carletta, LREC 2006; https://groups.inf.ed.ac.uk/ami/corpus/), cut into utterances;
`edinburghcstr/ami` has the configurations `ihm` (individual headset microphones) and `sdm` (a single distant one).
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from emtta_core.corpora.hub_split import HubSplit, refuse_types
from emtta_core.corpora.manifest_columns import LANGUAGE_ALIASES
from emtta_core.corpora.metadata import further_columns
from emtta_core.corpora.published import About, Hosted, stem_of, text_in
from emtta_core.corpora.recording import Recording
from emtta_core.errors import UsageError
from emtta_core.hub import Repository
from emtta_core.identity import IDENTITY, Record

Name = Annotated[str, IDENTITY, Field(min_length=1)]


class HubOnly(Hosted):
    """A corpus whose extracted folder is not read."""

    def folder_names(self) -> tuple[str, ...]:
        """None, as folders are not searched."""
        return ()

    def inside(self, _folder: Path) -> Path | None:
        """None, as no folder contains it."""
        return None

    def recordings(self, _folder: Path) -> list[Recording]:
        """None, as no folder contains it."""
        return []

    def archive(self) -> None:
        """None, as an archive cannot be read."""


class DatasetColumns(Record):
    """The columns to read from a data set, and its language."""

    audio: Name = "audio"  # column of the audio files, stored as in `datasets.Audio`: bytes and path
    text: Name = "text"  # column of the transcripts
    # Column of the utterances' ids; None for the names of the audio files.
    id: Annotated[str | None, IDENTITY, Field(min_length=1)] = None
    # Column of the speakers; None if there is none.
    speaker: Annotated[str | None, IDENTITY, Field(min_length=1)] = None
    # ISO 639-1 code of every utterance; required if the data set has a language column, which is not read.
    language: Annotated[str, IDENTITY, Field(pattern="^[a-z]{2,3}$")] = "en"

    def named(self) -> dict[str, str]:
        """The names of the columns, by what they contain."""
        names = {"audio": self.audio, "text": self.text, "id": self.id, "speaker": self.speaker}
        return {role: name for role, name in names.items() if name is not None}

    def from_row(self, row: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """Id, transcript, language and speaker of a row, whose keys are those of `named`."""
        return stem_of(row), text_in(row, "text"), self.language, text_in(row, "speaker")

    def refuse_schema(self, source: str, schema: "pa.Schema") -> None:
        """Refuse a data set with columns of the wrong type, or with an unread language column and no stated language.

        All named columns must be in the schema; messages call the data set `source`.

        Raises:
            UsageError: naming the column, its type, and what is expected.
        """
        refuse_types(source, schema, self.named())
        codes = [
            name for name in schema.names if name.lower() in LANGUAGE_ALIASES and name not in self.named().values()
        ]
        if codes and "language" not in self.model_fields_set:
            raise UsageError(
                f"{source} has a column {codes[0]!r}, which is not read, and its corpus states no language, so it "
                'would be treated as English; set language = "…" in the corpus, which must have only that language'
            )

    def notes_of(self, schema: "pa.Schema") -> tuple[str, ...]:
        """Notes on the columns that are kept as metadata, and on those that are not used."""
        kept, skipped = further_columns(schema, self.named().values())
        notes = {"columns kept as metadata": kept, "columns that are not used": skipped}
        return tuple(f"{what}: {', '.join(names)}" for what, names in notes.items() if names)


class HubDataset(DatasetColumns, HubOnly):
    """A split of a data set on the hub, public or your own, with one row per utterance."""

    about: ClassVar[About] = About(
        title="data set",
        licence="see its page",
        source="https://huggingface.co/datasets",
        get="omit path: it is read only from the hub; a folder saved by datasets is a corpus saved-dataset",
    )
    required: ClassVar[Collection[str]] = ("audio", "text", "id", "speaker")

    name: Annotated[Literal["hub-dataset"], IDENTITY] = "hub-dataset"
    # The data set, as in `facebook/voxpopuli`.
    repository: Annotated[str, IDENTITY, Field(pattern=r"^[^/\s]+/[^/\s]+$")]
    config: Annotated[str, IDENTITY, Field(min_length=1)] = "default"  # its configuration, often a language
    split: Annotated[str, IDENTITY, Field(min_length=1)] = "test"  # the split to use

    def part(self) -> str:
        """Data set, configuration and split."""
        return f"{self.repository}, {self.config}, {self.split}"

    def on_hub(self) -> HubSplit:
        """The split."""
        return HubSplit(Repository("dataset", self.repository, self.revision), self.config, self.split)

    def column_names(self) -> Mapping[str, Sequence[str]]:
        """The columns named in the suite."""
        return {role: (name,) for role, name in self.named().items()}

    def refuse_columns(self, schema: "pa.Schema") -> None:
        """Refuse a data set whose columns do not match the suite."""
        self.refuse_schema(f"the data set {self.repository!r}", schema)

    def further(self, schema: "pa.Schema") -> dict[str, str]:
        """All columns that are not read, except lists, structs and bytes, which may be large."""
        return {name: name for name in further_columns(schema, self.named().values(), nested=False)[0]}


class Ami(HubOnly):
    """A split of the AMI meetings, 16 kHz."""

    about: ClassVar[About] = About(
        title="AMI",
        licence="CC BY 4.0",
        source="https://huggingface.co/datasets/edinburghcstr/ami",
        get="omit path: it is read only from the hub",
    )
    columns: ClassVar[Mapping[str, Sequence[str]]] = {
        "text": ("text",),
        "id": ("audio_id", "id"),
        "speaker": ("speaker_id",),
    }

    name: Annotated[Literal["ami"], IDENTITY] = "ami"
    microphone: Annotated[Literal["ihm", "sdm"], IDENTITY] = "ihm"  # `ihm` or `sdm`
    split: Annotated[Literal["test", "validation", "train"], IDENTITY] = "test"  # the split to use

    def part(self) -> str:
        """Microphone and split."""
        return f"{self.microphone} {self.split}"

    def on_hub(self) -> HubSplit:
        """The split in `edinburghcstr/ami`."""
        return HubSplit(Repository("dataset", "edinburghcstr/ami", self.revision), self.microphone, self.split)
