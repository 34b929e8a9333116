"""`emtta run`: evaluate a suite, or finish what is missing of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli import logs, server
from flows.cli.options import DEFAULT_STORE, StoreOption
from flows.cli.output import INCOMPLETE, Format, err, out, say, show

if TYPE_CHECKING:
    from emtta_core.pipeline.cell import Cell
    from emtta_core.pipeline.run import Run
    from emtta_core.pipeline.state import CellState
    from emtta_core.store import Store

FAILURES_NAMED = 20
"""How many cells are named at the end that are not complete."""


def run(
    suite: Annotated[str, typer.Argument(help="A shipped suite (see emtta suites), or the path of a .toml file.")],
    run_id: Annotated[
        str | None, typer.Option("--run-id", metavar="ID", help="Default: the suite's name and its plan's digest.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="domain=…|method=…|group=…", help="These cells; repeatable.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many utterances a domain.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Evaluate a suite: its domains times its methods.

    The same command again finishes what is missing, and does nothing where nothing is.
    Exit codes: 0 all is complete, 1 an error, 2 a mistake in the request, 3 something is missing.

    Examples:
        emtta run smoke

        emtta run demo --only group=noise --only method=source --only method=em-tok-b

        emtta run suites/mine.toml --limit 20 --dry-run
    """
    logs.settle_environment()
    from emtta_core.pipeline.models import digest_of
    from emtta_core.pipeline.run import foresee, plan_run, record
    from emtta_core.pipeline.selection import select
    from emtta_core.store import Store
    from emtta_core.suite import load_suite

    loaded = load_suite(suite, limit=limit)
    opened = Store.find(store) if dry_run else Store.open(store, create=True)
    planned = plan_run(loaded, digest_of(loaded.model), run_id)
    wanted = set(select(planned.cells, only or []))
    todo = [state for state in foresee(planned, opened) if state.cell in wanted and not state.complete]
    if dry_run or opened is None:
        _foretell(planned, len(wanted), todo)
        return
    if todo:
        record(planned, opened)
        _evaluate(suite, opened, planned.run_id, only or [], limit)
    else:
        say(f"run {planned.run_id}: nothing to do, all of its {len(wanted)} cells are complete")
    _conclude(suite, opened, planned, wanted, limit)


def _foretell(planned: "Run", wanted: int, todo: "Sequence[CellState]") -> None:
    """Say what a run would do."""
    from rich.table import Table

    utterances = sum(state.missing for state in todo)
    say(f"run {planned.run_id}: would do {len(todo)} of {wanted} cells, {utterances} utterances; the rest is complete")
    table = Table("domain", "group", "methods", "utterances a method")
    for domain in dict.fromkeys(state.cell.domain for state in todo):
        cells = [state for state in todo if state.cell.domain == domain]
        names = ", ".join(state.cell.method for state in cells)
        table.add_row(domain, cells[0].cell.group, names, str(max(state.missing for state in cells)))
    if todo:
        out.print(table)


def _evaluate(suite: str, store: "Store", run_id: str, only: Sequence[str], limit: int | None) -> None:
    """Run the flow, and show how it goes."""
    from flows.cli.progress import watching

    with store.run_log(run_id) as log, watching(err), logs.logging_to(log):
        from flows.evaluate import evaluate

        server.reach()
        flow_run = evaluate(suite, store.location, run_id, list(only), limit, return_state=True)
        ended = flow_run.result(raise_on_failure=False)
    if isinstance(ended, BaseException):  # not what a cell met, of which the store knows, but what stopped the flow
        raise ended


def _conclude(suite: str, store: "Store", planned: "Run", wanted: "set[Cell]", limit: int | None) -> None:
    """Show what was found, and what to type next."""
    from emtta_core.pipeline.selection import resume_command
    from emtta_core.pipeline.state import cell_states
    from emtta_core.store.catalogue import Catalogue

    with Catalogue(store) as catalogue:
        show(catalogue.report("methods", planned.run_id), Format.TABLE, "Word error rate, %")
    if any(domain.corpus.name == "synthetic" for domain in planned.suite.domains):
        say("The speech is synthetic: these figures say how the methods compare here, not how they do on real speech.")
    say(f"store: {store.location}")
    states = cell_states(store, planned.run_id)
    in_error = sum(state.in_error for state in states if state.cell in wanted)
    if in_error:
        failures = f"emtta report failures --run {planned.run_id} --store {store.location}"
        say(f"utterances in error: {in_error}, in no WER above; why: {failures}")
    incomplete = [state for state in states if not state.complete]
    left = [state for state in incomplete if state.cell in wanted]
    if not left:
        say(f"next: emtta report leaderboard --run {planned.run_id} --store {store.location}")
        return
    failed = [state for state in left if state.error is not None]
    for state in failed[:FAILURES_NAMED]:
        say(f"not complete: {state.cell.name}: {state.error}")
    if len(left) > len(failed[:FAILURES_NAMED]):
        say(f"not complete: {len(left) - len(failed[:FAILURES_NAMED])} more cells")
    say(f"log: {store.place.url(f'logs/{planned.run_id}.log')}")
    cells, others = ([state.cell for state in states] for states in (left, incomplete))
    command = resume_command(suite, planned.run_id, store.location, cells, others, limit)
    say(f"finish them with: {command}")
    raise typer.Exit(INCOMPLETE)
