"""`emtta doctor`: whether this machine can do the work."""

import typer
from rich.table import Table
from rich.text import Text

from flows.cli import logs
from flows.cli.options import DEFAULT_STORE, StoreOption
from flows.cli.output import COMPLETE, ERROR, out


def doctor(store: StoreOption = DEFAULT_STORE) -> None:
    """Look at versions, devices, speech synthesis, the model, the store, and Prefect's server.

    The exit code is 1 where something is missing.

    Examples:
        emtta doctor

        emtta doctor --store /data/emtta-store
    """
    logs.settle_environment()
    from flows.cli.checks import checks

    table = Table("", "what", "found", box=None)
    well = True
    for check in checks(store):
        mark = Text("ok", style="green") if check.ok else Text("no", style="bold red")
        table.add_row(mark, check.what, Text(check.found))
        well = well and check.ok
    out.print(table)
    raise typer.Exit(COMPLETE if well else ERROR)
