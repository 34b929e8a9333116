"""Your own corpus: a folder of audio files with their transcripts, in one of the common formats."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from emtta_core.corpora.base import Availability, Choice, Count, Utterance, choose_of, id_of, is_id, smallest
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
    """A folder of audio files with a manifest, or with a sidecar `.txt` for each that contains its transcript.

    The manifest is a table as CSV, JSON lines or Parquet, in emtta's own format (`path`, `text`), NeMo's
    (`audio_filepath`) or Hugging Face's (`file_name`), identified by its columns; the `wav.scp` of a Kaldi data folder;
    or Lhotse's cuts. An utterance is a file, or a segment of one; without an id, it is named after its path. One whose
    stated duration, in seconds, is not that of its file is in error. Further columns are kept as metadata.

    The location of the files and the name of the manifest are not part of the corpus's identity: `content_digest`
    covers only their content.
    """

    name: Annotated[Literal["folder"], IDENTITY] = "folder"
    path: Annotated[str, RUNTIME, Field(min_length=1)]  # the folder; `~` is the home folder
    # The manifest's path in the folder; by default `manifest.csv`, `.tsv`, `.jsonl`, `.json` or `.parquet`,
    # `metadata.csv`, `.jsonl` or `.parquet`, `wav.scp`, `cuts.jsonl` or `cuts.jsonl.gz`; if there is none of these, the
    # transcripts are sidecars.
    manifest: Annotated[str | None, RUNTIME, Field(min_length=1)] = None
    # The split to use, if the folder has a subfolder for each.
    split: Annotated[str | None, RUNTIME, Field(min_length=1)] = None
    # ISO 639-1 code for utterances whose language the manifest does not state.
    language: Annotated[str, IDENTITY, Field(pattern=f"^{LANGUAGE.pattern}$")] = "en"
    # How many utterances to use, spread over the speakers; None for all.
    utterances: Annotated[int | None, IDENTITY, Field(ge=1)] = None
    # Longer utterances are left out, and counted.
    max_seconds: Annotated[float | None, IDENTITY, Field(gt=0, allow_inf_nan=False)] = None
    # Whether there is no speech: the transcripts must then be empty or missing, and transcribed words are insertions.
    silence: Annotated[bool, IDENTITY] = False
    # Whether files outside the folder are read if the manifest names them.
    absolute: Annotated[bool, RUNTIME] = False

    def located(self) -> Self:
        """Return the corpus unchanged, as its path is given."""
        return self

    def read_all(self, limit: int | None = None) -> Iterator[Utterance]:
        """Yield the utterances, or `limit` of them, in the manifest's order; the manifest is checked immediately.

        A missing or broken audio file raises `AudioError` when its own utterance is read.

        Raises:
            UsageError: the manifest is missing or has a mistake; names file, line and column.
        """
        found = self._utterances(self._checked())
        return (found[index] for index in self._choice(found, limit).indices)

    def availability(self) -> Availability:
        """Whether the folder and its transcripts exist and are valid."""
        what = f"folder {self._folder.name}"
        try:
            self._checked()
        except EmttaError as error:
            return Availability(what, "missing", self.path, "your own", error=str(error))
        return Availability(what, "here", self.path, "your own")

    def count(self, limit: int | None = None) -> Count:
        """Count what `read_all` would yield.

        Raises:
            UsageError: the manifest is missing or has a mistake.
        """
        rows = self._checked()
        notes = (*rows.notes, *notes_of(row.metadata for row in rows.table.rows))
        return replace(self._choice(self._utterances(rows), limit).count(), notes=notes)

    def content_digest(self) -> str:
        """A digest of the utterances: their fields, and their audio files' bytes.

        A file's bytes are read only if it has changed since the last time. A missing file counts as missing, so the
        digest changes when it is back.

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
        return choose_of(found, self.max_seconds, smallest(limit, self.utterances))

    @property
    def _folder(self) -> Path:
        return Path(self.path).expanduser()

    def _checked(self) -> "_Checked":
        if not self._folder.is_dir():
            raise UsageError(f"the corpus folder {self.path!r} does not exist; name the folder that contains the audio")
        table = self._read()
        rows = _Checked.of(table, Path(os.path.normpath(self._folder.absolute())))
        for index, row in enumerate(table.rows):
            self._check(row, index in rows.outside)
        self._refuse_duplicates(rows)
        return rows

    def _read(self) -> Table:
        root, manifest = self._manifest()
        needs_text = not self.silence
        if manifest is None:
            return read_sidecars(root, needs_text=needs_text)
        if manifest.name == SCP:
            table = read_kaldi(manifest, root, needs_text=needs_text)
        elif is_cuts(manifest):
            table = read_cuts(manifest, root)
        else:
            table = read_manifest(manifest, root, needs_text=needs_text)
        return self._of_split(table, manifest) if root == self._folder else table

    def _manifest(self) -> tuple[Path, Path | None]:
        # The folder, or that of the split, and its manifest; None if transcripts are beside the audio.
        if self.manifest is not None:
            return self._folder, self._folder / self.manifest
        roots = [self._folder] if self.split is None else [self._folder / self.split, self._folder]
        for root in roots:
            found = [root / name for name in _MANIFESTS if (root / name).exists()]
            if len(found) > 1:
                names = " and ".join(path.name for path in found)
                raise UsageError(
                    f"the corpus folder {str(root)!r} has {names}; choose one of them with the field manifest"
                )
            if found:
                return root, found[0]
        splits = sorted({path.parent.name for name in _METADATA for path in self._folder.glob(f"*/{name}")})
        if self.split is None and splits:
            raise self._unnamed(splits)
        if not roots[0].is_dir():
            others = sorted(path.name for path in self._folder.iterdir() if path.is_dir())
            raise UsageError(
                f"the corpus folder {self.path!r} has no split {self.split!r}; its folders are "
                f"{', '.join(others) or '(none)'}"
            )
        return roots[0], None

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
                f"it is outside the folder {self.path!r}; put the audio into it, or allow it with absolute = true "
                "in the corpus, or --allow-absolute",
            )
        if row.language and not LANGUAGE.fullmatch(row.language):
            raise row.refusal("language", row.language, NO_LANGUAGE)
        if row.id and not is_id(row.id):
            raise row.refusal("id", row.id, "it may contain letters (a-z, A-Z), digits, '.', '_' and '-'")
        if self.silence and row.text.strip():
            raise row.refusal("text", row.text, NOT_SILENT)

    def _refuse_duplicates(self, rows: "_Checked") -> None:
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
                    f"the id {name!r} is already used in line {first.line}; give each utterance a unique id",
                )
            if first is not row:
                raise UsageError(
                    f"the corpus folder {self.path!r} has {first.path} and {row.path}, which would both be named "
                    f"{name!r}; rename one of them"
                )
            path = table.base / row.path
            parts = files[_file_of(path)]
            # With the whole file and a segment of it, the segment would count twice.
            duplicate = (
                parts.get(row.span) or parts.get("") or (next(iter(parts.values()), None) if not row.span else None)
            )
            parts[row.span] = row
            if duplicate is not None and os.path.realpath(path) == os.path.realpath(table.base / duplicate.path):
                where = f"line {duplicate.line}" if row.file == duplicate.file else duplicate.path
                raise row.refusal(
                    "path",
                    row.path,
                    f"it is already the recording of {where} and would count twice; give each row its own segment "
                    "(offset and duration, in seconds), or remove one of the two",
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
            location=f"{row.file.name}, line {row.line}",
            metadata=as_json(row.metadata)[0],
            silence=self.silence,
        ).utterance()


