"""Manifests written by users as CSV, JSON lines or Parquet; mistakes are reported by line and column."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from emtta_core.corpora.manifest_columns import SECONDS, Form, form_of
from emtta_core.corpora.metadata import further_columns
from emtta_core.corpora.recording import MAX_TEXT_BYTES
from emtta_core.corpora.utterance_rows import Row, Table, number_of, segment
from emtta_core.errors import UsageError
from emtta_core.input_files import check_plain, pointer_in, read_plain


class _Record(NamedTuple):
    """A row as written."""

    line: int  # the number of its last line, from 1
    location: str  # where its columns are defined, for messages
    names: tuple[str, ...]  # of its columns
    fields: Mapping[str, Any]  # its values by column, without nulls
    skipped: tuple[str, ...] = ()  # the names of unread columns, for messages


def read_manifest(path: Path, folder: Path, *, needs_text: bool = True) -> Table:
    """The rows of a manifest, at least one.

    Its format is identified by its columns; those that are not a field of an utterance are kept as metadata. Blank
    lines are skipped.

    Args:
        path: a file that ends in `.csv` or `.tsv` (with a header line), in `.jsonl` or `.json` (one object per line),
            or in `.parquet` (the lines are the rows from 1).
        folder: the corpus folder.
        needs_text: whether transcripts are required.

    Raises:
        UsageError: when the file is missing, is not such a file, has a mistake or has no rows.
    """
    readers = {
        ".csv": _csv_records,
        ".tsv": _csv_records,
        ".jsonl": _json_records,
        ".json": _json_records,
        ".parquet": _parquet_records,
    }
    if path.suffix not in readers:
        raise UsageError(f"the manifest {path} ends in {path.suffix!r}; it must end in {', '.join(readers)}")
    form: Form | None = None
    columns_by_names: dict[tuple[str, ...], dict[str, str]] = {}
    rows: list[Row] = []
    skipped = dict[str, None]()
    for record in readers[path.suffix](path):
        if record.names not in columns_by_names:
            found = form_of(record.location, record.names)
            if form is not None and form is not found:
                raise UsageError(
                    f"{record.location}: this row has the column {found.path!r} ({found.name}), but those before it "
                    f"have {form.path!r} ({form.name}); a manifest must be of one format. Its columns are "
                    f"{', '.join(map(repr, record.names))}"
                )
            form = found
            columns_by_names[record.names] = form.columns(record.location, record.names, needs_text=needs_text)
        rows.append(_row(path, record, columns_by_names[record.names]))
        skipped |= dict.fromkeys(record.skipped)
    if form is None:
        raise UsageError(f"the manifest {path} has no rows; add one for each utterance")
    notes = (f"columns that are not used: {', '.join(skipped)}",) if skipped else ()
    return Table(rows, path.parent if form.own_folder else folder, notes)


def read_text(path: Path) -> str:
    """The text of a file, which must be UTF-8, with or without a byte order mark.

    Raises:
        UsageError: it cannot be read, or is not UTF-8, or is a pointer to another file.
    """
    try:
        data = read_plain(path, max_bytes=MAX_TEXT_BYTES)
    except OSError as error:
        raise UsageError(f"the manifest {path} cannot be read: {error.strerror or error}") from error
    pointer = pointer_in(data, path)
    if pointer is not None:
        raise UsageError(f"the manifest {path} cannot be read: {pointer}")
    return decoded(path, data)


def decoded(path: Path, data: bytes) -> str:
    """The text of a file with these bytes; UsageError, naming the line, if they are not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}, line {line}: the byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from error


def object_in(where: str, line: str) -> dict[str, Any]:
    """The JSON object in a line; UsageError, beginning with `where`, if it is not one."""
    try:
        value = json.loads(line, object_pairs_hook=partial(_object, where))
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}, character {error.colno}: this is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise _nested(where) from error
    if not isinstance(value, dict):
        raise UsageError(f'{where}: found {line.strip()[:40]!r}; it must be an object such as {{"path": …}}')
    return value


