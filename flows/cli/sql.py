"""`emtta sql`: any SELECT over the store."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import DEFAULT_STORE, FormatOption, OutOption, ParamOption, StoreOption, pairs
from flows.cli.output import form_of, show


def sql(
    query: Annotated[
        str | None, typer.Argument(help="One SELECT, or a file that ends in .sql.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Read the SELECT from this file.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    param: ParamOption = None,
    form: FormatOption = None,
    to: OutOption = None,
) -> None:
    """Query the store with SQL (DuckDB's), or open a prompt where neither a query nor a file is given.

    The prompt keeps a history and completes names with Tab; .help says what else it knows. A pipe is read as one query.
    Views: runs, groups, cells, utterances, changes, edits, steps, …; sql/schema.md tells of all and of their columns.

    Examples:
        emtta sql "SELECT domain, method, wer FROM cells ORDER BY wer DESC LIMIT 5"

        emtta sql "FROM cells WHERE method = $method" --param method=em-tok-b --out cells.parquet

        emtta sql -f question.sql --format json

        emtta sql
    """
    from emtta_core.errors import UsageError
    from emtta_core.store import Store
    from emtta_core.store.catalogue import Catalogue

    chosen, parameters, text = form_of(form, to), pairs(param), _query(query, file)
    if text is None and (parameters or to):
        raise UsageError("--param and --out belong to a query: give one, or leave them out for a prompt")
    with Catalogue(Store.open(store)) as catalogue:
        if text is None:
            from flows.cli.prompt import Prompt

            Prompt(catalogue, chosen).run()
        else:
            show(catalogue.query(text, parameters or None), chosen, to=to)


def _query(query: str | None, file: Path | None) -> str | None:
    """Return the query that was given in one of three ways; None where a prompt is wanted."""
    from emtta_core.errors import UsageError

    if query is not None and file is not None:
        raise UsageError(f"there is a query, and the file {file} with another; give one of them")
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
            raise UsageError("there is no query: give one as an argument, by -f FILE, or on standard input")
    return query
