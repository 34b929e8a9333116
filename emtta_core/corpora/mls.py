"""Multilingual LibriSpeech: read books in seven languages (Pratap and others, Interspeech 2020;
https://www.openslr.org/94).

The extracted folder is `mls_<language>/<split>/`, with `transcripts.txt` (an id, a tabulator and the text a line) and
`audio/<speaker>/<book>/<speaker>_<book>_<number>.flac`, or `.opus` in the smaller archives `mls_<language>_opus`. On
the hub, `facebook/multilingual_librispeech` has a configuration a language.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from emtta_core.corpora.base import Archive
from emtta_core.corpora.hosted import Hosted, stem_of, text_in
from emtta_core.corpora.hub_split import HubSplit
from emtta_core.corpora.published import About
from emtta_core.corpora.recording import Recording, lines_of
from emtta_core.errors import CorpusError
from emtta_core.hub import Repository
from emtta_core.identity import IDENTITY

Language = Literal["german", "dutch", "french", "spanish", "italian", "portuguese", "polish"]

CODES: Mapping[str, str] = {
    "german": "de",
    "dutch": "nl",
    "french": "fr",
    "spanish": "es",
    "italian": "it",
    "portuguese": "pt",
    "polish": "pl",
}
"""ISO 639-1 code by language."""

SIZES: Mapping[str, int] = {
    "german": 122_944_886_305,
    "dutch": 92_158_429_530,
    "french": 64_474_642_518,
    "spanish": 53_296_894_035,
    "italian": 15_395_281_399,
    "portuguese": 9_982_803_818,
    "polish": 6_609_569_551,
}
"""Bytes of each language's archive `mls_<language>.tar.gz`, which https://www.openslr.org/94 gives rounded, in powers
of 1024 (`115G`): those that were counted in a download (huggingface/datasets, dataset_infos.json in
datasets/multilingual_librispeech at 040102f)."""


class MultilingualLibriSpeech(Hosted):
    """A split of one language of Multilingual LibriSpeech, 16 kHz."""

    about: ClassVar[About] = About(
        title="Multilingual LibriSpeech",
        licence="CC BY 4.0",
        source="https://www.openslr.org/94",
        get="get the archive of the language at https://www.openslr.org/94 and extract it",
    )
    columns: ClassVar[Mapping[str, Sequence[str]]] = {
        "text": ("transcript", "text"),
        "id": ("id",),
        "speaker": ("speaker_id",),
    }

    name: Annotated[Literal["mls"], IDENTITY] = "mls"
    language: Annotated[Language, IDENTITY]  # which, in English
    split: Annotated[Literal["test", "dev", "train"], IDENTITY] = "test"  # which

    def part(self) -> str:
        """Language and split."""
        return f"{self.language} {self.split}"

    def usual_folders(self) -> tuple[str, ...]:
        """`mls_<language>`, and the same with `_opus`."""
        return f"mls_{self.language}", f"mls_{self.language}_opus"

    def archive(self) -> Archive:
        """The archive of the language."""
        return Archive("all splits of the language, as FLAC", SIZES[self.language], self.about.source)

    def on_hub(self) -> HubSplit:
        """The split in `facebook/multilingual_librispeech`."""
        return HubSplit(
            Repository("dataset", "facebook/multilingual_librispeech", self.revision), self.language, self.split
        )

    def from_row(self, row: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """Id, transcript, language and speaker of a row."""
        return stem_of(row), text_in(row, "text"), CODES[self.language], text_in(row, "speaker")

    def inside(self, folder: Path) -> Path | None:
        """The folder of the split in the folder of the language, which may be `folder` itself."""
        inner = folder if folder.name == self.split else folder / self.split
        return inner if inner.parent.name in self.usual_folders() and inner.is_dir() else None

    def recordings(self, folder: Path) -> list[Recording]:
        """The utterances in the order of `transcripts.txt`.

        Raises:
            CorpusError: there is no transcript, or they cannot be read.
        """
        found = []
        audio = {path.stem: path for path in (folder / "audio").glob("*/*/*") if path.suffix in (".flac", ".opus")}
        texts = dict(line.split("\t", 1) for line in lines_of(folder / "transcripts.txt", "\t"))
        for name in [*texts, *sorted(set(audio) - set(texts))]:
            speaker, book = [*name.split("_"), "", ""][:2]
            path = audio.get(name, folder / "audio" / speaker / book / f"{name}.flac")
            error = None if name in texts else f"{folder / 'transcripts.txt'} has no transcript of {name}"
            found.append(Recording(name, texts.get(name, ""), CODES[self.language], speaker, path, error))
        if not found:
            raise CorpusError(f"{folder} has no utterance, so that the split is empty; {self.about.get} anew")
        return found
