"""What the command writes and how: results on standard output, everything else on standard error, come what may."""

import codecs
import errno
import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from emtta_core.errors import EmttaError
from emtta_core.sanitize import escaped

if TYPE_CHECKING:
    from emtta_core.store import Store
    from emtta_core.store.result import Result

ESCAPE = "emtta-escape"
"""The name of the error handler of these streams' encodings."""

READER_GONE = frozenset({errno.EPIPE, errno.EIO})
"""What writing fails with when a pipe has no reader any more, or a terminal was closed."""


def settle_streams() -> None:
    """Prepare the standard streams of this process; streams that something else has put in their place are left."""
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if name in closed and not _is_open(number):  # else the next file that is opened would be taken for the stream
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, forgiven in (("stdout", READER_GONE), ("stderr", None)):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8", errors=ESCAPE)  # noqa: PTH123, SIM115
        elif stream is getattr(sys, f"__{name}__") and not isinstance(stream, _Stream):
            stream.flush()
            stream = _Stream(stream, forgiven)
        setattr(sys, name, stream)
    if "stdout" in closed:
        sys.stderr.write("standard output is closed; results that would be shown there are lost\n")


class _Output(io.FileIO):
    """A standard stream that forgives some errors, or all; after any error it leads to `/dev/null`."""

    def __init__(self, number: int, forgiven: frozenset[int] | None) -> None:
        super().__init__(number, "w", closefd=False)
        self._forgiven = forgiven

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if self._forgiven is None or error.errno in self._forgiven:
                return len(data)
            raise EmttaError(f"standard output cannot be written: {error.strerror}") from error


class _Stream(io.TextIOWrapper):
    """A standard stream that can hold every letter."""

    def __init__(self, like: io.TextIOWrapper, forgiven: frozenset[int] | None) -> None:
        super().__init__(
            io.BufferedWriter(_Output(like.fileno(), forgiven)),
            encoding=like.encoding,
            errors=ESCAPE,
            line_buffering=like.line_buffering or like.write_through,
        )


def _escape(error: UnicodeError) -> tuple[str, int]:
    # Write what an encoding cannot hold as JSON would, so that a JSON text stays one.
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{unit.hex()}" for unit in (units[at : at + 2] for at in range(0, len(units), 2))), error.end


codecs.register_error(ESCAPE, _escape)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


COMPLETE, ERROR, USAGE, INCOMPLETE = range(4)
"""The exit codes of every verb: a usage error is USAGE, work still to do is INCOMPLETE."""

TERMINATED = 128 + signal.SIGTERM
"""The exit code where work is still to do because SIGTERM asked to stop: what a shell says of a process it ended."""

UNBOUNDED = 10**9
"""Characters of a line where standard output is no terminal, which is more than any table has."""

READABLE = 24
"""Characters below which no column of words is pressed on a terminal, unless its longest word has fewer."""

PROSE = 200
"""Characters of a line of prose where standard output is no terminal."""

UNKNOWN = "—"
"""What a table shows for NULL."""

WHOLE = frozenset({"run_id", "run or corpus"})
"""Columns whose values are typed into the next command, and so never broken over lines."""

err = Console(highlight=False, stderr=True)


class Format(StrEnum):
    """The format of an answer."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    MARKDOWN = "markdown"
    LATEX = "latex"
    PARQUET = "parquet"


ENDINGS = {
    ".csv": Format.CSV,
    ".json": Format.JSON,
    ".md": Format.MARKDOWN,
    ".tex": Format.LATEX,
    ".parquet": Format.PARQUET,
    ".txt": Format.TABLE,
    "": Format.TABLE,
}
"""The format that the ending of a file's name stands for."""


def format_of(form: Format | None, to: Path | None) -> Format:
    """The format of an answer: the one asked for, else that of the file's ending, else a table.

    Raises:
        UsageError: the two contradict each other, or no format has this ending.
    """
    from emtta_core.errors import UsageError

    if to is None:
        return form or Format.TABLE
    ending = to.suffix.lower()
    if ending in (".html", ".htm"):
        raise UsageError(
            f"--out {to} is the name of a page, and rows are written as {', '.join(Format)}; "
            "the page on a run is written, with the same --store and --run, by: "
            f"emtta report html --out {shlex.quote(str(to))}"
        )
    known = ENDINGS.get(ending)
    if form and known and ending not in ("", ".txt") and form is not known:
        raise UsageError(f"--format {form} contradicts --out {to}, whose ending means {known}; change one of them")
    if form is None and known is None:
        raise UsageError(
            f"--out {to}: unknown ending {ending}; choose from: {', '.join(filter(None, ENDINGS))}, "
            "or name the format with --format"
        )
    return form or known or Format.TABLE


