"""`emtta sql`: any SELECT over the store."""

from typing import Annotated

import typer

from flows.cli.options import DEFAULT_STORE, StoreOption
from flows.cli.output import Format, show


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT.")],
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[Format, typer.Option("--format", help="How the rows are written.")] = Format.TABLE,
) -> None:
    """Query the store with SQL (DuckDB's).

    Views: runs, groups, cells, utterances, steps, attempts, planned, prepared. raw.hypotheses and the like: every row.

    Examples:
        emtta sql "SELECT domain, method, wer FROM cells ORDER BY wer DESC LIMIT 5"

        emtta sql "FROM runs" --format json
    """
    from emtta_core.store import Store
    from emtta_core.store.catalogue import Catalogue

    with Catalogue(Store.open(store)) as catalogue:
        show(catalogue.query(query), form)
