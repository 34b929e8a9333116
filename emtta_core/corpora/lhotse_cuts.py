"""Lhotse's cuts in JSON lines, which are read by that library (https://lhotse.readthedocs.io)."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from emtta_core.corpora.base import id_of
from emtta_core.corpora.manifest import decoded, object_in, read_text
from emtta_core.corpora.recording import MAX_TEXT_BYTES
from emtta_core.corpora.utterance_rows import Row, Table, number_of, segment
from emtta_core.errors import UsageError, in_words
from emtta_core.input_files import check_plain

CUTS = ("cuts.jsonl", "cuts.jsonl.gz")
"""The usual names of a file of cuts."""

INSTALL = "pip install 'emtta[lhotse]'"

_ROUNDING = 0.01
"""Seconds by which a cut of a whole recording may differ from it."""


def is_cuts(path: Path) -> bool:
    """Whether a manifest is of cuts, by the columns of its first line, or by its name if it cannot be read."""
    if path.suffix not in (".jsonl", ".gz"):
        return False
    try:
        check_plain(path)
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            first = json.loads(next(line for line in file if line.strip()))
    except (OSError, EOFError, ValueError, StopIteration, zlib.error, RecursionError):
        return path.name in CUTS or path.suffix == ".gz"
    return isinstance(first, dict) and "supervisions" in first


def read_cuts(path: Path, folder: Path) -> Table:
    """The rows of a file of cuts, which may be compressed with gzip: one per cut.

    Paths are relative to the corpus's folder. The `custom` fields of a cut and its supervision, and the gender, are
    metadata.

    Raises:
        UsageError: the file cannot be read, or has no cuts; a cut is not one segment of one audio file with at most one
            supervision; or the package lhotse is not installed.
    """
    try:
        from lhotse.serialization import deserialize_item
    except ImportError as error:
        raise UsageError(
            f"{path} has Lhotse's cuts, which need the package {error.name}, which is not installed: {INSTALL}"
        ) from error
    rows = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        fields = object_in(where, line)
        if fields.get("type") not in ("MonoCut", "Cut"):
            raise UsageError(
                f"{where}: it is a {fields.get('type')!r}, and only cuts of one channel of one recording are read "
                "(MonoCut); write others to audio files, for example with CutSet.save_audios(FOLDER)"
            )
        try:
            cut = deserialize_item(fields)
        except Exception as error:  # what the library raises has no common base
            raise UsageError(f"{where}: lhotse cannot read it: {in_words(error)}; save the cuts again") from error
        rows.append(_row(path, number, cut))
    if not rows:
        raise UsageError(f"{path} has no cuts; add one for each utterance")
    return Table(rows, folder)


def _text(path: Path) -> str:
    if path.suffix != ".gz":
        return read_text(path)
    try:
        check_plain(path, max_bytes=MAX_TEXT_BYTES)
        with gzip.open(path) as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"the manifest {path} cannot be read: {in_words(error)}") from error
    if len(data) > MAX_TEXT_BYTES:
        raise UsageError(f"the manifest {path} has more than {MAX_TEXT_BYTES >> 20} MiB of text; split it")
    return decoded(path, data)


def _row(path: Path, line: int, cut: Any) -> Row:
    where = f"{path}, line {line}, cut {cut.id!r}"
    if len(cut.supervisions) > 1:
        raise UsageError(
            f"{where}: it has {len(cut.supervisions)} supervisions, and an utterance has one; split it, for example "
            "with `lhotse cut trim-to-supervisions`"
        )
    recording = cut.recording
    if recording is None:
        raise UsageError(f"{where}: it has no recording; add one, for example with `lhotse cut simple` and recordings")
    kinds = [source.type for source in recording.sources]
    if kinds != ["file"]:
        raise UsageError(
            f"{where}: its audio comes from {', '.join(kinds) or 'nothing'}, and must be in one file; write it to one, "
            "for example with CutSet.save_audios(FOLDER)"
        )
    if recording.num_channels > 1:
        raise UsageError(
            f"{where}: its recording has {recording.num_channels} channels, which would be averaged: write each to a "
            "separate file, for example with CutSet.save_audios(FOLDER)"
        )
    changes = [name for name in map(_name_of, recording.transforms or ()) if name != "Resample"]
    if changes:
        raise UsageError(
            f"{where}: its recording has the transforms {', '.join(changes)}, which are not applied; write the "
            "transformed audio to a file, for example with CutSet.save_audios(FOLDER)"
        )
    supervision = cut.supervisions[0] if cut.supervisions else None
    custom: dict[str, Any] = {**(cut.custom or {}), **((supervision and supervision.custom) or {})}
    start, duration, total = (number_of(value) for value in (cut.start, cut.duration, recording.duration))
    if start is None or duration is None or total is None:
        raise UsageError(f"{where}: its start and duration, and its recording's, must be numbers of seconds")
    begin, length = segment(Row(path, line, "").refusal, offset=start, duration=duration)
    whole = begin == 0 and abs(duration - total) <= _ROUNDING
    return Row(
        path,
        line,
        str(recording.sources[0].source),
        text=(supervision and supervision.text) or "",
        id=id_of(cut.id),
        language=(supervision and supervision.language) or "",
        speaker=(supervision and supervision.speaker) or "",
        begin=None if whole else begin,
        length=None if whole else length,
        metadata=({"gender": supervision.gender} if supervision and supervision.gender else {}) | custom,
    )


def _name_of(transform: Any) -> str:
    return str(transform.get("name")) if isinstance(transform, dict) else type(transform).__name__
