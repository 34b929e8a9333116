"""`emtta catalog`: the views of the store for other programs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from flows.cli._options import DEFAULT_STORE, StoreOption, flowing
from flows.cli._output import say

app = typer.Typer(help="The views of the store for other programs.", no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def _catalog() -> None:
    """Let `export` be a verb of its own, though it is the only one."""


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.duckdb", help="Where; an earlier export is replaced.")],
    run: Annotated[
        list[str] | None, typer.Option("--run", metavar="ID", help="Only this run; repeatable. Default: all.")
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Put the rows into the file, but for audio; the store is needed no more.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write a DuckDB file in which any DuckDB client or BI tool finds the views of the store, without emtta.

    By default its views read the store's Parquet files by their absolute paths. It is a picture of the moment: export
    again after a run, and after emtta compact or prune, which take away files that it names. A store in a bucket wants
    --copy. Without --copy the view edits is left out, as it needs a function that only emtta has.

    Examples:
        emtta catalog export results.duckdb

        emtta catalog export night.duckdb --run demo-1a2b3c4d --copy
    """
    from emtta_core.store import Store
    from emtta_core.store.export import export as write

    done = write(Store.open(store), file, run_ids=run or (), copy=copy)
    runs = f"{done.runs} run{'s' if done.runs != 1 else ''}"
    say(f"{done.file}: {runs}, {decimal(done.size)}; " + ("with their rows" if copy else f"reads {store}"))
    if done.left_out:
        say(f"left out, needing emtta's own functions: {', '.join(done.left_out)}; --copy puts its rows in")


app.command(help=flowing(export.__doc__))(export)
