"""`emtta status`: the progress of a run."""

from typing import Annotated

import typer

from flows.cli._options import DEFAULT_STORE, FormOption, StoreOption
from flows.cli._output import COMPLETE, INCOMPLETE, put, put_json


def status(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id; see emtta list.")],
    store: StoreOption = DEFAULT_STORE,
    form: FormOption = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Show the progress of a run; the exit code is 0 if it is complete and 3 if it is not.

    Examples:
        emtta status demo-1a2b3c4d

        emtta status demo-1a2b3c4d --format json | jq .cells
    """
    from emtta_core.pipeline.state import run_status
    from emtta_core.store import Store

    found = run_status(Store.open(store), run)
    if as_json or form == "json":
        put_json(found.as_dict())
    else:
        put(f"{found.as_text()}\n")
    raise typer.Exit(COMPLETE if found.complete else INCOMPLETE)
