"""`emtta report`: the named questions to the store."""

from typing import Annotated

import typer

from flows.cli.options import DEFAULT_STORE, StoreOption
from flows.cli.output import Format, show


def report(
    name: Annotated[
        str, typer.Argument(help="leaderboard, methods, domains, steps, failures, coverage, pairs or runs.")
    ],
    run: Annotated[str | None, typer.Option("--run", metavar="ID", help="The run; the newest by default.")] = None,
    store: StoreOption = DEFAULT_STORE,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="Another parameter of the report; repeatable."),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How the rows are written.")] = Format.TABLE,
) -> None:
    """Show a report on a run.

    Examples:
        emtta report leaderboard

        emtta report domains --run demo-1a2b3c4d --param group=noise --format markdown
    """
    from emtta_core.store import Store
    from emtta_core.store.catalogue import Catalogue

    with Catalogue(Store.open(store)) as catalogue:
        show(catalogue.report(name, run, **_parameters(param or [])), form)


def _parameters(given: list[str]) -> dict[str, str]:
    """Return parameters from `name=value`; UsageError where one is not written so."""
    from emtta_core.errors import UsageError

    pairs = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not (name and sign) or name == "run_id":
            raise UsageError(f"--param {text!r} is no parameter; write NAME=VALUE, and the run as --run ID")
        pairs[name] = value
    return pairs
