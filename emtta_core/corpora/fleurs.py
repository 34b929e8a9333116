"""FLEURS: sentences of FLoRes read in 102 languages (Conneau et al., SLT 2022;
https://huggingface.co/datasets/google/fleurs).

On the hub, `google/fleurs` has one configuration per language, as Parquet under `parquet-data/`. The extracted folder
has the older files, which are also still there: `data/<language>/<split>.tsv`, with seven columns and no header, and
the content of `data/<language>/audio/<split>.tar.gz`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from emtta_core.corpora.base import whisper_code
from emtta_core.corpora.hub_split import HubSplit
from emtta_core.corpora.metadata import as_json
from emtta_core.corpora.published import About, Hosted
from emtta_core.corpora.recording import Recording, text_of
from emtta_core.errors import CorpusError
from emtta_core.hub import Repository
from emtta_core.identity import IDENTITY


class Fleurs(Hosted):
    """A split of one language of FLEURS, 16 kHz; the transcript is the raw one, with capitals and punctuation."""

    about: ClassVar[About] = About(
        title="FLEURS",
        licence="CC BY 4.0",
        source="https://huggingface.co/datasets/google/fleurs",
        get="get data/<language>/<split>.tsv and data/<language>/audio/<split>.tar.gz of "
        "https://huggingface.co/datasets/google/fleurs into a folder fleurs, and extract the archive in place",
    )
    columns: ClassVar[Mapping[str, Sequence[str]]] = {"text": ("raw_transcription",), "id": ("path",)}
    metadata: ClassVar[Mapping[str, Sequence[str]]] = {"gender": ("gender",)}

    name: Annotated[Literal["fleurs"], IDENTITY] = "fleurs"
    # FLEURS's code: `de_de`, `pt_br`, `cmn_hans_cn`, ….
    language: Annotated[str, IDENTITY, Field(pattern=r"^[a-z]{2,3}(_[a-z0-9]+)+$")]
    split: Annotated[Literal["test", "dev", "train"], IDENTITY] = "test"  # the split to use

    def part(self) -> str:
        """Language and split."""
        return f"{self.language} {self.split}"

    def folder_names(self) -> tuple[str, ...]:
        """The name of the data set."""
        return ("fleurs",)

    def inside(self, folder: Path) -> Path | None:
        """The folder of the language, which may be `folder` itself."""
        candidates = [folder] if folder.name == self.language else []
        for inner in [*candidates, folder / "data" / self.language, folder / self.language]:
            if (inner / f"{self.split}.tsv").is_file() and (inner / "audio" / self.split).is_dir():
                return inner
        return None

    def recordings(self, folder: Path) -> list[Recording]:
        """The utterances in the order of the table.

        Raises:
            CorpusError: the table is empty or cannot be read.
        """
        texts = self._texts(folder / f"{self.split}.tsv")
        audio = folder / "audio" / self.split
        return [
            Recording(Path(name).stem, text, self.code, "", audio / name, metadata=as_json({"gender": gender})[0])
            for name, (text, gender) in texts.items()
        ]

    def on_hub(self) -> HubSplit:
        """The split in `google/fleurs`, where `dev` is `validation`."""
        split = "validation" if self.split == "dev" else self.split
        return HubSplit(Repository("dataset", "google/fleurs", self.revision), self.language, split)

    @property
    def code(self) -> str:
        """The ISO 639-1 code of its language."""
        return whisper_code(self.language)

    def _texts(self, table: Path) -> dict[str, tuple[str, str]]:
        # The raw transcript and the speaker's gender, by audio file; CorpusError if there is none or a line is cut.
        lines = [(number, line) for number, line in enumerate(text_of(table).split("\n"), start=1) if line.strip()]
        if not lines:
            raise CorpusError(f"the table {table} has no lines, so the split is empty; choose another split")
        texts = {}
        for number, line in lines:
            fields = line.rstrip("\r").split("\t")
            if len(fields) < 3 or not fields[1]:
                raise CorpusError(
                    f"the table {table}, line {number}: {line[:40]!r} is not number, audio file, transcript and more, "
                    "separated by tabs, so the table is incomplete; get it again"
                )
            texts[fields[1]] = fields[2], fields[6].lower() if len(fields) > 6 else ""
        return texts
