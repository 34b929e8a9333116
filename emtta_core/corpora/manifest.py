"""Manifests: tables that people write, as CSV, JSON lines or Parquet; a mistake is shown by line and column."""

import csv
import difflib
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emtta_core.corpora.recording import MOST
from emtta_core.errors import UsageError
from emtta_core.input_files import check_plain, pointer_in, read_plain

_LANGUAGES = (
    "iso iso639 iso_639 iso_639_1 lang lang_code lang_id langcode langid language_code language_id language_name "
    "languages lid lng locale source_lang source_language spoken_language src_lang"
)
LANGUAGE_ALIASES = frozenset(_LANGUAGES.split())
"""What other programs call a column of languages."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What a manifest is asked for."""

    required: tuple[str, ...]  # the columns that each row must have
    optional: tuple[str, ...]  # those that it may have
    # What other programs call them; one of these in place of the column is asked about.
    aliases: Mapping[str, Collection[str]] = field(default_factory=dict)
    # Columns that would change what the others mean, as a pattern of their names, with why.
    refused: Mapping[re.Pattern[str], str] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()  # those of the columns whose values may be numbers, not text

    @property
    def asked(self) -> tuple[str, ...]:
        """All that are read."""
        return (*self.required, *self.optional)

    def check(self, where: str, names: Collection[str]) -> None:
        """Refuse names: an asked one twice, one that means an asked one, a refused one, a required one missing."""
        twice = [name for name in self.asked if list(names).count(name) > 1]
        if twice:
            raise UsageError(f"{where}: the column {twice[0]!r} is there more than once; give each a name of its own")
        for name in names:
            meant = None if name in self.asked else self._meant(name)
            if meant is not None and meant not in names:  # `speaker_id` beside `speaker` is no slip
                raise UsageError(
                    f"{where}: there is a column {name!r}; should it be {meant!r}? Rename it, or take it out"
                )
            for pattern, reason in self.refused.items():
                if pattern.fullmatch(_plain(name)):
                    raise UsageError(f"{where}: there is a column {name!r}, and {reason}")
        for name in self.required:
            if name not in names:
                raise UsageError(
                    f"{where}: there is no column {name!r}, only {', '.join(map(repr, names)) or 'none'}; each row "
                    f"needs {' and '.join(self.required)}, and may have {', '.join(self.optional)}"
                )

    def _meant(self, name: str) -> str | None:
        # The column that a name is another one of, or a slip of; None for none.
        plain = _plain(name)
        for asked, others in self.aliases.items():
            if plain in others:
                return asked
        return next(iter(difflib.get_close_matches(plain, self.asked, n=1, cutoff=0.75)), None)

    def unused(self, names: Iterable[str]) -> tuple[str, ...]:
        """A note of the columns that are not read, if there are any."""
        others = sorted({name for name in names if name.strip()} - {*self.asked})
        return (f"columns that are not used: {', '.join(others)}",) if others else ()


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a manifest."""

    file: Path  # the manifest
    line: int  # the number of the line that the row ends on, from 1
    values: Mapping[str, str]  # the text in each column that was asked for; empty where the row has none
    error: str | None = None  # why the row's audio cannot be used, where that is known already

    def refusal(self, column: str, reason: str) -> UsageError:
        """The refusal of this row's value in `column`; `reason` says what is wrong and what is allowed."""
        return UsageError(f"{self.file}, line {self.line}, column {column!r}: {self.values[column]!r}: {reason}")


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a corpus, and notes of what is there and not used."""

    rows: list[Row]
    notes: tuple[str, ...] = ()


def read_manifest(path: Path, columns: Columns) -> Table:
    """The rows of a manifest, of which there is at least one.

    Blank lines are skipped. Columns that were not asked for are noted, unless their name says that they are
    meant as one that was asked for and is missing, or that a row cannot be understood without them.

    Args:
        path: a file that ends in `.csv` (with a header line), in `.jsonl` (an object a line, its values text), or in
            `.parquet` (its columns text; the lines are the rows from 1).
        columns: what the rows must and may have.

    Raises:
        UsageError: when the file is missing, is not such a file, has a mistake or has no rows.
    """
    readers = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}
    if path.suffix not in readers:
        raise UsageError(f"the manifest {path} ends in {path.suffix!r}; it must end in {', '.join(readers)}")
    rows: list[Row] = []
    names: dict[str, None] = {}
    for line, fields in readers[path.suffix](path, columns):
        names.update(dict.fromkeys(fields))
        rows.append(Row(path, line, {name: str(fields.get(name, "")) for name in columns.asked}))
    if not rows:
        raise UsageError(f"the manifest {path} has no rows; give it one for each utterance")
    return Table(rows, columns.unused(names))


def _read_text(path: Path) -> str:
    # The text of a manifest, which must be UTF-8, with or without a byte order mark.
    try:
        data = read_plain(path, most=MOST)
    except OSError as error:
        raise UsageError(f"the manifest {path} cannot be read: {error.strerror or error}") from error
    pointer = pointer_in(data, path)
    if pointer is not None:
        raise UsageError(f"the manifest {path} cannot be read: {pointer}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}, line {line}: the byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from error


def _csv_rows(path: Path, columns: Columns) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if not cells:
                continue
            if not header:
                header = cells
                columns.check(where, header)
                continue
            if len(cells) != len(header):
                raise UsageError(
                    f"{where}: there are {len(cells)} values for the {len(header)} columns of the header "
                    f"({', '.join(header)}); a text with a comma needs quotes about it"
                )
            yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: this is not CSV: {error}") from error


def _json_rows(path: Path, columns: Columns) -> Iterator[tuple[int, dict[str, Any]]]:
    # The line number and the fields of each row of a file of JSON lines; a null is an empty field.
    checked = set[tuple[str, ...]]()
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=partial(_object, where))
        except json.JSONDecodeError as error:
            raise UsageError(f"{where}, character {error.colno}: this is not JSON: {error.msg}") from error
        except RecursionError as error:
            raise UsageError(f"{where}: the row is nested too deeply; it must be an object of texts") from error
        if not isinstance(value, dict):
            raise UsageError(f'{where}: there is {line.strip()[:40]!r}; it must be an object such as {{"path": …}}')
        asked = {name: "" for name in columns.required if name in value}
        fields = asked | {name: field for name, field in value.items() if field is not None}
        if tuple(fields) not in checked:
            columns.check(where, fields)
            checked.add(tuple(fields))
        for name in columns.asked:
            text = fields.get(name, "")
            if not _is_value(text, name, columns):
                raise UsageError(f"{where}, column {name!r}: {text!r}: it must be text, in quotes")
            lone = next((letter for letter in str(text) if "\ud800" <= letter <= "\udfff"), None)
            if lone is not None:
                raise UsageError(
                    f"{where}, column {name!r}: it holds {lone!r}, half of a pair of UTF-16 and no letter; "
                    "write the letter itself, in UTF-8"
                )
        yield number, fields


def _object(where: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    # An object of JSON, in which no name may stand twice: of two values one would be lost.
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise UsageError(f"{where}: the column {twice!r} is there more than once; give each a name of its own")
    return found


def _is_value(value: object, column: str, columns: Columns) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str) or (is_number and column in columns.numbers)


def _parquet_rows(path: Path, columns: Columns) -> Iterator[tuple[int, dict[str, Any]]]:
    # The number from 1 and the fields of each row of a Parquet file; a null is an empty field.
    try:
        check_plain(path)
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns.check(str(path), names)
            asked = [name for name in columns.asked if name in names]
            rows = file.read(columns=asked).to_pylist()
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise UsageError(f"the manifest {path} cannot be read: {reason}") from error
    others = dict.fromkeys(name for name in names if name not in asked)
    for number, row in enumerate(rows, start=1):
        fields = {name: value for name, value in row.items() if value is not None}
        for name, value in fields.items():
            if not _is_value(value, name, columns):
                raise UsageError(f"{path}, line {number}, column {name!r}: {value!r}: it must be text")
        yield number, others | fields
