"""Store maintenance: `emtta check`, `emtta compact`, `emtta prune` and `emtta catalog export`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from emtta_core.names import counted
from emtta_core.sanitize import escaped
from flows.cli._options import DEFAULT_STORE, DryRunOption, FormOption, RunArgument, StoreOption, flowing
from flows.cli._output import COMPLETE, ERROR, Format, echo, put_json, show, tabulate

if TYPE_CHECKING:
    from emtta_core.store.pruning import Pruning


def check(
    store_argument: Annotated[
        str | None, typer.Argument(metavar="[STORE]", help="The same as --store.", show_default=False)
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN", help="Only this run, its audio, and what it reuses.", show_default=False),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TABLE,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Read every file of the store, and report each that is damaged, malformed or from another release, with a remedy.

    Nothing is changed. The exit code is 0 if every file is intact, otherwise 1.

    Examples:
        emtta check

        emtta check s3://bucket/store --run demo-1a2b3c4d --format json
    """
    from emtta_core.store import Store
    from emtta_core.store.describe import text_table
    from emtta_core.store.integrity import check_store

    found = check_store(Store.open(store_argument or store), run)
    columns = ("file", "problem", "reason", "remedy")
    rows = [[getattr(fault, name) for name in columns] for fault in found.faults]
    if rows or form is not Format.TABLE:
        show(text_table(columns, rows), form)
    echo(f"read {counted(found.files, 'file')} ({decimal(found.size)}); need attention: {len(rows) or 'none'}")
    raise typer.Exit(ERROR if rows else COMPLETE)


def compact(
    run: RunArgument,
    store: StoreOption = DEFAULT_STORE,
    dry_run: DryRunOption = False,
) -> None:
    """Merge the many small files of a run into a few, which makes queries over many runs faster.

    Results stay the same, and concurrent readers are not affected. The run can be resumed later. A run that is being
    worked on is refused. If the command is killed, repeating it finishes the job; no repair is needed.

    Examples:
        emtta compact demo-1a2b3c4d --dry-run

        emtta compact demo-1a2b3c4d
    """
    from emtta_core.store import Store
    from emtta_core.store.compaction import compact as merge
    from emtta_core.store.compaction import plan_compaction

    opened = Store.open(store)
    found = plan_compaction(opened, run)
    if not found.needed:
        echo(f"run {run}: nothing to do, its rows are in {counted(found.packs, 'file')}")
    elif dry_run:
        echo(f"run {run}: would merge {counted(found.files, 'file')} ({decimal(found.size)}) into {found.packs}")
    else:
        done = merge(opened, run)
        echo(f"run {run}: {done.files} files ({decimal(done.size)}) are now {done.packs} ({decimal(done.packed or 0)})")


def prune(
    keep: Annotated[
        str, typer.Option("--keep", metavar="N|30d", help="For each suite, the N newest runs, or those up to this age.")
    ],
    suite: Annotated[str | None, typer.Option("--suite", help="Only runs of this suite.")] = None,
    keep_prepared: Annotated[
        bool, typer.Option("--keep-prepared", help="Keep prepared audio that no run needs.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: StoreOption = DEFAULT_STORE,
    dry_run: DryRunOption = False,
    form: FormOption = "table",
) -> None:
    """Remove old runs, their logs, and prepared audio that no remaining plan names.

    Always kept are the newest complete run of each suite, runs that a process is working on, and runs whose results a
    kept run reuses. Ages are in hours, days or weeks (12h, 30d, 8w).

    Examples:
        emtta prune --keep 30d --dry-run

        emtta prune --keep 10 --suite demo --yes
    """
    from emtta_core.errors import UsageError
    from emtta_core.store import Store
    from emtta_core.store.pruning import Keep, plan_pruning
    from emtta_core.store.pruning import prune as remove

    rule, opened = Keep.parse(keep), Store.open(store)
    found = plan_pruning(opened, rule, suite=suite, keep_prepared=keep_prepared)
    _show(found, form)
    if not found.runs and not found.corpora:
        echo("nothing to remove")
        return
    if dry_run:
        echo(f"would remove {_counted(found)}")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"removing {_counted(found)} needs confirmation, but there is no terminal; add --yes")
        typer.confirm(f"Remove {_counted(found)}?", abort=True, err=True)
    done = remove(opened, found)
    for run_id in set(done.spared) - set(found.spared):
        echo(f"kept {run_id}: {done.spared[run_id]}")
    echo(f"removed {_counted(done)}")


def _show(found: "Pruning", form: str) -> None:
    # What would be removed goes to standard output; what is kept, and why, goes to standard error or into the JSON.
    from rich.table import Table

    if form == "json":
        put_json(asdict(found))
        return
    table = Table("run or corpus", "suite", "created, UTC", "state", "size")
    for run in found.runs:
        created = f"{run.created_at:%Y-%m-%d %H:%M}" if run.created_at else "—"
        table.add_row(
            escaped(run.name), escaped(run.suite or "—"), created, run.state or "left behind", decimal(run.size)
        )
    for corpus in found.corpora:
        table.add_row(escaped(corpus.name), "—", "—", "prepared audio", decimal(corpus.size))
    if table.row_count:
        tabulate(table)
    for run_id, reason in found.spared.items():
        echo(f"kept {run_id}: {reason}")


def _counted(found: "Pruning") -> str:
    corpora = f"{len(found.corpora)} prepared {'corpus' if len(found.corpora) == 1 else 'corpora'}"
    return f"{counted(len(found.runs), 'run')} and {corpora}, {decimal(found.size)}"


catalog = typer.Typer(help="The views of the store for other programs.", no_args_is_help=True, rich_markup_mode="rich")


@catalog.callback()
def _catalog() -> None:
    """Keep `export` a subcommand, though it is the only one."""


def export_catalog(
    file: Annotated[Path, typer.Argument(metavar="FILE.duckdb", help="The file; an earlier export is replaced.")],
    run: Annotated[
        list[str] | None, typer.Option("--run", metavar="ID", help="Only this run; repeatable. Default: all.")
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the rows, except audio, into the file; the store is no longer needed.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write a DuckDB file that gives any DuckDB client or BI tool the views of the store, without emtta.

    By default, its views read the store's Parquet files by absolute path. It is a snapshot: export again after a run,
    and after emtta compact or prune, which remove files that it names. A store in a bucket needs
    --copy. Without it, the view edits is left out, as it needs a function that only emtta provides.

    Examples:
        emtta catalog export results.duckdb

        emtta catalog export night.duckdb --run demo-1a2b3c4d --copy
    """
    from emtta_core.store import Store
    from emtta_core.store.export import export as write

    done = write(Store.open(store), file, run_ids=run or (), copy=copy)
    echo(
        f"{done.file}: {counted(done.runs, 'run')}, {decimal(done.size)}; "
        + ("with their rows" if copy else f"reads {store}")
    )
    if done.left_out:
        echo(f"left out, as they need emtta's functions: {', '.join(done.left_out)}; --copy includes their rows")


catalog.command("export", help=flowing(export_catalog.__doc__))(export_catalog)
