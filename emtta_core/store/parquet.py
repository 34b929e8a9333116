"""Parquet files: records written, read back, and the broken files told from the good."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal, TypeVar, get_origin

import pyarrow as pa
import pyarrow.parquet as pq

from emtta_core.errors import StoreError
from emtta_core.store.backend import Backend, Entry
from emtta_core.store.packs import Pack, kind_of
from emtta_core.store.schema import SCHEMA_VERSION, TABLES, VERSION_KEY, AudioBytes, Table, documented


def write_rows(backend: Backend, name: str, rows: Sequence[Any], schema: pa.Schema, *, replace: bool = False) -> None:
    """Write records as one Parquet file.

    Args:
        backend: where.
        name: the file.
        rows: the records, of the class from which `schema` comes.
        schema: the columns.
        replace: whether a file that is there may be replaced. Rows of an attempt may not: they are final.

    Raises:
        StoreError: when the file cannot be written, or is there already and may not be replaced.
    """
    content = parquet(pa.Table.from_pylist([_plain(row, schema.names) for row in rows], schema=schema))
    if replace:
        backend.write(name, content)
    elif not backend.write_new(name, content):
        raise StoreError(
            f"{backend.url(name)} is already there and rows of an attempt are final; "
            "does another process write the same run? Wait for it, or choose another run id"
        )


def parquet(table: pa.Table) -> bytes:
    """Return a table as the content of a Parquet file of the store, with a checksum of each of its pages."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def _plain(row: Any, names: Sequence[str]) -> dict[str, Any]:
    # A record as the dictionary that Arrow takes, a nested record likewise.
    values = {name: getattr(row, name) for name in names}
    return {name: asdict(value) if isinstance(value, AudioBytes) else value for name, value in values.items()}


log = logging.getLogger("emtta.store")

Row = TypeVar("Row")

Problem = Literal["missing", "unreadable", "other schema", "damaged", "malformed"]

_MAGIC = b"PAR1"
_SMALLEST = 12  # bytes: the magic twice and the length of the footer
_TAIL = 16_384  # bytes: more than the footer of a file of the store has, by a half
_ARROW = b"ARROW:schema"
_TABLE_OF: Mapping[type[Any], Table] = {table.row: table for table in TABLES.values()}

FAILURES = (OSError, pa.ArrowException, ValueError, OverflowError)
"""What Arrow raises of a file that is not as it must be: of dates beyond the year 9999, Python's own errors."""


@dataclass(frozen=True, slots=True)
class BrokenFile:
    """A file of the store that cannot be used."""

    name: str  # the file
    reason: str  # what is wrong with it
    problem: Problem = "damaged"  # of which kind that is
    # What the system raised of a file that is missing or unreadable.
    error: OSError | None = field(default=None, compare=False)

    @classmethod
    def refused(cls, name: str, error: OSError) -> "BrokenFile":
        """Return a file of which the system gives no content."""
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        return cls(name, error.strerror or str(error), "missing" if missing else "unreadable", error)

    @property
    def may_come_back(self) -> bool:
        """Whether its rows are there, though they cannot be read here and now."""
        return self.problem in ("unreadable", "other schema")


def cannot_read(backend: Backend, file: BrokenFile, then: str) -> StoreError:
    """Return the error of a file that is needed; to be raised from the file's, which tells whether it may pass.

    Args:
        backend: where it is.
        file: which.
        then: what the user can do.
    """
    return StoreError(f"cannot read {backend.url(file.name)}: {file.reason}. {then}")


def read_rows(backend: Backend, name: str, row: type[Row]) -> list[Row] | BrokenFile:
    """Return the records in one file, or what is wrong with it.

    Args:
        backend: where.
        name: a Parquet file of the store.
        row: the record that its rows are.

    Raises:
        StoreError: the backend does not answer.
    """
    ((_, rows),) = read_each(backend, [name], row)
    return rows


