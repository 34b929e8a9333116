"""What the command says and how: results on standard output, everything else on standard error."""

import io
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from emtta_core.store.result import Result

COMPLETE, ERROR, USAGE, INCOMPLETE = range(4)
"""The exit codes of every verb: a mistake in the request is USAGE, work still to do is INCOMPLETE."""

TERMINATED = 128 + signal.SIGTERM
"""The exit code where work is still to do because SIGTERM asked to stop: what a shell says of a process it ended."""

WIDTH_OF_A_FILE = 200
"""Columns for tables where standard output is no terminal: a line of a table is a line of the file."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
err = Console(highlight=False, stderr=True)


class Format(StrEnum):
    """How a table is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    MARKDOWN = "markdown"
    PARQUET = "parquet"


def say(text: str) -> None:
    """Write a line for the reader, markup and wrapping left alone, on standard error."""
    err.print(text, markup=False, soft_wrap=True)


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
        out.print(result.to_table(title))
    elif form is Format.PARQUET:
        if sys.stdout.isatty():
            raise UsageError("--format parquet gives no text; name a file with --out FILE, or send it into a pipe")
        sys.stdout.buffer.write(result.parquet())
    else:
        sys.stdout.write(_content(result, form, title).decode())


def _content(result: "Result", form: Format, title: str | None) -> bytes:
    """Return the answer as a file holds it."""
    if form is Format.PARQUET:
        return result.parquet()
    if form is Format.TABLE:
        text = io.StringIO()
        Console(file=text, highlight=False, width=WIDTH_OF_A_FILE).print(result.to_table(title))
        return text.getvalue().encode()
    written = {Format.CSV: result.csv, Format.JSON: result.json, Format.MARKDOWN: result.markdown}[form]()
    return written.encode()