def _nested(where: str) -> UsageError:
    return UsageError(f"{where}: the row is nested too deeply; it must be an object of strings")


def _object(where: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    # A JSON object in which no name may occur twice, as one of the values would be lost.
    found = dict(pairs)
    if len(found) < len(pairs):
        duplicate = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise UsageError(f"{where}: the column {duplicate!r} occurs more than once; give each a unique name")
    return found


def _csv_records(path: Path) -> Iterator[_Record]:
    text = read_text(path)
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = "\t" if path.suffix == ".tsv" or ("\t" in first and "," not in first) else ","
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    header: tuple[str, ...] = ()
    location = ""
    try:
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if not cells:
                continue
            if not header:
                header, location = tuple(cells), where
                form_of(location, header)
                continue
            if len(cells) != len(header):
                hint = "a tab" if delimiter == "\t" else "a comma"
                raise UsageError(
                    f"{where}: there are {len(cells)} values for the {len(header)} columns of the header "
                    f"({', '.join(header)}); a text with {hint} must be in quotes"
                )
            unnamed = any(not name.strip() and cell.strip() for name, cell in zip(header, cells, strict=True))
            fields = dict(zip(header, cells, strict=True))
            yield _Record(reader.line_num, location, header, fields, ("one without a name",) if unnamed else ())
    except csv.Error as error:
        raise UsageError(
            f"{path}, line {reader.line_num}: this is not CSV: {error}; a text with quotes must be in quotes, "
            "with its own quotes doubled"
        ) from error


def _json_records(path: Path) -> Iterator[_Record]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        fields = object_in(where, line)
        for name, value in fields.items():
            surrogate = next(
                (letter for letter in name + _letters(where, value) if "\ud800" <= letter <= "\udfff"), None
            )
            if surrogate is not None:
                raise UsageError(
                    f"{where}, column {name!r}: it contains {surrogate!r}, half of a UTF-16 surrogate pair; "
                    "write the character itself, in UTF-8"
                )
        yield _Record(number, where, tuple(fields), {name: one for name, one in fields.items() if one is not None})


def _letters(where: str, value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else ""
    except RecursionError as error:
        raise _nested(where) from error


def _parquet_records(path: Path) -> Iterator[_Record]:
    try:
        check_plain(path)
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            names = tuple(schema.names)
            _, skipped = further_columns(schema, form_of(str(path), names).known)
            rows = file.read(columns=[name for name in names if name not in skipped]).to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise UsageError(f"the manifest {path} cannot be read: {reason}") from error
    for number, row in enumerate(rows, start=1):
        fields = {name: value for name, value in row.items() if value is not None}
        yield _Record(number, str(path), names, fields, tuple(skipped))


def _row(path: Path, record: _Record, column_of: Mapping[str, str]) -> Row:
    fields = record.fields
    blank = Row(path, record.line, "", columns=column_of)

    def value_of(name: str) -> Any:
        return fields.get(column_of[name], "") if name in column_of else ""

    def text(name: str) -> str:
        value = value_of(name)
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if not isinstance(value, str) and not (is_number and name in ("id", "speaker")):
            raise blank.refusal(name, value, "it must be text" + (", in quotes" if "json" in path.suffix else ""))
        return str(value)

    def seconds(name: str) -> float | None:
        value = value_of(name)
        number = number_of(value)
        if number is None and str(value).strip():
            reason = "it must be a number of seconds such as 1.5; correct it or leave it empty"
            raise blank.refusal(name, value, reason)
        return number

    times = {name: seconds(name) for name in SECONDS}
    begin, length = segment(blank.refusal, **times)
    texts = {name: text(name) for name in ("path", "text", "id", "language", "speaker")}
    others = {name: value for name, value in fields.items() if name.strip() and name not in column_of.values()}
    metadata = {name: value for name, value in others.items() if value != ""}
    return Row(
        path,
        record.line,
        **texts,
        begin=begin,
        length=length,
        duration=times["duration"],
        metadata=metadata,
        columns=column_of,
    )
