"""A corpus of one's own: a folder of audio files with their transcripts, in one of the forms that the field uses."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from emtta_core.corpora.base import Availability, Choice, Count, Utterance, choose_of, id_of, is_id, least
from emtta_core.corpora.kaldi import SCP, read_kaldi
from emtta_core.corpora.lhotse_cuts import CUTS, is_cuts, read_cuts
from emtta_core.corpora.manifest import read_manifest
from emtta_core.corpora.metadata import as_json, notes_of
from emtta_core.corpora.recording import FileDigests, Recording
from emtta_core.corpora.sidecars import read_sidecars
from emtta_core.corpora.utterance_rows import Row, Table
from emtta_core.errors import EmttaError, UsageError
from emtta_core.identity import IDENTITY, RUNTIME, Record, digest

_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_MANIFESTS = (
    *("manifest.csv", "manifest.tsv", "manifest.jsonl", "manifest.json", "manifest.parquet"),
    *_METADATA,
    *CUTS,
    SCP,
)
_SPLITS = frozenset({"train", "training", "test", "testing", "eval", "evaluation", "dev", "valid", "val", "validation"})
_LANGUAGE = re.compile(r"[a-z]{2,3}")


class Folder(Record):
    """A folder of audio files with a manifest, or with a sidecar `.txt` for each that holds its transcript.

    The manifest is a table as CSV, JSON lines or Parquet, in emtta's own form (`path`, `text`), NeMo's
    (`audio_filepath`) or Hugging Face's (`file_name`), known by its columns; the `wav.scp` of a folder as Kaldi keeps
    it; or Lhotse's cuts. An utterance is a file, or a segment of one; without an id, it is named after its path. One
    whose duration, in seconds, is not that of its file is in error. Further columns are kept as metadata.

    Where the files lie and what the manifest is called are no part of the corpus's identity: `content_digest`
    is taken of what they hold.
    """

    name: Annotated[Literal["folder"], IDENTITY] = "folder"
    path: Annotated[str, RUNTIME, Field(min_length=1)]  # the folder; `~` is the home folder
    # The manifest's path in the folder; left out, it is `manifest.csv`, `.tsv`, `.jsonl`, `.json` or `.parquet`,
    # `metadata.csv`, `.jsonl` or `.parquet`, `wav.scp`, `cuts.jsonl` or `cuts.jsonl.gz`, and where there is none of
    # these the transcripts are sidecars.
    manifest: Annotated[str | None, RUNTIME, Field(min_length=1)] = None
    # Which split, of a folder that has a subfolder for each.
    split: Annotated[str | None, RUNTIME, Field(min_length=1)] = None
    # ISO 639-1 code, of the utterances whose language the manifest does not give.
    language: Annotated[str, IDENTITY, Field(pattern=f"^{_LANGUAGE.pattern}$")] = "en"
    # How many to use, spread over the speakers; None for all.
    utterances: Annotated[int | None, IDENTITY, Field(ge=1)] = None
    # Longer utterances are left out, and counted.
    max_seconds: Annotated[float | None, IDENTITY, Field(gt=0, allow_inf_nan=False)] = None
    # Whether nobody speaks: the transcripts must then be empty or missing, and words that a model hears are insertions.
    silence: Annotated[bool, IDENTITY] = False
    # Whether files outside of the folder are read, where the manifest names them.
    absolute: Annotated[bool, RUNTIME] = False

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
        notes = (*table.notes, *notes_of(row.metadata for row in table.rows), *self._outside(table))
        return replace(self._choice(self._utterances(table), limit).count(), notes=notes)

    def content_digest(self) -> str:
        """A digest of the utterances: their fields, and their audio files' bytes.

        The bytes are read where the file has changed since they were last read. A file that is missing counts as
        missing, so that the corpus is another one when it is there again.

        Raises:
            UsageError: the manifest is missing or has a mistake.
        """
        digests, contents = FileDigests(self._folder), list[list[object]]()
        table = self._table()
        found = self._utterances(table)
        for index in self._choice(found).indices:
            utterance, row = found[index], table.rows[index]
            fields = [utterance.id, utterance.text, utterance.language, utterance.speaker, utterance.metadata]
            contents.append([*fields, *_span(row), digests.of(table.base / row.path)])
        digests.save()
        return digest(contents)

    def _utterances(self, table: Table) -> list[Utterance]:
        names = self._ids(table)
        return [self._utterance(row, name, table.base) for row, name in zip(table.rows, names, strict=True)]

    def _choice(self, found: Sequence[Utterance], limit: int | None = None) -> Choice:
        return choose_of(found, self.max_seconds, least(limit, self.utterances))

    @property
    def _folder(self) -> Path:
        return Path(self.path).expanduser()

    def _table(self) -> Table:
        # The rows, checked. Before any of it is read, the folder must be there.
        if not self._folder.is_dir():
            raise UsageError(f"the corpus folder {self.path!r} does not exist; give the folder that holds the audio")
        table = self._read()
        for row in table.rows:
            self._check(row, table.base)
        self._refuse_twice(table)
        return table

    def _read(self) -> Table:
        home, manifest = self._manifest()
        needs_text = not self.silence
        if manifest is None:
            return read_sidecars(home, needs_text=needs_text)
        if manifest.name == SCP:
            return read_kaldi(manifest, home, needs_text=needs_text)
        if is_cuts(manifest):
            return read_cuts(manifest, home)
        table = read_manifest(manifest, home, needs_text=needs_text)
        return self._of_split(table, manifest) if home == self._folder else table

    def _manifest(self) -> tuple[Path, Path | None]:
        # The folder, or that of the split, and its manifest; None where transcripts are beside the audio.
        if self.manifest is not None:
            return self._folder, self._folder / self.manifest
        homes = [self._folder] if self.split is None else [self._folder / self.split, self._folder]
        for home in homes:
            found = [home / name for name in _MANIFESTS if (home / name).exists()]
            if len(found) > 1:
                names = " and ".join(path.name for path in found)
                raise UsageError(
                    f"the corpus folder {str(home)!r} has {names}; say which one it is with the field manifest"
                )
            if found:
                return home, found[0]
        splits = sorted({path.parent.name for name in _METADATA for path in self._folder.glob(f"*/{name}")})
        if self.split is None and splits:
            raise self._unnamed(splits)
        if not homes[0].is_dir():
            others = sorted(path.name for path in self._folder.iterdir() if path.is_dir())
            raise UsageError(
                f"the corpus folder {self.path!r} has no split {self.split!r}; its folders are "
                f"{', '.join(others) or '(none)'}"
            )
        return homes[0], None

    def _of_split(self, table: Table, manifest: Path) -> Table:
        # The rows of the split, from the manifest of all splits: a path begins with its split.
        splits = sorted({Path(row.path).parts[0] for row in table.rows if len(Path(row.path).parts) > 1})
        if self.split is None:
            if manifest.name in _METADATA and len(splits) > 1 and {*splits} <= _SPLITS:
                raise self._unnamed(splits)
            return table
        rows = [row for row in table.rows if Path(row.path).parts[:1] == (self.split,)]
        if not rows:
            raise UsageError(
                f"{manifest} has no row of the split {self.split!r}; its paths begin with "
                f"{', '.join(splits) or '(none)'}"
            )
        return replace(table, rows=rows)

    def _unnamed(self, splits: Sequence[str]) -> UsageError:
        return UsageError(
            f"the corpus folder {self.path!r} has the splits {', '.join(splits)}; name one of them with the field split"
        )

    def _check(self, row: Row, base: Path) -> None:
        if not Path(row.path).name:
            raise row.refusal("path", row.path, "it must name an audio file")
        if self._is_outside(row, base) and not self.absolute:
            raise row.refusal(
                "path",
                row.path,
                f"it lies outside of the folder {self.path!r}; put the audio into it, or allow it with absolute = true "
                "in the corpus, or --allow-absolute",
            )
        if row.language and not _LANGUAGE.fullmatch(row.language):
            raise row.refusal("language", row.language, "it must be an ISO 639-1 code such as en")
        if row.id and not is_id(row.id):
            raise row.refusal("id", row.id, "it may hold letters (a-z, A-Z), digits, '.', '_' and '-'")
        if self.silence and row.text.strip():
            raise row.refusal(
                "text",
                row.text,
                "silence = true says that nobody speaks; leave the text empty, or take silence out of the corpus",
            )

    def _refuse_twice(self, table: Table) -> None:
        # Refuse a row whose id, or whose recording, is that of an earlier one.
        ids: dict[str, Row] = {}
        files: dict[object, dict[str, Row]] = defaultdict(dict)
        for row, name in zip(table.rows, self._ids(table), strict=True):
            first = ids.setdefault(name, row)
            if first is not row and row.file == first.file:
                raise row.refusal(
                    "id" if row.id else "path",
                    row.id or row.path,
                    f"the id {name!r} is that of line {first.line} already; give each utterance an id of its own",
                )
            if first is not row:
                raise UsageError(
                    f"the corpus folder {self.path!r} has {first.path} and {row.path}, which would both be called "
                    f"{name!r}; rename one of them"
                )
            path = table.base / row.path
            parts = files[_file_of(path)]
            # The whole file, and a segment of it, would count twice what the segment holds.
            again = parts.get(row.span) or parts.get("") or (next(iter(parts.values()), None) if not row.span else None)
            parts[row.span] = row
            if again is not None and os.path.realpath(path) == os.path.realpath(table.base / again.path):
                where = f"line {again.line}" if row.file == again.file else again.path
                raise row.refusal(
                    "path",
                    row.path,
                    f"it is the recording of {where} already, which would count twice; give each row a segment of its "
                    "own (offset and duration, in seconds), or take one of the two out",
                )

    def _is_outside(self, row: Row, base: Path) -> bool:
        folder = os.path.normpath(self._folder.absolute())
        return not Path(os.path.normpath(base.absolute() / row.path)).is_relative_to(folder)

    def _outside(self, table: Table) -> tuple[str, ...]:
        found = [row.path for row in table.rows if self._is_outside(row, table.base)]
        return (f"audio files outside of the folder, which are read: {len(found)}, as {found[0]}",) if found else ()

    def _ids(self, table: Table) -> list[str]:
        # The ids of the rows, or those that their paths give: folders joined by `-`, without the ending. What an id may
        # not hold becomes `_`, and then a digest of the path tells such names apart. Of an absolute path counts what
        # lies below the corpus's folder, or below the folder that all files outside of it share. A segment's id ends
        # with its beginning and end in milliseconds.
        outside = [Path(row.path) for row in table.rows if self._is_outside(row, table.base)]
        common = os.path.commonpath(
            [os.path.normpath(table.base.absolute() / path.parent) for path in outside] or ["/"]
        )
        return [row.id or _name(row, table.base.absolute(), Path(common)) for row in table.rows]

    def _utterance(self, row: Row, name: str, base: Path) -> Utterance:
        return Recording(
            id=name,
            text=row.text,
            language=row.language or self.language,
            speaker=row.speaker,
            path=base / row.path,
            error=row.error or (None if self.silence else _blank(row)),
            declared_seconds=row.duration,
            begin=row.begin,
            length=row.length,
            place=f"{row.file.name}, line {row.line}",
            metadata=as_json(row.metadata)[0],
            silence=self.silence,
        ).utterance()


def _span(row: Row) -> list[float | None]:
    # What is stated of its length, to a microsecond: an end minus a start is not to the last digit a duration.
    stated = [None, None, row.duration] if row.begin is None else [row.begin, row.length, None]
    return [None if value is None else round(value, 6) for value in stated]


def _file_of(path: Path) -> object:
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a path with a null character
        return os.path.normpath(path)
    return status.st_dev, status.st_ino


def _blank(row: Row) -> str | None:
    # Why a row without a transcript is in error, and what to do; None for a row with one.
    if row.text.strip():
        return None
    where = f"{row.file} is empty" if row.file.suffix == ".txt" else f"{row.file}, line {row.line}, has an empty text"
    return f"{where}: write what is said in {row.path} there, or leave the utterance out"


def _name(row: Row, base: Path, common: Path) -> str:
    path = Path(row.path)
    if path.is_absolute() or ".." in path.parts:
        full = Path(os.path.normpath(base / path))
        path = full.relative_to(base if full.is_relative_to(base) else common)
    source = row.path if path == Path(row.path) else path.as_posix()
    return id_of("-".join([*path.parent.parts, path.stem]), source=source) + row.span
