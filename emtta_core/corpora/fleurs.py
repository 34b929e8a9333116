"""FLEURS: sentences of FLoRes read in 102 languages (Conneau and others, SLT 2022;
https://huggingface.co/datasets/google/fleurs).

The data set `google/fleurs` has for each language `data/<language>/<split>.tsv`, with seven columns and no header, and
`data/<language>/audio/<split>.tar.gz`. It is no Parquet: the two files are read as they are, and nothing there is run.
"""

import re
import tarfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from emtta_core.corpora import hub
from emtta_core.corpora.choice import is_few
from emtta_core.corpora.hosted import Hosted, heard
from emtta_core.corpora.hub import Repository
from emtta_core.corpora.languages import whisper_code
from emtta_core.corpora.published import About
from emtta_core.corpora.recording import Recording
from emtta_core.corpora.transcripts import text_of
from emtta_core.corpora.utterance import Utterance
from emtta_core.errors import CorpusError, UsageError
from emtta_core.identity import IDENTITY


class Fleurs(Hosted):
    """A split of one language of FLEURS, 16 kHz; the transcript is the raw one, with capitals and punctuation.

    Attributes:
        language: as FLEURS calls it: `de_de`, `pt_br`, `cmn_hans_cn`, …
        split: which.
    """

    about: ClassVar[About] = About(
        title="FLEURS",
        licence="CC BY 4.0",
        source="https://huggingface.co/datasets/google/fleurs",
        get="clone https://huggingface.co/datasets/google/fleurs as the folder fleurs, and extract the archive of the "
        "split where it lies",
    )

    name: Annotated[Literal["fleurs"], IDENTITY] = "fleurs"
    language: Annotated[str, IDENTITY, Field(pattern=r"^[a-z]{2,3}(_[a-z0-9]+)+$")]
    split: Annotated[Literal["test", "dev", "train"], IDENTITY] = "test"

    def part(self) -> str:
        """Return language and split."""
        return f"{self.language} {self.split}"

    def usual_folders(self) -> tuple[str, ...]:
        """Return what a clone is called."""
        return ("fleurs",)

    def inside(self, folder: Path) -> Path | None:
        """Return the folder of the language in a clone, which may be `folder` itself."""
        here = [folder] if folder.name == self.language else []
        for place in [*here, folder / "data" / self.language, folder / self.language]:
            if (place / f"{self.split}.tsv").is_file() and (place / "audio" / self.split).is_dir():
                return place
        return None

    def recordings(self, place: Path) -> list[Recording]:
        """Return the utterances in the order of the table.

        Raises:
            CorpusError: the table is empty or cannot be read.
        """
        texts = self._texts(place / f"{self.split}.tsv")
        audio = place / "audio" / self.split
        return [Recording(Path(name).stem, text, self._code, "", audio / name) for name, text in texts.items()]

    def pin(self) -> Repository:
        """Return `google/fleurs` at the commit that the revision is now.

        Raises:
            CorpusError: it cannot be had.
            UsageError: it has no such revision, language or split; lists those there are.
        """
        repository = hub.pin(Repository("google/fleurs", self.revision))
        files = hub.listing(repository).files
        if not {self._table, self._archive} <= set(files):
            there = sorted({match[1] for path in files if (match := re.fullmatch(r"data/([^/]+)/.+\.tsv", path))})
            raise UsageError(
                f"the data set google/fleurs has no split {self.split!r} of {self.language!r}; "
                f"there are: {', '.join(there) or 'none'}"
            )
        return repository

    def count(self, repository: Repository) -> int:
        """Return how many lines the table has."""
        return len(self._texts(hub.fetch(repository, [self._table])[0]))

    def files(self, _repository: Repository) -> list[str]:
        """Return the table and the archive."""
        return [self._table, self._archive]

    def of_commit(self, repository: Repository, limit: int | None) -> Iterator[Utterance]:
        """Yield the utterances in the order of the archive, and then those of which it has no audio."""
        texts = self._texts(hub.fetch(repository, [self._table])[0])
        if not is_few(limit, lambda: len(texts)):
            hub.fetch(repository, [self._archive])
        local = hub.fetched(repository, self._archive)
        opened = nullcontext(local.open("rb")) if local is not None else hub.opened(repository, self._archive)
        with opened as file, tarfile.open(fileobj=file, mode="r|gz") as archive:
            for member in archive:
                name = Path(member.name).name
                content = archive.extractfile(member) if name in texts else None
                if content is not None:
                    yield heard(Path(name).stem, texts.pop(name), self._code, "", content.read())
        for name, text in texts.items():
            yield heard(Path(name).stem, text, self._code, "", b"")

    @property
    def _table(self) -> str:
        return f"data/{self.language}/{self.split}.tsv"

    @property
    def _archive(self) -> str:
        return f"data/{self.language}/audio/{self.split}.tar.gz"

    @property
    def _code(self) -> str:
        """The language's code, as Whisper has it."""
        return whisper_code(self.language)

    def _texts(self, table: Path) -> dict[str, str]:
        """Return the raw transcripts by audio file; CorpusError where there is none, or a line is cut off."""
        lines = [(number, line) for number, line in enumerate(text_of(table).split("\n"), start=1) if line.strip()]
        if not lines:
            raise CorpusError(f"the table {table} has no line, so that the split is empty; choose another split")
        texts = {}
        for number, line in lines:
            fields = line.rstrip("\r").split("\t")
            if len(fields) < 3 or not fields[1]:
                raise CorpusError(
                    f"the table {table}, line {number}: {line[:40]!r} is not number, audio file, transcript and more, "
                    "set apart by tabulators, so that the table is not whole; delete it and fetch it anew "
                    "(`hf cache rm` deletes what was fetched from the hub)"
                )
            texts[fields[1]] = fields[2]
        return texts
