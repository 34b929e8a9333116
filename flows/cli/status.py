"""`emtta status`: the progress of a run."""

import json
from typing import Annotated

import typer

from flows.cli._options import DEFAULT_STORE, StoreOption
from flows.cli._output import COMPLETE, INCOMPLETE, put


def status(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id; see emtta list.")],
    store: StoreOption = DEFAULT_STORE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show the progress of a run; the exit code is 0 if it is complete and 3 if it is not.

    Examples:
        emtta status demo-1a2b3c4d

        emtta status demo-1a2b3c4d --json | jq .cells
    """
    from emtta_core.pipeline.state import run_status
    from emtta_core.store import Store

    found = run_status(Store.open(store), run)
    if as_json:
        put(json.dumps(found.as_dict(), ensure_ascii=False, indent=2) + "\n")
    else:
        put(f"{found.as_text()}\n")
    raise typer.Exit(COMPLETE if found.complete else INCOMPLETE)
