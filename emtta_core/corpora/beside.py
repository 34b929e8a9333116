"""Audio files with their transcripts beside them: `anna/01.flac` and `anna/01.txt`."""

from pathlib import Path

import soundfile

from emtta_core.corpora.manifest import Columns, Row
from emtta_core.corpora.transcripts import text_of
from emtta_core.errors import CorpusError, UsageError

AUDIO = frozenset(
    {f".{name.lower()}" for name in soundfile.available_formats() if name not in ("RAW", "SD2")}
    | {".aif", ".aifc", ".m4a", ".oga", ".opus", ".sph", ".snd"}
)
"""How the names of audio files end; one that libsndfile cannot read is an utterance in error."""


def rows_beside(folder: Path, columns: Columns) -> list[Row]:
    """Return a row for each audio file below a folder, by path; its text is that of the `.txt` file of the same name.

    One without such a file is a row in error.

    Raises:
        UsageError: there is no audio file, or none has a transcript.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO and path.is_file())
    rows = [_row(folder, path, columns) for path in files]
    if not any(row.error is None for row in rows):
        found = f"{len(rows)} audio files without" if rows else "no audio file with"
        raise UsageError(
            f"the corpus folder {str(folder)!r} has {found} a transcript: put a manifest.csv, .jsonl or .parquet into "
            "it, with the columns path and text, or a .txt file of the same name beside each audio file"
        )
    return rows


def _row(folder: Path, path: Path, columns: Columns) -> Row:
    """Return the row of an audio file."""
    beside = path.with_suffix(".txt")
    text, error = "", None
    try:
        text = text_of(beside)
    except CorpusError as refusal:
        error = f"{path}: {refusal}; write what is said to that file, in UTF-8, or take the audio out of the folder"
    values = dict.fromkeys((*columns.required, *columns.optional), "")
    return Row(beside, 1, values | {"path": path.relative_to(folder).as_posix(), "text": text}, error)
