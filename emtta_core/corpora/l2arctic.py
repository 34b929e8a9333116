"""L2-ARCTIC: English read by native speakers of six other languages (Zhao et al., Interspeech 2018;
https://psi.engr.tamu.edu/l2-arctic-corpus/).

It is available after registration, and not on the hub. The extracted folder has one folder per speaker, with
`wav/arctic_<number>.wav` (44.1 kHz) and the prompt in `transcript/arctic_<number>.txt`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from emtta_core.corpora.base import Archive
from emtta_core.corpora.published import About, Published
from emtta_core.corpora.recording import Recording, text_of
from emtta_core.errors import CorpusError
from emtta_core.identity import IDENTITY

Accent = Literal["arabic", "mandarin", "hindi", "korean", "spanish", "vietnamese"]

SPEAKERS: Mapping[str, tuple[str, ...]] = {
    "arabic": ("ABA", "SKA", "YBAA", "ZHAA"),
    "mandarin": ("BWC", "LXC", "NCC", "TXHC"),
    "hindi": ("ASI", "RRBI", "SVBI", "TNI"),
    "korean": ("HJK", "HKK", "YDCK", "YKWK"),
    "spanish": ("EBVS", "ERMS", "MBMPS", "NJS"),
    "vietnamese": ("HQTV", "PNV", "THV", "TLV"),
}
"""The speakers by their first language."""

EXCEPTIONS: Mapping[str, tuple[str, ...]] = {
    "ABA": ("a0158", "b0013", "b0398"),
    "ASI": ("b0013",),
    "BWC": ("b0013", "b0345"),
    "EBVS": ("b0408",),
    "HJK": ("b0013",),
    "HKK": ("b0013",),
    "LXC": ("b0013",),
    "NCC": ("b0013",),
    "NJS": ("b0013",),
    "RRBI": ("a0298", "b0013"),
    "SKA": ("b0358",),
    "TNI": ("b0013",),
    "YBAA": ("a0094", "b0013"),
    "YDCK": ("b0013",),
    "YKWK": ("b0013",),
}
"""The recordings that the paper's authors leave out in their earlier code, without giving a reason, by speaker and
prompt (hhhaaahhhaa/Test-time-adaptation-ASR-SUTA, src/corpus/corpus.py at 663bd9d)."""

ARCHIVE = Archive(
    "all speakers",
    7_515_454_814,
    "https://github.com/okrudrah/EquiVoice/blob/b4a2ce67eceb8fcc1475d962f34d7e7b2925c6ef/docs/l2_arctic_raw_validation.md",
)
"""`l2arctic_release_v5.0.zip`, as measured by others; the corpus's own pages give no size."""


class L2Arctic(Published):
    """The speakers of one accent, or all 24."""

    about: ClassVar[About] = About(
        title="L2-ARCTIC",
        licence="CC BY-NC 4.0",
        source="https://psi.engr.tamu.edu/l2-arctic-corpus/",
        get="request it with the form at https://psi.engr.tamu.edu/l2-arctic-corpus/, and extract the archive, and the "
        "archives of the speakers in it",
    )

    name: Annotated[Literal["l2arctic"], IDENTITY] = "l2arctic"
    accent: Annotated[Accent | None, IDENTITY] = None  # their first language; None for all
    exceptions: Annotated[Literal["keep", "leave-out"], IDENTITY] = "keep"  # the recordings in `EXCEPTIONS`

    @property
    def speakers(self) -> tuple[str, ...]:
        """The codes of its speakers."""
        accents = SPEAKERS if self.accent is None else (self.accent,)
        return tuple(speaker for accent in accents for speaker in SPEAKERS[accent])

    def archive(self) -> Archive:
        """The archive of the release."""
        return ARCHIVE

    def part(self) -> str:
        """The accent."""
        return self.accent or "of all accents"

    def folder_names(self) -> tuple[str, ...]:
        """The names of the archive's folder."""
        return "l2arctic", "l2arctic_release_v5.0", "L2-ARCTIC"

    def inside(self, folder: Path) -> Path | None:
        """The folder that contains those of the speakers."""
        return folder if any(_speaker_folder(folder, speaker) is not None for speaker in self.speakers) else None

    def recordings(self, folder: Path) -> list[Recording]:
        """The utterances by speaker and sentence, of the speakers that are present.

        Raises:
            CorpusError: a speaker has neither a recording nor a transcript.
        """
        speaker_folders = self._speaker_folders(folder)
        sentences = {speaker: _sentences(speaker_folder) for speaker, speaker_folder in speaker_folders.items()}
        silent = [speaker for speaker, names in sentences.items() if not names]
        if silent:
            raise CorpusError(
                f"{folder} has folders of {', '.join(silent)} with no recording wav/*.wav and no transcript "
                "transcript/*.txt; extract the archives of these speakers again"
            )
        return [
            _recording(speaker, speaker_folder, name)
            for speaker, speaker_folder in speaker_folders.items()
            for name in sentences[speaker]
            if not self._is_left_out(speaker, name)
        ]

    def notes(self, folder: Path) -> tuple[str, ...]:
        """The missing speakers, and the recordings that are left out."""
        speaker_folders = self._speaker_folders(folder)
        missing = [speaker for speaker in self.speakers if speaker not in speaker_folders]
        left_out = [
            f"{speaker} {name}"
            for speaker, speaker_folder in speaker_folders.items()
            for name in _sentences(speaker_folder)
            if self._is_left_out(speaker, name)
        ]
        notes = []
        if missing:
            notes.append(
                f"speakers that are not in {folder}: {', '.join(missing)}, {len(missing)} of {len(self.speakers)}; the "
                "figures are for the others; extract the archives of these speakers to include them"
            )
        if left_out:
            notes.append(f"recordings left out, as the paper's authors do: {', '.join(left_out)}")
        return tuple(notes)

    def _speaker_folders(self, folder: Path) -> dict[str, Path]:
        speaker_folders = {speaker: _speaker_folder(folder, speaker) for speaker in self.speakers}
        return {
            speaker: speaker_folder for speaker, speaker_folder in speaker_folders.items() if speaker_folder is not None
        }

    def _is_left_out(self, speaker: str, name: str) -> bool:
        return self.exceptions == "leave-out" and name.removeprefix("arctic_") in EXCEPTIONS.get(speaker, ())


def _speaker_folder(folder: Path, speaker: str) -> Path | None:
    # The folder of a speaker, which some programs extract into a folder named after the archive.
    for speaker_folder in (folder / speaker, folder / speaker / speaker):
        if (speaker_folder / "wav").is_dir():
            return speaker_folder
    return None


def _sentences(speaker_folder: Path) -> list[str]:
    # The sentences of a speaker, by file name: all with a recording, a transcript, or both.
    return sorted({path.stem for path in (*speaker_folder.glob("wav/*.wav"), *speaker_folder.glob("transcript/*.txt"))})


def _recording(speaker: str, speaker_folder: Path, name: str) -> Recording:
    text, error = "", None
    try:
        text = text_of(speaker_folder / "transcript" / f"{name}.txt")
    except CorpusError as refusal:
        error = str(refusal)
    return Recording(f"{speaker}-{name}", text, "en", speaker, speaker_folder / "wav" / f"{name}.wav", error)
