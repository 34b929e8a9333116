"""What the command says and how: results on standard output, everything else on standard error."""

import io
import shlex
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

from emtta_core.escapes import escaped

if TYPE_CHECKING:
    from emtta_core.store import Store
    from emtta_core.store.result import Result

COMPLETE, ERROR, USAGE, INCOMPLETE = range(4)
"""The exit codes of every verb: a mistake in the request is USAGE, work still to do is INCOMPLETE."""

TERMINATED = 128 + signal.SIGTERM
"""The exit code where work is still to do because SIGTERM asked to stop: what a shell says of a process it ended."""

UNBOUNDED = 10**9
"""Characters of a line where standard output is no terminal, which is more than any table has."""

READABLE = 10
"""Characters below which no column of words is pressed on a terminal, unless its longest word has fewer."""

PROSE = 200
"""Characters of a line of prose where standard output is no terminal."""

err = Console(highlight=False, stderr=True)


class Format(StrEnum):
    """How a table is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    MARKDOWN = "markdown"
    PARQUET = "parquet"


ENDINGS = {".csv": Format.CSV, ".json": Format.JSON, ".md": Format.MARKDOWN, ".parquet": Format.PARQUET}
"""What the ending of a file's name says of how its rows are written."""


def form_of(form: Format | None, to: Path | None) -> Format:
    """Return how rows are to be written: as is asked, else as the name of the file says, else as a table.

    Raises:
        UsageError: the two contradict each other, or the name is that of a page.
    """
    from emtta_core.errors import UsageError

    ending = to.suffix.lower() if to else ""
    if ending == ".html":
        raise UsageError(
            f"--out {to} is the name of a page, and rows are written as {', '.join(Format)}; "
            "the page on a run is written, with the same --store and --run, by: "
            f"emtta report html --out {shlex.quote(str(to))}"
        )
    told = ENDINGS.get(ending)
    if form and told and form is not told:
        raise UsageError(f"--format {form} contradicts --out {to}, whose ending means {told}; change one of them")
    return form or told or Format.TABLE


def prose() -> Console:
    """Return standard output as prose wants it: as wide as the terminal, and of a fixed width elsewhere."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PROSE)


def say(text: str) -> None:
    """Write a line for the reader, markup and wrapping left alone, on standard error."""
    err.print(escaped(text), markup=False, soft_wrap=True)


def say_if_empty(result: "Result", store: "Store") -> None:
    """Say what makes a run, where an answer has no row because the store has no run."""
    if not result.table.num_rows and not store.runs():
        say(f"the store {store.location} has no run yet; this makes one in a minute: {store.command('run', 'smoke')}")


def put(text: str) -> None:
    """Write a text on standard output; only a terminal gets it without signs that would act on it."""
    sys.stdout.write(escaped(text) if sys.stdout.isatty() else text)


def tabulate(table: Table, console: Console | None = None) -> None:
    """Write a table on standard output, and every value whole.

    On a terminal values are wrapped; columns for which it has no room are left out, and named. Elsewhere a line of the
    table is a line of the file, however long.

    Args:
        table: it loses the columns that are left out.
        console: takes it; by default the terminal, or the file or pipe in its place.
    """
    if console is None:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else UNBOUNDED)
    for column in table.columns:
        column.overflow = "fold"
    needed = [_needed(column, console) for column in table.columns]
    left_out = list[str]()
    while len(needed) > 1 and sum(needed) + 3 * len(needed) + 1 > console.width:
        needed.pop()
        left_out.insert(0, str(table.columns.pop().header))
    console.print(table)
    if left_out:
        say(
            f"left out, for this terminal has only {console.width} characters a line: {', '.join(left_out)}; "
            "ask for fewer columns, or write into a file or a pipe"
        )


def _needed(column: Column, console: Console) -> int:
    """Return the fewest characters with which a column can be read; numbers are never wrapped."""
    longest = max(Measurement.get(console, console.options, cell).minimum for cell in (column.header, *column.cells))
    return longest if column.no_wrap else min(longest, READABLE)


def show(result: "Result", form: Format, title: str | None = None, to: Path | None = None) -> None:
    """Write the answer to a query on standard output, or into the file `to`, in place of one that is there.

    Raises:
        UsageError: it is not text, and would go to a terminal, or the file cannot be written.
    """
    from emtta_core.errors import UsageError

    if to is not None:
        try:
            to.write_bytes(_content(result, form, title))
        except OSError as error:
            raise UsageError(f"--out {to} cannot be written: {error.strerror}") from error
    elif form is Format.TABLE:
        tabulate(result.to_table(title))
    elif form is Format.PARQUET:
        if sys.stdout.isatty():
            raise UsageError("--format parquet gives no text; name a file with --out FILE, or send it into a pipe")
        sys.stdout.buffer.write(result.parquet())
    else:
        put(_content(result, form, title).decode())


def _content(result: "Result", form: Format, title: str | None) -> bytes:
    """Return the answer as a file holds it."""
    if form is Format.PARQUET:
        return result.parquet()
    if form is Format.TABLE:
        text = io.StringIO()
        tabulate(result.to_table(title), Console(file=text, highlight=False, width=UNBOUNDED))
        return text.getvalue().encode()
    written = {Format.CSV: result.csv, Format.JSON: result.json, Format.MARKDOWN: result.markdown}[form]()
    return written.encode()
