"""TED-LIUM, release 3: English talks (Hernandez et al., SPECOM 2018; https://www.openslr.org/51).

The extracted folder is `TEDLIUM_release-3/legacy/<split>/`, with `sph/<talk>.sph` and `stm/<talk>.stm`; a line of the
latter is talk, channel, speaker, begin and end in seconds, labels, and the text. On the hub, the test split is in
`hf-audio/esb-datasets-test-only-sorted`, cut into utterances.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from emtta_core.audio.files import caching
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform
from emtta_core.corpora.hub_split import HubSplit
from emtta_core.corpora.published import About, Hosted, stem_of, text_in
from emtta_core.corpora.recording import Recording, text_of
from emtta_core.errors import AudioError, CorpusError
from emtta_core.hub import Repository
from emtta_core.identity import IDENTITY

_NOT_SCORED = "ignore_time_segment_in_scoring"
"""The text of a segment that is not an utterance."""

_talk = caching(files=2)
"""Reads a whole talk, shape `(N,)`; its utterances are usually read in succession."""


@dataclass(frozen=True, slots=True)
class Piece(Recording):
    """An utterance that is a segment of a talk, from `begin` to `end` in seconds."""

    begin: float = 0.0
    end: float = 0.0

    def samples(self) -> Waveform:
        """The segment of the talk, shape `(N,)`; AudioError if it is empty."""
        talk = _talk(self.path)
        piece = talk[round(self.begin * SAMPLE_RATE) : round(self.end * SAMPLE_RATE)]
        if not piece.size:
            raise AudioError(
                f"{self.path}: has no audio from {self.begin:g} to {self.end:g} s; it is "
                f"{talk.size / SAMPLE_RATE:.1f} s long"
            )
        return piece

    def seconds(self) -> float:
        """Its length."""
        return self.end - self.begin


class TedLium(Hosted):
    """A split of TED-LIUM, release 3, 16 kHz.

    The marks `<unk>` of unintelligible words are removed from the text, and separate clitics (`it 's`) are joined. A
    segment without an intelligible word is an utterance in error. Segments between utterances
    (`ignore_time_segment_in_scoring`) are left out in a folder; on the hub, where rows are counted before they are
    read, they are utterances in error.
    """

    about: ClassVar[About] = About(
        title="TED-LIUM 3",
        licence="CC BY-NC-ND 3.0",
        source="https://www.openslr.org/51",
        get="get the archive at https://www.openslr.org/51 and extract it",
    )
    columns: ClassVar[Mapping[str, Sequence[str]]] = {"text": ("text",), "id": ("id",), "speaker": ("speaker_id",)}

    name: Annotated[Literal["tedlium"], IDENTITY] = "tedlium"
    split: Annotated[Literal["test", "dev", "train"], IDENTITY] = "test"  # the split to use; the hub has only `test`

    def part(self) -> str:
        """The split."""
        return self.split

    def folder_names(self) -> tuple[str, ...]:
        """The name of the archive's folder."""
        return ("TEDLIUM_release-3",)

    def on_hub(self) -> HubSplit:
        """The split in `hf-audio/esb-datasets-test-only-sorted`."""
        return HubSplit(
            Repository("dataset", "hf-audio/esb-datasets-test-only-sorted", self.revision), "tedlium", self.split
        )

    def from_row(self, row: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """Id, transcript, language and speaker of a row; an id begins with the talk."""
        name = stem_of(row)
        return name, _text(text_in(row, "text")), "en", text_in(row, "speaker") or name.partition("-")[0]

    def refusal(self, row: Mapping[str, Any]) -> str | None:
        """Why a row cannot be scored; None if it can."""
        return _refusal(text_in(row, "text"))

    def inside(self, folder: Path) -> Path | None:
        """The folder of the split, which may be `folder` itself."""
        for inner in (folder / "legacy" / self.split, folder / self.split, folder):
            if inner.name == self.split and (inner / "stm").is_dir():
                return inner
        return None

    def recordings(self, folder: Path) -> list[Recording]:
        """The utterances by talk and time.

        Raises:
            CorpusError: there are none, or a line is malformed.
        """
        found: list[Recording] = []
        for path in sorted((folder / "stm").glob("*.stm")):
            lines = [line for line in text_of(path).split("\n") if line.strip() and not line.startswith(";;")]
            for line in lines:
                piece = _piece(line, path, folder / "sph" / f"{path.stem}.sph")
                if piece.text != _NOT_SCORED:
                    found.append(piece)
        if not found:
            raise CorpusError(f"{folder} has no utterances in stm/*.stm, so the split is empty; {self.about.get} again")
        return found


def _piece(line: str, file: Path, audio: Path) -> Piece:
    fields = line.split(None, 6)
    try:
        talk, _, speaker, begin, end = fields[:5]
        start, stop = float(begin), float(end)
    except ValueError as error:
        raise CorpusError(
            f"{file}: the line {line[:60]!r} is not talk, channel, speaker, begin, end, labels and text; "
            "extract the archive again"
        ) from error
    words = fields[6] if len(fields) > 6 else ""
    name = f"{talk}-{start:.2f}-{stop:.2f}"
    return Piece(name, _text(words), "en", speaker, audio, _refusal(words), begin=start, end=stop)


def _refusal(text: str) -> str | None:
    if _text(text) == _NOT_SCORED:
        return f"the corpus marks it as not an utterance ({_NOT_SCORED}), so it cannot be scored"
    if not _text(text):
        return f"its transcript has no intelligible word ({text.strip()!r}), so it cannot be scored"
    return None


def _text(text: str) -> str:
    # A text without the marks of unintelligible words, and with clitics joined.
    return " ".join(text.replace("<unk>", " ").split()).replace(" '", "'")
