"""`emtta export`: a run for other scorers, papers and the hub; `emtta catalog export`: the views of the store."""

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from flows.cli._options import DEFAULT_STORE, MemoryOption, ScorerOption, StoreOption, TimeoutOption, flowing, limits
from flows.cli._output import say


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id; see emtta list.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="trn, ctm, nemo, open-asr, csv, parquet, latex, results-json or hub.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder; it is made if it is missing.")],
    method: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME", help="Only this method; repeatable.", show_default=False),
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", metavar="NAME", help="Only this domain; repeatable.", show_default=False),
    ] = None,
    scorer: ScorerOption = None,
    hub_id: Annotated[
        str | None,
        typer.Option("--hub-id", metavar="OWNER/NAME", help="For hub: the id that the data set is to have."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files of the same names.")] = False,
    store: StoreOption = DEFAULT_STORE,
    timeout: TimeoutOption = None,
    memory: MemoryOption = None,
) -> None:
    """Write a run's hypotheses or figures in a format of other tools, into a folder. Nothing is uploaded.

    trn and ctm are for sclite, nemo and open-asr are JSON lines, csv and parquet have all columns of the utterances,
    latex has the leaderboard, results-json all figures, and hub a data set with its card.

    Examples:
        emtta export demo-1a2b3c4d --format trn --out sclite

        emtta export demo-1a2b3c4d --format nemo --method em-tok-b --domain BA --out manifests

        emtta export demo-1a2b3c4d --format results-json --out results
    """
    from emtta_core.report.interchange import export_run
    from emtta_core.store import Store

    done = export_run(
        Store.open(store),
        run,
        form,
        out,
        methods=method or (),
        domains=domain or (),
        scorer=scorer,
        hub_id=hub_id,
        replace=force,
        limits=limits(timeout, memory),
    )
    for remark in done.remarks:
        say(remark)
    more = f" and {len(done.files) - _NAMED} more" if len(done.files) > _NAMED else ""
    say(f"{done.folder}: {', '.join(done.files[:_NAMED])}{more}; {decimal(done.size)}")


_NAMED = 6
"""Files that are named."""


catalog = typer.Typer(help="The views of the store for other programs.", no_args_is_help=True, rich_markup_mode="rich")


@catalog.callback()
def _catalog() -> None:
    """Let `export` be a verb of its own, though it is the only one."""


def export_catalog(
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


catalog.command("export", help=flowing(export_catalog.__doc__))(export_catalog)
