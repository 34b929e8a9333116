"""Common Voice: sentences read by volunteers (Ardila et al., LREC 2020; https://commonvoice.mozilla.org).

Mozilla distributes its releases at https://mozilladatacollective.com after registration, and removed its own copies
from the hub in October 2025. The extracted folder is `cv-corpus-<release>/<language>/`, with a table `<split>.tsv` and
`clips/`. The hub still has copies by others: `fixie-ai/common_voice_17_0` is release 17 as Parquet.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from emtta_core.corpora.base import whisper_code
from emtta_core.corpora.hub_split import HubSplit
from emtta_core.corpora.metadata import of_row
from emtta_core.corpora.published import About, Hosted, stem_of, text_in
from emtta_core.corpora.recording import Recording, text_of
from emtta_core.errors import CorpusError
from emtta_core.hub import Repository
from emtta_core.identity import IDENTITY

_COLUMNS = ("client_id", "path", "sentence")


class CommonVoice(Hosted):
    """A split of one language of a release of Common Voice."""

    about: ClassVar[About] = About(
        title="Common Voice",
        licence="CC0 1.0",
        source="https://mozilladatacollective.com",
        get="get the archive of the language at https://mozilladatacollective.com and extract it",
    )
    columns: ClassVar[Mapping[str, Sequence[str]]] = {
        "text": ("sentence", "text"),
        "id": ("path", "id"),
        "speaker": ("client_id",),
    }
    metadata: ClassVar[Mapping[str, Sequence[str]]] = {
        "accent": ("accents", "accent"),
        "age": ("age",),
        "gender": ("gender",),
        "variant": ("variant",),
    }

    name: Annotated[Literal["common-voice"], IDENTITY] = "common-voice"
    # Common Voice's code: `de`, `pt`, `zh-CN`, ….
    language: Annotated[str, IDENTITY, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z]+)*$")]
    split: Annotated[Literal["test", "validation", "train"], IDENTITY] = "test"  # the split to use
    # The data set on the hub, with one configuration per language.
    repository: Annotated[str, IDENTITY, Field(pattern=r"^[^/]+/[^/]+$")] = "fixie-ai/common_voice_17_0"

    def part(self) -> str:
        """Language and split."""
        return f"{self.language} {self.split}"

    def folder_names(self) -> tuple[str, ...]:
        """The names of Mozilla's folders; some programs extract them into a folder named after the archive."""
        return "cv-corpus-*", f"mcv-scripted-{self.language}-*/cv-corpus-*"

    def on_hub(self) -> HubSplit:
        """The split in the data set."""
        return HubSplit(Repository("dataset", self.repository, self.revision), self.language, self.split)

    def from_row(self, row: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """Id, transcript, language and speaker of a row."""
        return stem_of(row), text_in(row, "text"), self.code, text_in(row, "speaker")[:16]

    def inside(self, folder: Path) -> Path | None:
        """The folder of the language, which may be `folder` itself.

        Raises:
            CorpusError: there are several releases.
        """
        candidates = [folder] if folder.name == self.language else []
        roots = [release for name in self.folder_names() for release in folder.glob(name)]
        releases = sorted(release / self.language for release in roots)
        found = [inner for inner in [*candidates, folder / self.language, *releases] if self._has_split(inner)]
        if len(found) > 1:
            raise CorpusError(
                f"there are several releases of Common Voice: {', '.join(map(str, found))}; name one of them as path"
            )
        return found[0] if found else None

    def recordings(self, folder: Path) -> list[Recording]:
        """The utterances in the order of the table.

        Raises:
            CorpusError: the table is empty, lacks a column, or has a row that is cut off.
        """
        table = self._table(folder)
        reader = csv.DictReader(text_of(table).split("\n"), delimiter="\t", quoting=csv.QUOTE_NONE)
        rows = [(reader.line_num, row) for row in reader]
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise CorpusError(f"the table {table} has no column {', '.join(missing)}; {self.about.get} again")
        if not rows:
            raise CorpusError(f"the table {table} has no rows, so the split is empty; choose another split")
        for number, row in rows:
            missing_fields = [name for name in _COLUMNS if row[name] is None or (name == "path" and not row[name])]
            if missing_fields:
                raise CorpusError(
                    f"the table {table}, line {number}: it has no {', '.join(missing_fields)}, so the table is "
                    f"incomplete; {self.about.get} again"
                )
        return [
            Recording(
                Path(row["path"]).stem,
                row["sentence"],
                self.code,
                row["client_id"][:16],
                folder / "clips" / row["path"],
                metadata=of_row(str(table), self._metadata(row)),
            )
            for _, row in rows
        ]

    def _metadata(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {key: next((row[name] for name in names if row.get(name)), None) for key, names in self.metadata.items()}

    def _table(self, folder: Path) -> Path:
        return folder / f"{'dev' if self.split == 'validation' else self.split}.tsv"

    def _has_split(self, folder: Path) -> bool:
        return self._table(folder).is_file() and (folder / "clips").is_dir()

    @property
    def code(self) -> str:
        """The ISO 639-1 code of its language."""
        return whisper_code(self.language)
