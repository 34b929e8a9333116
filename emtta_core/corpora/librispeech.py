"""LibriSpeech: read English books (Panayotov and others, ICASSP 2015; https://www.openslr.org/12).

The extracted folder is `LibriSpeech/<split>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac`, with the
transcripts of a chapter in `<speaker>-<chapter>.trans.txt`: an id and its text a line. On the hub,
`openslr/librispeech_asr` has all splits in its configuration `all`.
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

Split = Literal[
    "test-clean", "test-other", "dev-clean", "dev-other", "train-clean-100", "train-clean-360", "train-other-500"
]

SIZES: Mapping[Split, int] = {
    "test-clean": 346_663_984,
    "test-other": 328_757_843,
    "dev-clean": 337_926_286,
    "dev-other": 314_305_928,
    "train-clean-100": 6_387_309_499,
    "train-clean-360": 23_049_477_885,
    "train-other-500": 30_593_501_606,
}
"""Bytes of each split's archive, which https://www.openslr.org/12 gives rounded (`[328M]`): those of Kaldi's recipe,
which checks downloads by them (kaldi-asr/kaldi, egs/librispeech/s5/local/download_and_untar.sh at 0c5da16)."""


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
    split: Annotated[Split, IDENTITY] = "test-other"  # which

    def part(self) -> str:
        """The split."""
        return self.split

    def usual_folders(self) -> tuple[str, ...]:
        """`LibriSpeech`."""
        return ("LibriSpeech",)

    def archive(self) -> Archive:
        """The archive of the split."""
        return Archive("the split", SIZES[self.split], self.about.source)

    def on_hub(self) -> HubSplit:
        """The split of `openslr/librispeech_asr`: `test-other` is `test.other` there, `dev` is `validation`."""
        split = self.split.replace("-", ".").replace("dev.", "validation.")
        return HubSplit(Repository("dataset", "openslr/librispeech_asr", self.revision), "all", split)

    def from_row(self, row: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """Id, transcript, language and speaker of a row."""
        return stem_of(row), text_in(row, "text"), "en", text_in(row, "speaker")

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
                f"{folder} has no transcript <speaker>/<chapter>/*.trans.txt, so that the split is empty; "
                f"{self.about.get} anew"
            )
        return found
