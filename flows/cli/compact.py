"""`emtta compact`: put the many small files of a run into few."""

from typing import Annotated

import typer
from rich.filesize import decimal

from flows.cli._options import DEFAULT_STORE, DryRunOption, StoreOption
from flows.cli._output import say


def compact(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id; see emtta list.")],
    store: StoreOption = DEFAULT_STORE,
    dry_run: DryRunOption = False,
) -> None:
    """Put the many small files of a run into few, so that questions on many runs are answered sooner.

    Every answer stays the same, and whoever reads meanwhile is not disturbed. The run can go on later. A run that is
    being worked on is refused. Killed, it leaves nothing to mend; the same command ends it.

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
        say(f"run {run}: nothing to do, its rows are in {found.packs} files")
    elif dry_run:
        say(f"run {run}: would put {found.files} files ({decimal(found.size)}) into {found.packs}")
    else:
        done = merge(opened, run)
        say(f"run {run}: {done.files} files ({decimal(done.size)}) are {done.packs} now ({decimal(done.packed or 0)})")
