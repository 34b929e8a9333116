"""A corpus of one's own: a folder of audio files with their transcripts, in one of the forms that the field uses."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
from emtta_core.corpora.utterance_rows import LANGUAGE, NO_LANGUAGE, NOT_SILENT, Row, Table
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
    language: Annotated[str, IDENTITY, Field(pattern=f"^{LANGUAGE.pattern}$")] = "en"
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
        found = self._utterances(self._checked())
        return (found[index] for index in self._choice(found, limit).indices)

    def availability(self) -> Availability:
        """Whether the folder and its transcripts are there, and are as they should be."""
        what = f"folder {self._folder.name}"
        try:
            self._checked()
        except EmttaError as error:
            return Availability(what, "missing", self.path, "your own", error=str(error))
        return Availability(what, "here", self.path, "your own")

    def count(self, limit: int | None = None) -> Count:
        """Count what `read_all` would give.

        Raises:
            UsageError: the manifest is missing or has a mistake.
        """
        rows = self._checked()
        notes = (*rows.notes, *notes_of(row.metadata for row in rows.table.rows))
        return replace(self._choice(self._utterances(rows), limit).count(), notes=notes)

    def content_digest(self) -> str:
        """A digest of the utterances: their fields, and their audio files' bytes.

        The bytes are read where the file has changed since they were last read. A file that is missing counts as
        missing, so that the corpus is another one when it is there again.

        Raises:
            UsageError: the manifest is missing or has a mistake.
        """
        digests, contents = FileDigests(self._folder), list[list[object]]()
        rows = self._checked()
        found = self._utterances(rows)
        for index in self._choice(found).indices:
            utterance, row = found[index], rows.table.rows[index]
            fields = [utterance.id, utterance.text, utterance.language, utterance.speaker, utterance.metadata]
            contents.append([*fields, *_span(row), digests.of(rows.table.base / row.path)])
        digests.save()
        return digest(contents)

    def _utterances(self, rows: "_Checked") -> list[Utterance]:
        pairs = zip(rows.table.rows, rows.ids, strict=True)
        return [self._utterance(row, name, rows.table.base) for row, name in pairs]

    def _choice(self, found: Sequence[Utterance], limit: int | None = None) -> Choice:
        return choose_of(found, self.max_seconds, least(limit, self.utterances))

    @property
    def _folder(self) -> Path:
        return Path(self.path).expanduser()

    def _checked(self) -> "_Checked":
        if not self._folder.is_dir():
            raise UsageError(f"the corpus folder {self.path!r} does not exist; give the folder that holds the audio")
        table = self._read()
        rows = _Checked.of(table, Path(os.path.normpath(self._folder.absolute())))
        for index, row in enumerate(table.rows):
            self._check(row, index in rows.outside)
        self._refuse_twice(rows)
        return rows

    def _read(self) -> Table:
        home, manifest = self._manifest()
        needs_text = not self.silence
        if manifest is None:
            return read_sidecars(home, needs_text=needs_text)
        if manifest.name == SCP:
            table = read_kaldi(manifest, home, needs_text=needs_text)
        elif is_cuts(manifest):
            table = read_cuts(manifest, home)
        else:
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
        if self.split is None and manifest.name not in _METADATA:
            return table
        tops = [path.partition("/")[0] if "/" in path else "" for path in (row.path for row in table.rows)]
        splits = sorted({*tops} - {""})
        if self.split is None:
            if len(splits) > 1 and {*splits} <= _SPLITS:
                raise self._unnamed(splits)
            return table
        rows = [row for row, top in zip(table.rows, tops, strict=True) if top == self.split]
        if not rows:
            raise UsageError(
                f"{manifest} has no row of the split {self.split!r}; its paths begin with "
                f"{', '.join(splits) or 'no folder'}"
            )
        return replace(table, rows=rows)

    def _unnamed(self, splits: Sequence[str]) -> UsageError:
        return UsageError(
            f"the corpus folder {self.path!r} has the splits {', '.join(splits)}; name one of them with the field split"
        )

    def _check(self, row: Row, is_outside: bool) -> None:
        if not Path(row.path).name:
            raise row.refusal("path", row.path, "it must name an audio file")
        if is_outside and not self.absolute:
            raise row.refusal(
                "path",
                row.path,
                f"it lies outside of the folder {self.path!r}; put the audio into it, or allow it with absolute = true "
                "in the corpus, or --allow-absolute",
            )
        if row.language and not LANGUAGE.fullmatch(row.language):
            raise row.refusal("language", row.language, NO_LANGUAGE)
        if row.id and not is_id(row.id):
            raise row.refusal("id", row.id, "it may hold letters (a-z, A-Z), digits, '.', '_' and '-'")
        if self.silence and row.text.strip():
            raise row.refusal("text", row.text, NOT_SILENT)

    def _refuse_twice(self, rows: "_Checked") -> None:
        # Refuse a row whose id, or whose recording, is that of an earlier one.
        ids: dict[str, Row] = {}
        files: dict[object, dict[str, Row]] = defaultdict(dict)
        table = rows.table
        for row, name in zip(table.rows, rows.ids, strict=True):
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


@dataclass(frozen=True, slots=True)
class _Checked:
    """The rows of a folder with their ids."""

    table: Table
    ids: list[str]  # of the rows, in their order
    outside: dict[int, str]  # the paths that lead out of the folder, by the index of their row

    @classmethod
    def of(cls, table: Table, folder: Path) -> Self:
        """Give each row its id, or the one that its path gives: folders joined by `-`, without the ending.

        What an id may not hold becomes `_`, and then a digest of the path tells such names apart. Of an absolute path
        counts what lies below the corpus's folder, or below the folder that all files outside of it share. A segment's
        id ends with its beginning and end in milliseconds.
        """
        base = Path(os.path.normpath(table.base.absolute()))
        # The paths that may lead elsewhere than below `base`, as they are.
        full = {
            index: Path(os.path.normpath(base / row.path))
            for index, row in enumerate(table.rows)
            if row.path.startswith("/") or ".." in row.path or not base.is_relative_to(folder)
        }
        outside = {index: path for index, path in full.items() if not path.is_relative_to(folder)}
        common = os.path.commonpath([path.parent for path in outside.values()]) if outside else "/"
        ids = []
        for index, row in enumerate(table.rows):
            path = row.path
            if not row.id and index in full:
                below = next(place for place in (base, folder, Path(common)) if full[index].is_relative_to(place))
                path = str(full[index].relative_to(below))
            ids.append(row.id or _name(path) + row.span)
        return cls(table, ids, {index: table.rows[index].path for index in outside})

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not used, and which files outside of the folder are."""
        if not self.outside:
            return self.table.notes
        example = next(iter(self.outside.values()))
        found = f"audio files outside of the folder, which are read: {len(self.outside)}, as {example}"
        return (*self.table.notes, found)


def _name(path: str) -> str:
    folder, _, name = path.rpartition("/")
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    return id_of("-".join([*parts, Path(name).stem]), source=path)


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
