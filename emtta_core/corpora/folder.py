"""A corpus of one's own: a folder of audio files, and a manifest or sidecar files (`anna/01.txt`) with transcripts."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, Self

import soundfile
from pydantic import Field

from emtta_core.corpora.base import Availability, Choice, Count, Utterance, choose_of, id_of, is_id, least
from emtta_core.corpora.manifest import LANGUAGE_ALIASES, Columns, Row, Table, read_manifest
from emtta_core.corpora.recording import FileDigests, Recording, text_of
from emtta_core.errors import CorpusError, EmttaError, UsageError
from emtta_core.identity import IDENTITY, RUNTIME, Record, digest

_SEGMENT = re.compile(
    r"((audio|clip|seg|segment|speech|utt|utterance|time|t)_?)?(offset|onset|start|begin|end|stop|xmin|xmax)s?"
    r"(_?(at|time|offset|pos|position|s|sec|secs|second|seconds|ms|frame|sample))?|t[01]"
)
_CHANNEL = re.compile(r"(audio_?)?(channel|ch)(_?(id|index|no|number|num))?")

_CALLED = {
    "path": "audio audio_file audio_filepath audio_path clip file file_name file_path filename filepath recording "
    "sound uri url wav wav_path",
    "text": "label normalized_text raw_text raw_transcription ref reference sentence target trans transcript "
    "transcription transcripts txt utterance words",
    "id": "audio_id clip_id file_id key sample_id segment_id uid utt utt_id uttid utterance_id",
    "speaker": "client_id reader reader_id speaker_id speaker_name speakerid spk spk_id spkid talker user_id",
    "duration": "audio_duration dur duration_s duration_sec duration_seconds",
}
"""What other programs call the columns."""

_COLUMNS = Columns(
    required=("path", "text"),
    optional=("id", "language", "speaker", "duration"),
    aliases={name: frozenset(others.split()) for name, others in _CALLED.items()} | {"language": LANGUAGE_ALIASES},
    refused={
        _SEGMENT: "an utterance is a whole file here: cut the recording into one file for each, or take the column out "
        "where each row is its whole file",
        _CHANNEL: "the channels of a file are averaged here: write each into a file of its own, or take the column out",
    },
    numbers=("duration",),
)
_MANIFESTS = ("manifest.csv", "manifest.jsonl", "manifest.parquet")
_LANGUAGE = re.compile(r"[a-z]{2,3}")

_OTHERS = (
    "aif aifc wave oga ogx opus spx sph snd mp1 mp2 mpga m4a m4b m4r m4v mp4 aac adts ac3 eac3 amr awb 3gp 3gpp 3ga "
    "webm weba mka mkv mov avi mpg mpeg wma asf ra rm ape wv tta mpc dts dsf dff shn gsm raw pcm"
)
AUDIO = frozenset(
    f".{name.lower()}" for name in (*soundfile.available_formats(), *_OTHERS.split()) if name not in ("RAW", "SD2")
)
"""How the names of recordings end; one that libsndfile cannot read is an utterance in error."""

_SYSTEM = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
"""Folders that systems make for copies of their own."""

_NAMED = 3
"""How many files a note names of a kind."""


class Folder(Record):
    """A folder of audio files with a manifest, or with a sidecar `.txt` for each that holds its transcript.

    A manifest is a CSV file with a header line, a file of JSON lines, or a Parquet file. Its columns
    are `path` and `text`, and, if wanted, `id`, `language`, `speaker` and `duration`; others are noted. A path is
    relative to the folder and does not leave it. An utterance without an id is named after its path. One whose
    duration, in seconds, is not that of its file is in error.

    Where the files lie and what the manifest is called are no part of the corpus's identity: `content_digest`
    is taken of what they hold.
    """

    name: Annotated[Literal["folder"], IDENTITY] = "folder"
    path: Annotated[str, RUNTIME, Field(min_length=1)]  # the folder; `~` is the home folder
    # The manifest's path in the folder; left out, it is `manifest.csv`, `.jsonl` or `.parquet`, and where there is
    # none of these the transcripts are sidecars.
    manifest: Annotated[str | None, RUNTIME, Field(min_length=1)] = None
    # ISO 639-1 code, of the utterances whose language the manifest does not give.
    language: Annotated[str, IDENTITY, Field(pattern=f"^{_LANGUAGE.pattern}$")] = "en"
    # How many to use, spread over the speakers; None for all.
    utterances: Annotated[int | None, IDENTITY, Field(ge=1)] = None
    # Longer utterances are left out, and counted.
    max_seconds: Annotated[float | None, IDENTITY, Field(gt=0, allow_inf_nan=False)] = None

    def located(self) -> Self:
        """The corpus as it is: its path is given."""
        return self

    def read_all(self, limit: int | None = None) -> Iterator[Utterance]:
        """Yield the utterances, or `limit` of them, in the manifest's order; the manifest is checked at once.

        A missing or broken audio file raises `AudioError` when its own utterance is read.

        Raises:
            UsageError: the manifest is missing or has a mistake; names file, line and column.
        """
        found = self._utterances(self._table())
        return (found[index] for index in self._choice(found, limit).indices)

    def availability(self) -> Availability:
        """Whether the folder and its transcripts are there, and are as they should be."""
        what = f"folder {self._folder.name}"
        try:
            self._table()
        except EmttaError as error:
            return Availability(what, "missing", self.path, "your own", error=str(error))
        return Availability(what, "here", self.path, "your own")

    def count(self, limit: int | None = None) -> Count:
        """Count what `read_all` would give.

        Raises:
            UsageError: the manifest is missing or has a mistake.
        """
        table = self._table()
        return replace(self._choice(self._utterances(table), limit).count(), notes=table.notes)

    def content_digest(self) -> str:
        """A digest of the utterances: their fields, and their audio files' bytes.

        The bytes are read where the file has changed since they were last read. A file that is missing counts as
        missing, so that the corpus is another one when it is there again.

        Raises:
            UsageError: the manifest is missing or has a mistake.
        """
        digests, contents = FileDigests(self._folder), list[list[str]]()
        table = self._table()
        found = self._utterances(table)
        for index in self._choice(found).indices:
            utterance, values = found[index], table.rows[index].values
            fields = [utterance.id, utterance.text, utterance.language, utterance.speaker]
            fields += [values["duration"]] if values["duration"] else []
            contents.append([*fields, digests.of(self._folder / values["path"])])
        digests.save()
        return digest(contents)

    def _utterances(self, table: Table) -> list[Utterance]:
        return [self._utterance(row) for row in table.rows]

    def _choice(self, found: Sequence[Utterance], limit: int | None = None) -> Choice:
        return choose_of(found, self.max_seconds, least(limit, self.utterances))

    @property
    def _folder(self) -> Path:
        return Path(self.path).expanduser()

    def _table(self) -> Table:
        if not self._folder.is_dir():
            raise UsageError(f"the corpus folder {self.path!r} does not exist; give the folder that holds the audio")
        manifest = self._manifest()
        table = _with_sidecars(self._folder) if manifest is None else read_manifest(manifest, _COLUMNS)
        ids: dict[str, Row] = {}
        files: dict[object, Row] = {}
        for row in table.rows:
            self._check(row)
            self._refuse_again(row, ids, files)
        return table

    def _manifest(self) -> Path | None:
        # The manifest; None where there is none, and transcripts are beside the audio.
        if self.manifest is not None:
            return self._folder / self.manifest
        found = [self._folder / name for name in _MANIFESTS if (self._folder / name).exists()]
        if len(found) > 1:
            names = " and ".join(path.name for path in found)
            raise UsageError(
                f"the corpus folder {self.path!r} has {names}; say which one it is with the field manifest"
            )
        return found[0] if found else None

    def _check(self, row: Row) -> None:
        if not Path(row.values["path"]).name:
            raise row.refusal("path", "it must name an audio file")
        path = os.path.normpath(self._folder.absolute() / row.values["path"])
        if not Path(path).is_relative_to(os.path.normpath(self._folder.absolute())):
            raise row.refusal("path", f"it lies outside of the folder {self.path!r}; put the audio into it")
        language = row.values["language"]
        if language and not _LANGUAGE.fullmatch(language):
            raise row.refusal("language", "it must be an ISO 639-1 code such as en")
        if row.values["duration"].strip() and _number(row.values["duration"]) is None:
            raise row.refusal("duration", "it must be a number of seconds such as 1.5; correct it, or leave it empty")
        if row.values["id"] and not is_id(row.values["id"]):
            raise row.refusal("id", "it may hold letters (a-z, A-Z), digits, '.', '_' and '-'")

    def _refuse_again(self, row: Row, ids: dict[str, Row], files: dict[object, Row]) -> None:
        # Refuse a row whose id, or whose recording, is that of an earlier one; add it to both.
        name = _name(row)
        first = ids.setdefault(name, row)
        if first is not row and row.file == first.file:
            raise row.refusal(
                "id" if row.values["id"] else "path",
                f"the id {name!r} is that of line {first.line} already; give each utterance an id of its own",
            )
        if first is not row:
            raise UsageError(
                f"the corpus folder {self.path!r} has {first.values['path']} and {row.values['path']}, which would "
                f"both be called {name!r}; rename one of them"
            )
        path = self._folder / row.values["path"]
        first = files.setdefault(_file_of(path), row)
        if first is not row and os.path.realpath(path) == os.path.realpath(self._folder / first.values["path"]):
            where = f"line {first.line}" if row.file == first.file else first.values["path"]
            raise row.refusal(
                "path",
                f"it is the recording of {where} already, which would count twice; cut the recording into one file for "
                "each utterance, or take one of the two out",
            )

    def _utterance(self, row: Row) -> Utterance:
        return Recording(
            id=_name(row),
            text=row.values["text"],
            language=row.values["language"] or self.language,
            speaker=row.values["speaker"],
            path=self._folder / row.values["path"],
            error=row.error or _blank(row),
            declared_seconds=_number(row.values["duration"]),
        ).utterance()


def _file_of(path: Path) -> object:
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a path with a null character
        return os.path.normpath(path)
    return status.st_dev, status.st_ino


def _number(text: str) -> float | None:
    # A number, which is neither infinite nor NaN; None where the text is none.
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _blank(row: Row) -> str | None:
    # Why a row without a transcript is in error, and what to do; None for a row with one.
    if row.values["text"].strip():
        return None
    where = f"{row.file} is empty" if row.file.suffix == ".txt" else f"{row.file}, line {row.line}, has an empty text"
    return f"{where}: write what is said in {row.values['path']} there, or leave the utterance out"


def _name(row: Row) -> str:
    """The row's id, or one from its path: its folders joined by `-`, without the ending.

    What an id may not hold becomes `_`, and then a digest of the path tells such names apart.
    """
    if row.values["id"]:
        return row.values["id"]
    path = Path(row.values["path"])
    folders = [part for part in path.parent.parts if part != path.anchor]
    return id_of("-".join([*folders, path.stem]), source=row.values["path"])


@dataclass(slots=True)
class _Found:
    """The files below a folder, as paths within it, by what becomes of them."""

    audio: list[Path] = field(default_factory=list)
    transcripts: dict[Path, Path] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def _with_sidecars(folder: Path) -> Table:
    # A row for each audio file below a folder, by path; its text is that of the `.txt` file of the same name, without
    # which it is a row in error. Links are followed, each folder once; hidden files are skipped, and noted.
    found = _find(folder)
    rows = [_row(folder, path, found.transcripts.get(path.with_suffix(""))) for path in sorted(found.audio)]
    _refuse_shared(folder, rows)
    if not any(row.error is None for row in rows):
        what = f"{len(rows)} audio files without" if rows else "no audio file with"
        raise UsageError(
            f"the corpus folder {str(folder)!r} has {what} a transcript: put a manifest.csv, .jsonl or .parquet into "
            "it, with the columns path and text, or a .txt file of the same name beside each audio file"
        )
    return Table(rows, _notes(found))


def _find(folder: Path) -> _Found:
    found = _Found()
    seen = {os.path.realpath(folder): Path()}
    files_seen: dict[str, Path] = {}
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = Path(parent).relative_to(folder)
        for name in sorted(folders):
            if _is_hidden(name):
                found.hidden.append((here / name).as_posix())
                folders.remove(name)
            elif (first := seen.setdefault(os.path.realpath(folder / here / name), here / name)) != here / name:
                found.again.append(f"{(here / name).as_posix()} (the same folder as {first.as_posix()})")
                folders.remove(name)
        folders.sort()
        for name in sorted(files, key=lambda name: ((folder / here / name).is_symlink(), name)):
            path = here / name
            kind = path.suffix.lower()
            if _is_hidden(name):
                if kind in AUDIO or kind == ".txt":
                    found.hidden.append(path.as_posix())
            elif kind in AUDIO:
                _take(found, folder, path, files_seen)
            elif kind == ".txt":
                found.transcripts[path.with_suffix("")] = path
            else:
                found.others.append(path)
    return found


def _take(found: _Found, folder: Path, path: Path, seen: dict[str, Path]) -> None:
    # Take a recording, unless it is a link to one that is taken by another name.
    first = seen.setdefault(os.path.realpath(folder / path), path)
    if first == path:
        found.audio.append(path)
    else:
        found.again.append(f"{path.as_posix()} (the same recording as {first.as_posix()})")


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "~$")) or name.endswith("~") or name in _SYSTEM


def _notes(found: _Found) -> tuple[str, ...]:
    lonely = sorted(set(found.transcripts) - {path.with_suffix("") for path in found.audio})
    kinds = Counter(path.suffix.lower() or "without an ending" for path in found.others)
    kinds_of = {
        "hidden, and skipped": sorted(found.hidden),
        "linked to again, and read once": sorted(found.again),
        "text files without a recording of the same name, and not used": [
            found.transcripts[name].as_posix() for name in lonely
        ],
        "neither recordings nor transcripts by their names, and not used": [
            f"{count} {kind}" for kind, count in kinds.most_common()
        ],
    }
    return tuple(f"{what}: {_some(names)}" for what, names in kinds_of.items() if names)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _refuse_shared(folder: Path, rows: Sequence[Row]) -> None:
    # Refuse two recordings of one name, which would have one transcript: nobody can tell which of them is meant.
    first: dict[Path, str] = {}
    for row in rows:
        path = row.values["path"]
        other = first.setdefault(Path(path).with_suffix(""), path)
        if other != path:
            raise UsageError(
                f"the corpus folder {str(folder)!r} has {other} and {path}, to which the same transcript belongs; take "
                "one of them away, or list those that are used in a manifest.csv with the columns path and text"
            )


def _row(folder: Path, path: Path, transcript: Path | None) -> Row:
    sidecar = folder / (transcript or path.with_suffix(".txt"))
    text, error = "", None
    try:
        text = text_of(sidecar)
    except CorpusError as refusal:
        what = "write what is said to that file, in UTF-8, or take the audio out of the folder"
        error = f"{folder / path}: {refusal}; {what}"
    values = dict.fromkeys(_COLUMNS.asked, "")
    return Row(sidecar, 1, values | {"path": path.as_posix(), "text": text}, error)
