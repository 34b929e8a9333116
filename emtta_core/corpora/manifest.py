"""Manifests: tables that people write, as CSV, JSON lines or Parquet; a mistake is shown by line and column."""

import csv
import difflib
import io
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from emtta_core.errors import UsageError
from emtta_core.pointers import pointer_in


@dataclass(frozen=True, slots=True)
class Columns:
    """What a manifest is asked for: the columns that each row must have, and those that it may have."""

    required: tuple[str, ...]
    optional: tuple[str, ...]

    def check(self, place: str, names: Collection[str]) -> None:
        """Refuse column names: an asked one twice, a required one missing, or one that is nearly a missing one."""
        asked = (*self.required, *self.optional)
        twice = [name for name in asked if list(names).count(name) > 1]
        if twice:
            raise UsageError(f"{place}: the column {twice[0]!r} is there more than once; give each a name of its own")
        for name in names:
            near = difflib.get_close_matches(name.strip().lower(), asked, n=1, cutoff=0.75)
            if name not in asked and near and near[0] not in names:  # `speaker_id` beside `speaker` is no slip
                raise UsageError(f"{place}: there is a column {name!r}; should it be {near[0]!r}?")
        for name in self.required:
            if name not in names:
                raise UsageError(
                    f"{place}: there is no column {name!r}, only {', '.join(map(repr, names)) or 'none'}; each row "
                    f"needs {' and '.join(self.required)}, and may have {', '.join(self.optional)}"
                )


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a manifest.

    Attributes:
        file: the manifest.
        line: the number of the line that the row ends on, from 1.
        values: the text in each column that was asked for; empty where the row has none.
        error: why the row's audio cannot be used, where that is known already.
    """

    file: Path
    line: int
    values: Mapping[str, str]
    error: str | None = None

    def refusal(self, column: str, reason: str) -> UsageError:
        """Return the refusal of this row's value in `column`; `reason` says what is wrong and what is allowed."""
        return UsageError(f"{self.file}, line {self.line}, column {column!r}: {self.values[column]!r}: {reason}")


def read_manifest(path: Path, columns: Columns) -> list[Row]:
    """Return the rows of a manifest, of which there is at least one.

    Blank lines are skipped, and columns that were not asked for are left alone, unless their name is nearly that
    of one that was and is missing: that is taken for a slip.

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
    asked = (*columns.required, *columns.optional)
    rows = [
        Row(path, line, {name: fields.get(name, "") for name in asked})
        for line, fields in readers[path.suffix](path, columns)
    ]
    if not rows:
        raise UsageError(f"the manifest {path} has no rows; give it one for each utterance")
    return rows


def _read_text(path: Path) -> str:
    """Return the text of a manifest, which must be UTF-8, with or without a byte order mark."""
    try:
        data = path.read_bytes()
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


def _csv_rows(path: Path, columns: Columns) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the fields of each row of a CSV file."""
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            place = f"{path}, line {reader.line_num}"
            if not cells:
                continue
            if not header:
                header = cells
                columns.check(place, header)
                continue
            if len(cells) != len(header):
                raise UsageError(
                    f"{place}: there are {len(cells)} values for the {len(header)} columns of the header "
                    f"({', '.join(header)}); a text with a comma needs quotes about it"
                )
            yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: this is not CSV: {error}") from error


def _json_rows(path: Path, columns: Columns) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the fields of each row of a file of JSON lines; a null is a field left out."""
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{place}, character {error.colno}: this is not JSON: {error.msg}") from error
        if not isinstance(value, dict):
            raise UsageError(f'{place}: there is {line.strip()[:40]!r}; it must be an object such as {{"path": …}}')
        fields = {name: field for name, field in value.items() if field is not None}
        columns.check(place, fields)
        for name in (*columns.required, *columns.optional):
            if not isinstance(fields.get(name, ""), str):
                raise UsageError(f"{place}, column {name!r}: {fields[name]!r}: it must be text, in quotes")
            lone = next((letter for letter in fields.get(name, "") if "\ud800" <= letter <= "\udfff"), None)
            if lone is not None:
                raise UsageError(
                    f"{place}, column {name!r}: it holds {lone!r}, half of a pair of UTF-16 and no letter; "
                    "write the letter itself, in UTF-8"
                )
        yield number, fields


def _parquet_rows(path: Path, columns: Columns) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number from 1 and the fields of each row of a Parquet file; a null is a field left out."""
    try:
        with pq.ParquetFile(path) as file:
            columns.check(str(path), file.schema_arrow.names)
            asked = [name for name in (*columns.required, *columns.optional) if name in file.schema_arrow.names]
            rows = file.read(columns=asked).to_pylist()
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise UsageError(f"the manifest {path} cannot be read: {reason}") from error
    for number, row in enumerate(rows, start=1):
        fields = {name: value for name, value in row.items() if value is not None}
        for name, value in fields.items():
            if not isinstance(value, str):
                raise UsageError(f"{path}, line {number}, column {name!r}: {value!r}: it must be text")
        for name in columns.required:
            if name not in fields:
                raise UsageError(f"{path}, line {number}, column {name!r}: it is null; it must be text")
        yield number, fields
