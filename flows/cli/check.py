"""`emtta check`: whether every file of the store is whole."""

from typing import Annotated

import typer
from rich.filesize import decimal

from flows.cli._options import DEFAULT_STORE, StoreOption
from flows.cli._output import COMPLETE, ERROR, Format, say, show


def check(
    place: Annotated[
        str | None, typer.Argument(metavar="[STORE]", help="The same as --store.", show_default=False)
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN", help="Only this run, its audio, and what it reuses.", show_default=False),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TABLE,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Read every file of the store, and name each that is damaged, malformed or of another release, with what to do.

    Nothing is changed. The exit code is 0 if every file is whole and 1 if one is not.

    Examples:
        emtta check

        emtta check s3://bucket/store --run demo-1a2b3c4d --format json
    """
    from emtta_core.store import Store
    from emtta_core.store.describe import text_table
    from emtta_core.store.integrity import check_store

    found = check_store(Store.open(place or store), run)
    columns = ("file", "problem", "reason", "remedy")
    rows = [[getattr(fault, name) for name in columns] for fault in found.faults]
    if rows or form is not Format.TABLE:
        show(text_table(columns, rows), form)
    say(f"{found.files} files ({decimal(found.size)}) were read; {len(rows) or 'none'} of them to be seen to")
    raise typer.Exit(ERROR if rows else COMPLETE)