def prose() -> Console:
    """Standard output as prose wants it: as wide as the terminal, and of a fixed width elsewhere."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PROSE)


def say(text: str) -> None:
    """Write a line for the reader, markup and wrapping left alone, on standard error."""
    err.print(escaped(text), markup=False, soft_wrap=True)


def say_if_empty(result: "Result", store: "Store") -> None:
    """Say what makes a run, where an answer has no row because the store has no run."""
    if not result.table.num_rows and not store.backend.list("runs"):
        say(f"the store {store.location} has no run yet; this makes one in a minute: {store.command('run', 'smoke')}")


def put(text: str) -> None:
    """Write a text on standard output; only a terminal gets it without signs that would act on it."""
    sys.stdout.write(escaped(text) if sys.stdout.isatty() else text)


def put_json(value: object) -> None:
    """Write a value as JSON on standard output; times are written as ISO 8601 has them."""
    put(json.dumps(value, ensure_ascii=False, indent=2, default=datetime.isoformat) + "\n")


def tabulate(table: Table, console: Console | None = None, *, every_column: bool = False) -> None:
    """Write a table on standard output, and every value whole.

    On a terminal, headers and values are wrapped; of the columns, which are in order of importance, each that still
    fits is shown, and the others are named. Elsewhere a line of the table is a line of the file, however long.

    Args:
        table: it loses the columns that are hidden.
        console: takes it; by default the terminal, or the file or pipe in its place.
        every_column: hide none, as where a reader has chosen them.
    """
    if console is None:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else UNBOUNDED)
    for column in table.columns:
        column.overflow = "fold"
        column.no_wrap = column.no_wrap or str(column.header) in WHOLE
    hidden: list[str] = []
    if _width(table, console) > console.width:
        table.show_edge, table.pad_edge = False, False
        for column in table.columns:
            column.header = _folded(column, console)
        if every_column:
            console = Console(file=console.file, highlight=False, width=max(console.width, _width(table, console)))
        else:
            hidden = _fit(table, console)
    console.print(table)
    if hidden:
        say(f"columns hidden: {', '.join(hidden)}; a wider terminal, a file or a pipe has room for them")


def _fit(table: Table, console: Console) -> list[str]:
    hidden: list[str] = []
    columns, table.columns = table.columns, []
    for column in columns:
        table.columns.append(column)
        if len(table.columns) > 1 and _width(table, console) > console.width:
            table.columns.pop()
            if any(str(cell) != UNKNOWN for cell in column.cells):
                hidden.append(str(column.header).replace("\n", ""))
    return hidden


def _width(table: Table, console: Console) -> int:
    edges = 3 * len(table.columns) + 1 if table.show_edge else 3 * (len(table.columns) - 1)
    return sum(_needed(column, console) for column in table.columns) + edges


def _needed(column: Column, console: Console) -> int:
    # The fewest characters with which a column can be read; numbers and ids are never wrapped.
    head, *cells = (Measurement.get(console, console.options, cell) for cell in (column.header, *column.cells))
    if column.no_wrap:
        return max(head.maximum, *(cell.maximum for cell in cells)) if cells else head.maximum
    return min(max(head.minimum, *(cell.minimum for cell in cells)) if cells else head.minimum, READABLE)


def _folded(column: Column, console: Console) -> Text:
    # A header on several lines, broken behind underscores and slashes where it is wider than its values.
    room = max((Measurement.get(console, console.options, cell).maximum for cell in column.cells), default=0)
    lines = [""]
    for piece in str(column.header).replace("_", "_\n").replace("/", "/\n").split("\n"):
        if lines[-1] and len(lines[-1]) + len(piece) > room:
            lines.append("")
        lines[-1] += piece
    return Text("\n".join(lines))


def show(
    result: "Result",
    form: Format,
    title: str | None = None,
    to: Path | None = None,
    columns: Sequence[str] = (),
) -> None:
    """Write an answer on standard output, or into the file `to`, in place of one that is there.

    Args:
        result: the answer.
        form: its format.
        title: a line above it, which formats for programs go without.
        to: the file; None for standard output.
        columns: these alone, all of them however wide; by default all, of which a terminal shows those that fit.

    Raises:
        UsageError: it is not text, and would go to a terminal; or the file cannot be written; or there is no such
            column.
    """
    from emtta_core.errors import UsageError

    chosen = result.select(columns) if columns else result
    if to is not None:
        try:
            to.write_bytes(_content(chosen, form, title))
        except OSError as error:
            raise UsageError(f"--out {to} cannot be written: {error.strerror}") from error
    elif form is Format.TABLE:
        tabulate(chosen.to_table(title), every_column=bool(columns))
    elif form is Format.PARQUET:
        if sys.stdout.isatty():
            raise UsageError("--format parquet gives no text; name a file with --out FILE, or send it into a pipe")
        sys.stdout.buffer.write(chosen.parquet())
    else:
        put(_content(chosen, form, title).decode())


def _content(result: "Result", form: Format, title: str | None) -> bytes:
    if form is Format.PARQUET:
        return result.parquet()
    if form is Format.TABLE:
        text = io.StringIO()
        tabulate(result.to_table(title), Console(file=text, highlight=False, width=UNBOUNDED))
        return text.getvalue().encode()
    written = {
        Format.CSV: result.csv,
        Format.JSON: result.json,
        Format.MARKDOWN: result.markdown,
        Format.LATEX: result.latex,
    }[form]()
    return written.encode()
