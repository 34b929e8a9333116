"""Recordings in files: their transcripts, digests and audio."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from emtta_core import cache
from emtta_core.audio.files import length_in_seconds, max_file_bytes, read_audio, read_segment
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform
from emtta_core.corpora.base import Utterance
from emtta_core.errors import AudioError, CorpusError
from emtta_core.input_files import MEBIBYTE, check_plain, pointer_at, read_plain

MAX_TEXT_BYTES = 1024 * MEBIBYTE
"""The size limit in bytes of a transcript file or manifest."""


def text_of(path: Path) -> str:
    """The text in a file without surrounding white space; CorpusError if it cannot be read."""
    pointer = pointer_at(path)
    if pointer is not None:
        raise CorpusError(f"the transcript {path} cannot be read: {pointer}")
    try:
        text = read_plain(path, max_bytes=MAX_TEXT_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise CorpusError(f"the transcript {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"the transcript {path} is not UTF-8: {error.reason} at byte {error.start}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def lines_of(path: Path, separator: str) -> list[str]:
    """The non-blank lines of a file; CorpusError if one has no `separator` in it."""
    lines = [line for line in text_of(path).split("\n") if line.strip()]
    for number, line in enumerate(lines, start=1):
        if separator not in line:
            raise CorpusError(
                f"the transcripts {path} have {line[:40]!r} as line {number}, with no text after the id; "
                "extract the corpus again"
            )
    return [line.rstrip("\r") for line in lines]


class FileDigests:
    """The digests of the files under one folder, cached by size and modification time."""

    def __init__(self, folder: Path) -> None:
        """Load the cached digests of the files under `folder`."""
        self._key = str(folder.resolve())
        self._cached: dict[str, list[object]] = (cache.load("files", self._key) or {}).get("files", {})
        self._has_new = False
        self._read: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """The SHA-256 of a file, or why it cannot be read."""
        if path not in self._read:
            self._read[path] = self._digest(path)
        return self._read[path]

    def save(self) -> None:
        """Save new digests to the cache."""
        if self._has_new:
            cache.save("files", self._key, {"folder": self._key, "files": self._cached})

    def _digest(self, path: Path) -> str:
        try:
            before = check_plain(path, max_bytes=max_file_bytes())
            state = [before.st_size, before.st_mtime_ns]
            cached = self._cached.get(str(path))
            if cached is not None and cached[:2] == state:
                return str(cached[2])
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError) as error:  # ValueError: a path with a null character
            return getattr(error, "strerror", None) or str(error)
        if cache.is_stable(before.st_mtime_ns):
            self._cached[str(path)] = [*state, digest]
            self._has_new = True
        return digest


_TOLERANCE = 0.5
"""Seconds by which a length may differ from the stated one, which may be in milliseconds, unless a tenth is more."""


@dataclass(frozen=True, slots=True)
class Recording:
    """An utterance in a folder."""

    id: str  # as in `Utterance`, like the text, the language and the speaker
    text: str
    language: str
    speaker: str
    path: Path  # its audio file
    error: str | None = None  # why it cannot be used, if already known
    declared_seconds: float | None = None  # its length according to the corpus; None if not stated
    begin: float | None = None  # where in the file it begins, in seconds; None: it is the whole file
    length: float | None = None  # of a segment, in seconds; None: to the end of the file
    location: str = ""  # where the corpus defines the segment, for messages
    metadata: str = "{}"  # as in `Utterance`, like silence
    silence: bool = False

    def utterance(self) -> Utterance:
        """The recording as an `Utterance`."""
        return Utterance(
            self.id, self.text, self.language, self.speaker, self.read, self.seconds, self.metadata, self.silence
        )

    def read(self) -> Waveform:
        """Read the waveform, shape `(N,)`; AudioError if it is missing or cannot be used."""
        if self.error is not None:
            raise AudioError(self.error)
        samples = self.samples()
        declared, seconds = self.declared_seconds, len(samples) / SAMPLE_RATE
        if declared is not None and min(abs(declared - seconds), abs(declared / 1000 - seconds)) > max(
            _TOLERANCE, seconds / 10
        ):
            raise AudioError(
                f"{self.path}: the corpus states a length of {declared:g} s, but it is {seconds:.2f} s: the "
                "transcript may be of a part of it, whose offset is missing, or the file incomplete; cut it, get it "
                "again, or correct the duration"
            )
        return samples

    def samples(self) -> Waveform:
        """The samples of its audio, shape `(N,)`; AudioError if there are none."""
        if self.begin is None:
            return read_audio(self.path)
        return read_segment(self.path, self.begin, self.length, name=f"{self.path} ({self.location})")

    def seconds(self) -> float | None:
        """Its length, or that in the audio's header; None if neither states it."""
        if self.length is not None:
            return self.length
        total = length_in_seconds(self.path)
        return total if total is None or self.begin is None else max(total - self.begin, 0.0)
