"""`emtta report`: the named questions to the store."""

from typing import Annotated

import typer

from flows.cli.options import DEFAULT_STORE, StoreOption
from flows.cli.output import Format, show


def report(
    name: Annotated[str, typer.Argument(help="leaderboard, methods, domains, steps, failures, coverage or runs.")],
    run: Annotated[str | None, typer.Option("--run", metavar="ID", help="The run; the newest by default.")] = None,
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[Format, typer.Option("--format", help="How the rows are written.")] = Format.TABLE,
) -> None:
    """Show a report on a run.

    Examples:
        emtta report leaderboard

        emtta report domains --run demo-1a2b3c4d --format markdown
    """
    from emtta_core.store import Store
    from emtta_core.store.catalogue import Catalogue

    with Catalogue(Store.open(store)) as catalogue:
        show(catalogue.report(name, run), form)