def readable(backend: Backend, names: Sequence[str], row: type[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Yield each file that can be read with its records; warn of each that cannot, and go on."""
    yield from skip_broken(backend, read_each(backend, names, row))


def skip_broken(
    backend: Backend, found: Iterable[tuple[str, list[Row] | BrokenFile]]
) -> Iterator[tuple[str, list[Row]]]:
    """Yield the files that could be read with their records; warn of each that could not."""
    for name, rows in found:
        if isinstance(rows, BrokenFile):
            log.warning("left out: %s: %s", backend.url(name), rows.reason)
        else:
            yield name, rows


def read_each(
    backend: Backend, names: Iterable[str], row: type[Row], pack: Pack | None = None, **cell: str
) -> Iterator[tuple[str, list[Row] | BrokenFile]]:
    """Yield each file with its records, or with what is wrong with it.

    Args:
        backend: where.
        names: Parquet files of the store.
        row: the record that their rows are.
        pack: the kind of pack that they are; none for files of one table.
        cell: of packs, the domain and the method whose rows are wanted.
    """
    for name, content in backend.read_all(names):
        if isinstance(content, OSError):
            yield name, BrokenFile.refused(name, content)
        else:
            yield name, _rows(name, content, row, pack, cell)


def read_table(
    name: str, content: bytes, kind: Table | Pack, columns: Sequence[str] | None = None
) -> pa.Table | BrokenFile:
    """Return the rows in the content of a file, or what is wrong with it.

    Args:
        name: the file.
        content: whose pages are held against their checksums.
        kind: of which table it is, or which kind of pack.
        columns: those that are read; all by default.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            broken = _schema_fault(name, file.metadata, kind)
            return broken or file.read(columns=columns)
    except FAILURES as error:
        return BrokenFile(name, _one_line(error))


def _rows(name: str, content: bytes, row: type[Row], pack: Pack | None, cell: Mapping[str, str]) -> Any:
    names = [column for column, _, _ in documented(row)]
    here = {column: column for column in names} if pack is None else pack.columns(row)
    table = read_table(name, content, pack or _TABLE_OF[row], [*here.values(), *cell])
    if isinstance(table, BrokenFile):
        return table
    if pack is not None:
        table = table.filter(pack.rows_of(row, cell))
    try:
        rows = table.select(list(here.values())).rename_columns(names).to_pylist()
    except FAILURES as error:
        return BrokenFile(name, _one_line(error))
    nested = _nested(row)
    return [_record(row, values, nested) for values in rows]


def check_tails(backend: Backend, entries: Sequence[Entry]) -> Iterator[BrokenFile]:
    """Yield what is wrong with files of tables or packs as far as their last bytes show it.

    This finds a file cut short (a full disk, a broken copy), and one whose columns are others than its table's, but not
    every damage. In a folder it costs some 20 µs a file, against the 200 µs of `check`.
    """
    yield from _check_ends(backend, entries, _check_quickly)


def check(backend: Backend, entries: Sequence[Entry]) -> Iterator[BrokenFile]:
    """Yield what is wrong with files of tables or packs as their footers show it."""
    yield from _check_ends(backend, entries, _check_footer)


def _check_ends(
    backend: Backend, entries: Sequence[Entry], judge: Callable[[str, bytes, Table | Pack], BrokenFile | None]
) -> Iterator[BrokenFile]:
    # Is wrong with files by what `judge` says of the end of each, its footer included.
    for name, content in backend.read_all([entry.name for entry in entries if entry.size < _SMALLEST]):
        if isinstance(content, OSError):  # a pipe, a device
            yield BrokenFile.refused(name, content)
        else:
            yield BrokenFile(name, f"cut short: {len(content)} bytes")
    for entry, tail in backend.read_tails([entry for entry in entries if entry.size >= _SMALLEST], _TAIL):
        if isinstance(tail, OSError):
            broken: BrokenFile | None = BrokenFile.refused(entry.name, tail)
        elif tail[-4:] != _MAGIC or _footer(tail) + _SMALLEST > entry.size:
            broken = BrokenFile(entry.name, f"cut short: {entry.size} bytes without a footer")
        else:
            kind = kind_of(entry.name)
            assert kind is not None
            broken = judge(entry.name, _whole_footer(backend, entry, tail), kind)
        if broken is not None:
            yield broken


def misplaced(name: str) -> BrokenFile:
    """Return a file that lies where no file of the store does."""
    return BrokenFile(name, "no file of the store has a path like this", "malformed")


def _whole_footer(backend: Backend, entry: Entry, tail: bytes) -> bytes:
    # The end of a file with all of its footer, read once more where `tail` lacks some.
    length = _footer(tail) + 8
    if length <= len(tail):
        return tail
    ((_, more),) = backend.read_tails([entry], length)
    return tail if isinstance(more, OSError) else more


def _footer(tail: bytes) -> int:
    return int.from_bytes(tail[-8:-4], "little")


def _check_quickly(name: str, tail: bytes, kind: Table | Pack) -> BrokenFile | None:
    # Is wrong with a footer; read only where the columns are not plain to see in it.
    begin, (head, columns) = len(tail) - 8 - _footer(tail), _footer_of(kind)
    sound = tail.startswith(head, begin) and tail.startswith(columns, tail.find(_ARROW, begin))
    if sound and kind.rows != (0, None):
        rows = tail[begin + len(head)] / 2  # Thrift writes a small number as its double in one byte
        sound = rows == 1 or (rows > 1 and kind.rows[1] is None)
    return None if sound else _check_footer(name, tail, kind)


@cache
def _footer_of(kind: Table | Pack) -> tuple[bytes, bytes]:
    # Each footer of a table has: its beginning, as far as the number of rows; columns with the version.
    blank: Mapping[str, Any] = {"string": "", "list": (), "double": 0.0}
    row = {
        column.name: None if column.nullable else blank.get(str(column.type).partition("<")[0], 0)
        for column in kind.schema
    }
    empty, one = parquet(kind.schema.empty_table()), parquet(pa.Table.from_pylist([row], schema=kind.schema))
    value = pq.read_metadata(pa.BufferReader(empty)).metadata[_ARROW]
    columns = empty[empty.rindex(_ARROW) : empty.rindex(value) + len(value)]
    footers = [content[-8 - _footer(content) :] for content in (empty, one)]
    same = next(length for length, pair in enumerate(zip(*footers, strict=False)) if pair[0] != pair[1])
    return footers[0][:same], columns


def _check_footer(name: str, tail: bytes, kind: Table | Pack) -> BrokenFile | None:
    try:
        return _schema_fault(name, pq.read_metadata(pa.BufferReader(tail)), kind)
    except FAILURES as error:
        return BrokenFile(name, _one_line(error))


def _schema_fault(name: str, footer: pq.FileMetaData, kind: Table | Pack) -> BrokenFile | None:
    # In what a footer is not that of a file of a table; None for nothing.
    version = (footer.metadata or {}).get(VERSION_KEY, b"none").decode(errors="replace")
    if version != str(SCHEMA_VERSION):
        return BrokenFile(
            name, f"its schema has version {version}, this release reads {SCHEMA_VERSION}", "other schema"
        )
    reason = _other_columns(footer.schema.to_arrow_schema(), kind.schema)
    least, most = kind.rows
    if reason is None and not least <= footer.num_rows <= (footer.num_rows if most is None else most):
        reason = f"it has {footer.num_rows} rows, and {kind.name} has {'one' if most else 'at least one'} a file"
    return None if reason is None else BrokenFile(name, reason, "malformed")


def _other_columns(found: pa.Schema, wanted: pa.Schema) -> str | None:
    if found.equals(wanted):
        return None
    lacking = [name for name in wanted.names if name not in found.names]
    if lacking:
        return f"it lacks the columns {', '.join(lacking)}"
    unknown = [name for name in found.names if name not in wanted.names]
    if unknown:
        return f"it has columns that its table has not: {', '.join(unknown)}"
    if len(found.names) > len(wanted.names):
        return "it has a column twice"
    for field_wanted in wanted:
        here = found.field(field_wanted.name)
        if here.type != field_wanted.type:
            return f"its column {here.name} is of the type {here.type} instead of {field_wanted.type}"
        if here.nullable and not field_wanted.nullable:
            return f"its column {here.name} may be null"
    return None  # another order, or never null where it might be


def _record(row: type[Row], values: dict[str, Any], nested: Sequence[tuple[str, Any]]) -> Row:
    # Make a record from a row as Arrow gives it: its lists become tuples, its structs records.
    for name, kind in nested:
        value = values.get(name)
        if value is not None:
            values[name] = tuple(value) if get_origin(kind) is tuple else kind(**value)
    return row(**values)


def _nested(row: type[Any]) -> tuple[tuple[str, Any], ...]:
    # The fields of `row` that Arrow gives in another shape, each with its type.
    result = []
    for name, kind, _ in documented(row):
        inner = next((item for item in getattr(kind, "__args__", ()) if hasattr(item, "__dataclass_fields__")), kind)
        if get_origin(inner) is tuple or hasattr(inner, "__dataclass_fields__"):
            result.append((name, inner))
    return tuple(result)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].removesuffix(".")
