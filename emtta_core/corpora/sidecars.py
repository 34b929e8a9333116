"""Sidecar transcripts: the transcript of `anna/01.flac` is in `anna/01.txt`."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import soundfile

from emtta_core.corpora.recording import text_of
from emtta_core.corpora.utterance_rows import Row, Table, some
from emtta_core.errors import CorpusError, UsageError

_OTHERS = (
    "aif aifc wave oga ogx opus spx sph snd mp1 mp2 mpga m4a m4b m4r m4v mp4 aac adts ac3 eac3 amr awb 3gp 3gpp 3ga "
    "webm weba mka mkv mov avi mpg mpeg wma asf ra rm ape wv tta mpc dts dsf dff shn gsm raw pcm"
)
AUDIO = frozenset(
    f".{name.lower()}" for name in (*soundfile.available_formats(), *_OTHERS.split()) if name not in ("RAW", "SD2")
)
"""The file extensions of recordings; one that libsndfile cannot read is an utterance in error."""

_SYSTEM = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
"""Folders that operating systems create for their own files."""


def read_sidecars(folder: Path, *, needs_text: bool = True) -> Table:
    """A row for each audio file under a folder, by path; its text is that of the `.txt` file of the same name.

    A recording without one is a row in error. Links are followed, each folder once; hidden files are skipped and noted.

    Raises:
        UsageError: no recording has a transcript, or two share one.
    """
    found = _find(folder)
    rows = [_row(folder, path, found.transcripts.get(path.with_suffix("")), needs_text) for path in sorted(found.audio)]
    _refuse_shared(folder, rows)
    if not any(row.error is None for row in rows):
        what = f"{len(rows)} audio files without" if rows else "no audio file with"
        raise UsageError(
            f"the corpus folder {str(folder)!r} has {what} a transcript: put a manifest.csv, .jsonl or .parquet into "
            "it, with the columns path and text, or a .txt file of the same name beside each audio file"
        )
    return Table(rows, folder, _notes(found))


def _row(folder: Path, path: Path, transcript: Path | None, needs_text: bool) -> Row:
    sidecar = folder / (transcript or path.with_suffix(".txt"))
    if transcript is None and not needs_text:
        return Row(sidecar, 1, path.as_posix())
    try:
        return Row(sidecar, 1, path.as_posix(), text_of(sidecar))
    except CorpusError as refusal:
        what = "write the transcript to that file, in UTF-8, or remove the audio from the folder"
        return Row(sidecar, 1, path.as_posix(), error=f"{folder / path}: {refusal}; {what}")


@dataclass(slots=True)
class _Found:
    """The files under a folder, as paths within it, by how they are used."""

    audio: list[Path] = field(default_factory=list)
    transcripts: dict[Path, Path] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def _find(folder: Path) -> _Found:
    found = _Found()
    seen = {os.path.realpath(folder): Path()}
    files_seen: dict[str, Path] = {}
    for parent, folders, files in os.walk(folder, followlinks=True):
        parent_path = Path(parent).relative_to(folder)
        for name in sorted(folders):
            if _is_hidden(name):
                found.hidden.append((parent_path / name).as_posix())
                folders.remove(name)
            elif (
                first := seen.setdefault(os.path.realpath(folder / parent_path / name), parent_path / name)
            ) != parent_path / name:
                found.duplicates.append(f"{(parent_path / name).as_posix()} (the same folder as {first.as_posix()})")
                folders.remove(name)
        folders.sort()
        for name in sorted(files, key=lambda name: ((folder / parent_path / name).is_symlink(), name)):
            path = parent_path / name
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
    # Add a recording, unless it is a link to one that was added under another name.
    first = seen.setdefault(os.path.realpath(folder / path), path)
    if first == path:
        found.audio.append(path)
    else:
        found.duplicates.append(f"{path.as_posix()} (the same recording as {first.as_posix()})")


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "~$")) or name.endswith("~") or name in _SYSTEM


def _notes(found: _Found) -> tuple[str, ...]:
    unmatched = sorted(set(found.transcripts) - {path.with_suffix("") for path in found.audio})
    kinds = Counter(path.suffix.lower() or "without an ending" for path in found.others)
    kinds_of = {
        "hidden, and skipped": sorted(found.hidden),
        "linked to again, and read once": sorted(found.duplicates),
        "text files without a recording of the same name, and not used": [
            found.transcripts[name].as_posix() for name in unmatched
        ],
        "neither recordings nor transcripts by their names, and not used": [
            f"{count} {kind}" for kind, count in kinds.most_common()
        ],
    }
    return tuple(f"{what}: {some(names)}" for what, names in kinds_of.items() if names)


def _refuse_shared(folder: Path, rows: Sequence[Row]) -> None:
    # Refuse two recordings with the same stem, as it would be unclear which of them the transcript belongs to.
    first: dict[Path, str] = {}
    for row in rows:
        path = row.path
        other = first.setdefault(Path(path).with_suffix(""), path)
        if other != path:
            raise UsageError(
                f"the corpus folder {str(folder)!r} has {other} and {path}, which share a transcript; remove one of "
                "them, or list those to use in a manifest.csv with the columns path and text"
            )
