"""What the command says and how: results on standard output, everything else on standard error."""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from emtta_core.store.result import Result

COMPLETE, ERROR, USAGE, INCOMPLETE = range(4)
"""The exit codes of every verb: a mistake in the request is USAGE, work still to do is INCOMPLETE."""

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


def say(text: str) -> None:
    """Write a line for the reader, markup and wrapping left alone, on standard error."""
    err.print(text, markup=False, soft_wrap=True)


def show(result: "Result", form: Format, title: str | None = None) -> None:
    """Write the answer to a query on standard output."""
    if form is Format.TABLE:
        out.print(result.to_table(title))
    else:
        text = {Format.CSV: result.csv, Format.JSON: result.json, Format.MARKDOWN: result.markdown}[form]()
        sys.stdout.write(text)
