"""`emtta sql`: any SELECT over the store."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli._options import (
    DEFAULT_STORE,
    FormatOption,
    MemoryOption,
    OutOption,
    ParamOption,
    ScorerOption,
    StoreOption,
    TimeoutOption,
    limits,
    pairs,
)
from flows.cli._output import format_of, show


def sql(
    query: Annotated[
        str | None, typer.Argument(help="One SELECT, or a file that ends in .sql.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Read the SELECT from this file.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    param: ParamOption = None,
    scorer: ScorerOption = None,
    form: FormatOption = None,
    to: OutOption = None,
    timeout: TimeoutOption = None,
    memory: MemoryOption = None,
) -> None:
    """Query the store with SQL (DuckDB's), or open a prompt if there is no query and no file.

    The prompt has a history and completes names with Tab; .help lists its commands. Input from a pipe is one query.
    Views: runs, groups, cells, utterances, changes, edits, steps, …; sql/schema.md describes them and their columns.

    Examples:
        emtta sql "SELECT domain, method, wer FROM cells ORDER BY wer DESC LIMIT 5"

        emtta sql "FROM cells WHERE method = $method" --param method=em-tok-b --out cells.parquet

        emtta sql -f question.sql --format json

        emtta sql
    """
    from emtta_core.errors import UsageError
    from emtta_core.store import Store
    from emtta_core.store.catalogue import Catalogue

    chosen, parameters, text = format_of(form, to), pairs(param), _query(query, file)
    if text is None and (parameters or to):
        raise UsageError("--param and --out belong to a query: give one, or leave them out for a prompt")
    with Catalogue(Store.open(store), scorer=scorer, limits=limits(timeout, memory)) as catalogue:
        if text is None:
            from flows.cli._prompt import Prompt

            Prompt(catalogue, chosen).run()
        else:
            show(catalogue.query(text, parameters or None), chosen, to=to)


def _query(query: str | None, file: Path | None) -> str | None:
    """The query that was given in one of three ways; None where a prompt is wanted."""
    from emtta_core.errors import UsageError

    if query is not None and file is not None:
        raise UsageError(f"give either a query or the file {file}, not both")
    if query is not None and query.endswith(".sql") and not any(character.isspace() for character in query):
        file = Path(query)
    if file is not None:
        try:
            return file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise UsageError(f"the query cannot be read from the file {file}: {reason}") from error
    if query is None and not sys.stdin.isatty():
        query = sys.stdin.read()
        if not query.strip():
            raise UsageError("no query given: pass it as an argument, with -f FILE, or on standard input")
    return query
