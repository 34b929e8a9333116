"""The command's output: results on standard output, everything else on standard error, even if a stream fails."""

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
"""The name of the encoding error handler of these streams."""

READER_GONE = frozenset({errno.EPIPE, errno.EIO})
"""The errors of writing to a pipe without a reader or to a closed terminal."""


def configure_streams() -> None:
    """Prepare the standard streams of this process; streams that something else has replaced are left alone."""
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if name in closed and not _is_open(number):  # otherwise the next opened file would become the stream
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, ignored in (("stdout", READER_GONE), ("stderr", None)):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8", errors=ESCAPE)  # noqa: PTH123, SIM115
        elif stream is getattr(sys, f"__{name}__") and not isinstance(stream, _Stream):
            stream.flush()
            stream = _Stream(stream, ignored)
        setattr(sys, name, stream)
    if "stdout" in closed:
        sys.stderr.write("standard output is closed; results that would be shown there are lost\n")


class _Output(io.FileIO):
    """A standard stream that ignores some or all errors; after any error it writes to `/dev/null`."""

    def __init__(self, number: int, ignored: frozenset[int] | None) -> None:
        super().__init__(number, "w", closefd=False)
        self._ignored = ignored

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.fileno())
            os.close(devnull)
            if self._ignored is None or error.errno in self._ignored:
                return len(data)
            raise EmttaError(f"standard output cannot be written: {error.strerror}") from error


class _Stream(io.TextIOWrapper):
    """A standard stream that can encode every character."""

    def __init__(self, like: io.TextIOWrapper, ignored: frozenset[int] | None) -> None:
        super().__init__(
            io.BufferedWriter(_Output(like.fileno(), ignored)),
            encoding=like.encoding,
            errors=ESCAPE,
            line_buffering=like.line_buffering or like.write_through,
        )


def _escape(error: UnicodeError) -> tuple[str, int]:
    # Escape what an encoding cannot represent as JSON does, so that JSON stays valid.
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
"""The exit codes of all verbs: USAGE for a usage error, INCOMPLETE if work remains."""

TERMINATED = 128 + signal.SIGTERM
"""The exit code if work remains because of SIGTERM: a shell's code for a process ended by that signal."""

UNBOUNDED = 10**9
"""Characters per line if standard output is not a terminal, more than any table needs."""

READABLE = 24
"""The least width of a text column on a terminal, unless its longest word is shorter."""

PROSE = 200
"""Characters per line of prose if standard output is not a terminal."""

UNKNOWN = "—"
"""How a table shows NULL."""

UNWRAPPED = frozenset({"run_id", "run or corpus"})
"""Columns whose values are used in the next command, and so never wrapped."""

err = Console(highlight=False, stderr=True)


class Format(StrEnum):
    """The format of a result."""

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
"""The format of each file extension."""


def format_of(form: Format | None, to: Path | None) -> Format:
    """The format of a result: the requested one, or that of the file's extension, or a table.

    Raises:
        UsageError: the two contradict each other, or no format has this extension.
    """
    from emtta_core.errors import UsageError

    if to is None:
        return form or Format.TABLE
    ending = to.suffix.lower()
    if ending in (".html", ".htm"):
        raise UsageError(
            f"--out {to} is the name of a page, but rows are written as {', '.join(Format)}; "
            "to write the page of a run, with the same --store and --run: "
            f"emtta report html --out {shlex.quote(str(to))}"
        )
    by_ending = ENDINGS.get(ending)
    if form and by_ending and ending not in ("", ".txt") and form is not by_ending:
        raise UsageError(f"--format {form} contradicts --out {to}, whose ending means {by_ending}; change one of them")
    if form is None and by_ending is None:
        raise UsageError(
            f"--out {to}: unknown ending {ending}; choose from: {', '.join(filter(None, ENDINGS))}, "
            "or name the format with --format"
        )
    return form or by_ending or Format.TABLE


def prose() -> Console:
    """Standard output for prose: as wide as the terminal, or of a fixed width elsewhere."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PROSE)


def echo(text: str) -> None:
    """Write a line to standard error, without markup or wrapping."""
    err.print(escaped(text), markup=False, soft_wrap=True)


def echo_if_empty(result: "Result", store: "Store") -> None:
    """If a result has no rows because the store has no runs, suggest the command that makes one."""
    if not result.table.num_rows and not store.backend.list("runs"):
        echo(f"the store {store.location} has no run yet; this makes one in a minute: {store.command('run', 'smoke')}")


def put(text: str) -> None:
    """Write a text to standard output; on a terminal, with control characters escaped."""
    sys.stdout.write(escaped(text) if sys.stdout.isatty() else text)


def put_json(value: object) -> None:
    """Write a value as JSON to standard output, with times in ISO 8601."""
    put(json.dumps(value, ensure_ascii=False, indent=2, default=datetime.isoformat) + "\n")


def tabulate(table: Table, console: Console | None = None, *, every_column: bool = False) -> None:
    """Write a table to standard output, with every value in full.

    On a terminal, headers and values are wrapped; the columns, in order of importance, are shown as long as they fit,
    and the others are named. Elsewhere, a row of the table is a line of the file, however long.

    Args:
        table: the table, from which hidden columns are removed.
        console: the console to write to; by default standard output.
        every_column: hide no column, for example if the user has chosen them.
    """
    if console is None:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else UNBOUNDED)
    for column in table.columns:
        column.overflow = "fold"
        column.no_wrap = column.no_wrap or str(column.header) in UNWRAPPED
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
        echo(f"columns hidden: {', '.join(hidden)}; a wider terminal, a file or a pipe shows them")


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
    # The least readable width of a column; numbers and ids are never wrapped.
    head, *cells = (Measurement.get(console, console.options, cell) for cell in (column.header, *column.cells))
    if column.no_wrap:
        return max(head.maximum, *(cell.maximum for cell in cells)) if cells else head.maximum
    return min(max(head.minimum, *(cell.minimum for cell in cells)) if cells else head.minimum, READABLE)


def _folded(column: Column, console: Console) -> Text:
    # A header on several lines, broken after underscores and slashes if it is wider than its values.
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
    """Write a result to standard output, or to the file `to`, replacing an existing one.

    Args:
        result: the result.
        form: its format.
        title: a line above it, omitted in formats for programs.
        to: the file; None for standard output.
        columns: show exactly these columns, however wide; by default all, of which a terminal shows those that fit.

    Raises:
        UsageError: the format is not text and the output is a terminal, the file cannot be written, or there is no
            such column.
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
            raise UsageError("--format parquet is not text; name a file with --out FILE, or pipe the output")
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