@dataclass(frozen=True, slots=True)
class _Checked:
    """The rows of a folder with their ids."""

    table: Table
    ids: list[str]  # of the rows, in order
    outside: dict[int, str]  # the paths outside the folder, by the index of their row

    @classmethod
    def of(cls, table: Table, folder: Path) -> Self:
        """Give each row its id, or one made from its path: folders joined by `-`, without the extension.

        Invalid characters become `_`, and a digest of the path is appended to keep such names distinct. An absolute
        path counts relative to the corpus's folder, or to the common parent of all files outside it. A segment's id
        ends with its start and end in milliseconds.
        """
        base = Path(os.path.normpath(table.base.absolute()))
        # The full paths of rows that may be outside `base`.
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
                root = next(parent for parent in (base, folder, Path(common)) if full[index].is_relative_to(parent))
                path = str(full[index].relative_to(root))
            ids.append(row.id or _name(path) + row.span)
        return cls(table, ids, {index: table.rows[index].path for index in outside})

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not used, and which files outside the folder are."""
        if not self.outside:
            return self.table.notes
        example = next(iter(self.outside.values()))
        found = f"audio files read from outside the folder: {len(self.outside)}, such as {example}"
        return (*self.table.notes, found)


def _name(path: str) -> str:
    folder, _, name = path.rpartition("/")
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    return id_of("-".join([*parts, Path(name).stem]), source=path)


def _span(row: Row) -> list[float | None]:
    # The stated times, rounded to microseconds, as an end minus a start is not exactly a duration.
    stated = [None, None, row.duration] if row.begin is None else [row.begin, row.length, None]
    return [None if value is None else round(value, 6) for value in stated]


def _file_of(path: Path) -> object:
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a path with a null character
        return os.path.normpath(path)
    return status.st_dev, status.st_ino


def _blank(row: Row) -> str | None:
    # Why a row without a transcript is in error, and what to do; None if it has one.
    if row.text.strip():
        return None
    where = f"{row.file} is empty" if row.file.suffix == ".txt" else f"{row.file}, line {row.line}, has an empty text"
    return f"{where}: write the transcript of {row.path} there, or remove the utterance"
