"""LibriSpeech, read English books (Panayotov et al., ICASSP 2015; https://www.openslr.org/12), and Multilingual
LibriSpeech, read books in seven languages (Pratap et al., Interspeech 2020; https://www.openslr.org/94).

The extracted folder of the first is `LibriSpeech/<split>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac`, with
the transcripts of a chapter in `<speaker>-<chapter>.trans.txt`: an id and its text per line. On the hub,
`openslr/librispeech_asr` has all splits in its configuration `all`.

That of the second is `mls_<language>/<split>/`, with `transcripts.txt` (an id, a tab and the text per line) and
`audio/<speaker>/<book>/<speaker>_<book>_<number>.flac`, or `.opus` in the smaller archives `mls_<language>_opus`. On
the hub, `facebook/multilingual_librispeech` has one configuration per language.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from emtta_core.corpora.base import Archive
from emtta_core.corpora.hub_split import HubSplit
from emtta_core.corpora.published import About, Hosted
from emtta_core.corpora.recording import Recording, lines_of
from emtta_core.errors import CorpusError
from emtta_core.hub import Repository
from emtta_core.identity import IDENTITY

Split = Literal[
    "test-clean", "test-other", "dev-clean", "dev-other", "train-clean-100", "train-clean-360", "train-other-500"
]

SPLIT_SIZES: Mapping[Split, int] = {
    "test-clean": 346_663_984,
    "test-other": 328_757_843,
    "dev-clean": 337_926_286,
    "dev-other": 314_305_928,
    "train-clean-100": 6_387_309_499,
    "train-clean-360": 23_049_477_885,
    "train-other-500": 30_593_501_606,
}
"""Bytes of each split's archive, which https://www.openslr.org/12 only gives rounded (`[328M]`); from Kaldi's recipe,
which checks downloads by size (kaldi-asr/kaldi, egs/librispeech/s5/local/download_and_untar.sh at 0c5da16)."""


class LibriSpeech(Hosted):
    """A split of LibriSpeech, 16 kHz."""

    about: ClassVar[About] = About(
        title="LibriSpeech",
        licence="CC BY 4.0",
        source="https://www.openslr.org/12",
        get="get the archive of the split at https://www.openslr.org/12 and extract it",
    )
    columns: ClassVar[Mapping[str, Sequence[str]]] = {"text": ("text",), "id": ("id",), "speaker": ("speaker_id",)}

    name: Annotated[Literal["librispeech"], IDENTITY] = "librispeech"
    split: Annotated[Split, IDENTITY] = "test-other"  # the split to use

    def part(self) -> str:
        """The split."""
        return self.split

    def folder_names(self) -> tuple[str, ...]:
        """`LibriSpeech`."""
        return ("LibriSpeech",)

    def archive(self) -> Archive:
        """The archive of the split."""
        return Archive("the split", SPLIT_SIZES[self.split], self.about.source)

    def on_hub(self) -> HubSplit:
        """The split of `openslr/librispeech_asr`: `test-other` is `test.other` there, `dev` is `validation`."""
        split = self.split.replace("-", ".").replace("dev.", "validation.")
        return HubSplit(Repository("dataset", "openslr/librispeech_asr", self.revision), "all", split)

    def inside(self, folder: Path) -> Path | None:
        """The folder of the split, which may be `folder` itself."""
        inner = folder if folder.name == self.split else folder / self.split
        return inner if inner.is_dir() else None

    def recordings(self, folder: Path) -> list[Recording]:
        """The utterances by speaker, chapter and number.

        Raises:
            CorpusError: there is no chapter, or its transcripts cannot be read.
        """
        found = []
        for transcript in sorted(folder.glob("*/*/*.trans.txt")):
            chapter = transcript.parent
            texts = dict(line.split(" ", 1) for line in lines_of(transcript, " "))
            for name in sorted({*texts, *(path.stem for path in chapter.glob("*.flac"))}):
                error = None if name in texts else f"{transcript} has no transcript of {name}"
                path = chapter / f"{name}.flac"
                found.append(Recording(name, texts.get(name, ""), "en", chapter.parent.name, path, error))
        if not found:
            raise CorpusError(
                f"{folder} has no transcript <speaker>/<chapter>/*.trans.txt, so the split is empty; "
                f"{self.about.get} again"
            )
        return found


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

LANGUAGE_SIZES: Mapping[str, int] = {
    "german": 122_944_886_305,
    "dutch": 92_158_429_530,
    "french": 64_474_642_518,
    "spanish": 53_296_894_035,
    "italian": 15_395_281_399,
    "portuguese": 9_982_803_818,
    "polish": 6_609_569_551,
}
"""Bytes of each language's archive `mls_<language>.tar.gz`, which https://www.openslr.org/94 only gives rounded, in
powers of 1024 (`115G`); counted in a download (huggingface/datasets, dataset_infos.json in
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
    language: Annotated[Language, IDENTITY]  # its English name
    split: Annotated[Literal["test", "dev", "train"], IDENTITY] = "test"  # the split to use

    def part(self) -> str:
        """Language and split."""
        return f"{self.language} {self.split}"

    def folder_names(self) -> tuple[str, ...]:
        """`mls_<language>`, and the same with `_opus`."""
        return f"mls_{self.language}", f"mls_{self.language}_opus"

    def archive(self) -> Archive:
        """The archive of the language."""
        return Archive("all splits of the language, as FLAC", LANGUAGE_SIZES[self.language], self.about.source)

    def on_hub(self) -> HubSplit:
        """The split in `facebook/multilingual_librispeech`."""
        return HubSplit(
            Repository("dataset", "facebook/multilingual_librispeech", self.revision), self.language, self.split
        )

    @property
    def code(self) -> str:
        """The ISO 639-1 code of its language."""
        return CODES[self.language]

    def inside(self, folder: Path) -> Path | None:
        """The folder of the split in the folder of the language, which may be `folder` itself."""
        inner = folder if folder.name == self.split else folder / self.split
        return inner if inner.parent.name in self.folder_names() and inner.is_dir() else None

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
            found.append(Recording(name, texts.get(name, ""), self.code, speaker, path, error))
        if not found:
            raise CorpusError(f"{folder} has no utterances, so the split is empty; {self.about.get} again")
        return found
