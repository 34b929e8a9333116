"""`emtta list`: the runs of the store."""

from typing import Annotated

import typer

from flows.cli.options import DEFAULT_STORE, StoreOption
from flows.cli.output import Format, say_if_empty, show


def runs(
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[Format, typer.Option("--format", help="How the rows are written.")] = Format.TABLE,
) -> None:
    """List the runs of the store, the newest first.

    Examples:
        emtta list

        emtta list --format json
    """
    from emtta_core.store import Store
    from emtta_core.store.catalogue import Catalogue

    with Catalogue(Store.open(store)) as catalogue:
        found = catalogue.report("runs")
        show(found, form)
        say_if_empty(found, catalogue.store)
