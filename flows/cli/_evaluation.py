"""The common parts of `emtta run` and `emtta rerun`: plan, show what will be done, execute it, and show the results."""

import signal
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import typer

from emtta_core.names import counted
from flows.cli import _log
from flows.cli._output import INCOMPLETE, TERMINATED, echo, err, tabulate
from flows.cli.report import show_methods

if TYPE_CHECKING:
    from emtta_core.pipeline.plan import Cell
    from emtta_core.pipeline.reuse import Expected
    from emtta_core.pipeline.run import Run
    from emtta_core.pipeline.selection import Redo
    from emtta_core.pipeline.state import CellState
    from emtta_core.store import Store
    from emtta_core.suite import Suite

MAX_LISTED_REASONS, MAX_LISTED_CELLS = 10, 6
"""The most reasons for incomplete cells given at the end, and the most cells named for each."""


def check_devices(suite: "Suite", devices: str | None, runner: str) -> None:
    """Refuse devices that this machine does not have, before anything is recorded."""
    from emtta_core.worker.devices import choose_devices

    if runner == "threads":
        choose_devices(devices or suite.model.device, suite.runtime)


def plan_suite(suite: "Suite", run_id: str | None, store: "Store | None", *, dry_run: bool) -> "tuple[Run, Expected]":
    """Plan the run of a suite, and show its remarks; nothing is recorded.

    A dry run does not fetch a model; if the model is not on this machine, no cell counts as done.
    """
    from emtta_core.pipeline.models import check_path, digest_of, model_to_fetch
    from emtta_core.pipeline.reuse import expected
    from emtta_core.pipeline.run import find_started, plan_run

    download = model_to_fetch(suite.model)
    if download is not None:
        echo(download.message())
    if download is not None and dry_run:
        echo("a dry run does not fetch it; which cells are done, and the run's id, are known only with its weights")
        run, store = plan_run(suite, "not fetched", run_id or suite.name), None
    else:
        digest = digest_of(suite.model)
        check_path(suite)
        run = plan_run(suite, digest, run_id)
    if store is not None:
        run = find_started(run, store)
    for remark in run.plan.remarks:
        echo(remark)
    return run, expected(run, store)


def with_streams(run: "Run", chosen: "Collection[Cell]") -> "set[Cell]":
    """The chosen cells of a run, and the other cells of their multi-domain streams, which are reported."""
    from emtta_core.pipeline.selection import expand_to_streams

    expanded = expand_to_streams(run.suite, run.cells, chosen)
    further = [cell.name for cell in run.cells if cell in expanded and cell not in chosen]
    if further:
        more = f" and {len(further) - MAX_LISTED_CELLS} more" if len(further) > MAX_LISTED_CELLS else ""
        echo(f"a stream runs as a whole, so these cells run too: {', '.join(further[:MAX_LISTED_CELLS])}{more}")
    return expanded


def check_no_reuse(run: "Run", store: "Store") -> None:
    """Refuse --no-reuse for a recorded run that was started without it."""
    from emtta_core.errors import UsageError
    from emtta_core.pipeline.run import load_run

    if load_run(store, run.run_id).suite.runtime.reuse:
        raise UsageError(
            f"run {run.run_id} was started without --no-reuse; to measure everything again in a new run, add a --run-id"
        )


def show_dry_run(
    store: "Store | None",
    run: "Run",
    expected: "Expected",
    selected: "Collection[Cell]",
    todo: "Sequence[CellState]",
    redo: "Redo" = "missing",
) -> None:
    """Show what would be done for the selected cells, what would be reused, and how long it would take."""
    states = [state for state in expected.states if state.cell in selected]
    show_todo(run.run_id, states, todo, redo)
    reused = sum(state.reused for state in states)
    if reused:
        sources = expected.sources({state.cell for state in states})
        named = f": {', '.join(sources)}" if sources else ""
        echo(f"{reused} of them are results of other runs{named}")
    same = len(todo) - len({state.cell.cell_id for state in todo})
    if same and redo == "missing" and run.suite.runtime.reuse:
        echo(f"{same} of the cells are the same work as others of this run, and reuse their results")
    if expected.may_grow:
        echo("results of other runs for utterances with the same audio are reused; this is known once it is prepared")
    _echo_estimate(store, run, todo, redo)


def show_todo(run_id: str, states: "Sequence[CellState]", todo: "Sequence[CellState]", redo: "Redo") -> None:
    """Show the work for cells in these states, of which `todo` have something to do, and what is reused."""
    from rich.table import Table

    unavailable = [state for state in todo if not state.cell.available]
    todo = [state for state in todo if state.cell.available]
    count = sum(state.to_do(redo) for state in todo)
    share = f"{len(todo)} of {counted(len(states), 'cell')}"
    echo(f"run {run_id}: would do {share}, {counted(count, 'utterance')}; the rest is complete")
    kept = sum(state.done for state in states) + sum(state.missing for state in todo) - count
    if kept:
        echo(f"it would reuse {counted(kept, 'finished utterance')} and prepared audio")
    if unavailable:
        names = ", ".join(dict.fromkeys(state.cell.domain for state in unavailable))
        echo(f"{counted(len(unavailable), 'cell')} cannot be done without audio, which is not available for: {names}")
    several = any(state.cell.seeds > 1 for state in todo)
    table = Table("domain", "group", "methods", f"utterances per method{' and seed' if several else ''}")
    for domain in dict.fromkeys(state.cell.domain for state in todo):
        cells = [state for state in todo if state.cell.domain == domain]
        table.add_row(
            domain,
            cells[0].cell.group,
            _methods([state.cell for state in cells]),
            str(max(state.to_do(redo) for state in cells)),
        )
    if todo:
        tabulate(table)


def _methods(cells: "Sequence[Cell]") -> str:
    seeds: dict[str, list[str]] = {}
    for cell in cells:
        seeds.setdefault(cell.method, []).extend([cell.seed_name] if cell.seeds > 1 else [])
    return ", ".join(f"{method} (seeds {' '.join(own)})" if own else method for method, own in seeds.items())


def _echo_estimate(store: "Store | None", run: "Run", todo: "Sequence[CellState]", redo: "Redo") -> None:
    from emtta_core.pipeline.state import forecast
    from flows.cli._progress import clock

    estimate = forecast(store if todo else None, run.suite, {state.cell: state.to_do(redo) for state in todo})
    if estimate.paces:
        runs = ", ".join(sorted({f"{pace.run_id} ({pace.device})" for pace in estimate.paces.values()}))
        echo(f"adaptation: about {clock(estimate.seconds)} with one worker, at the pace of {runs}")
    if estimate.unknown:
        echo(f"no earlier run shows how long {', '.join(estimate.unknown)} will take; one with --limit 20 would")


def execute(store: "Store", run_id: str, cells: "Collection[Cell]", **parameters: Any) -> None:
    """Run the flow `evaluate`, and show its progress.

    If the Prefect server is lost meanwhile, only its records are lost: cells continue without it.
    """
    import httpx

    from flows import prefect_server
    from flows.cli._progress import watching

    with store.run_log(run_id) as log, watching(err), prefect_server.serving(log) as reach, _log.logging_to(log):
        from flows.evaluate import evaluate

        reach()
        chosen = [(cell.domain, cell.method, cell.seed) for cell in cells]
        try:
            flow_run = evaluate(run_id, store.location, chosen, return_state=True, **parameters)
        except httpx.TransportError as error:
            echo(f"Prefect's server no longer answers ({error}) and has no record of the outcome; the store has it")
            return
        if flow_run.is_cancelled() or not flow_run.is_final():
            echo(
                f"this flow run was cancelled in Prefect, where it is {flow_run.name}; that does not stop this command "
                "(Ctrl-C does), and finished work is kept"
            )
            return
        outcome = flow_run.result(raise_on_failure=False)
    if isinstance(outcome, BaseException):  # an error that stopped the flow, not one of a cell, which the store records
        raise outcome


def conclude(store: "Store", run: "Run", selected: "Collection[Cell]") -> None:
    """Show the results, and the next command."""
    from emtta_core.pipeline.events import channel
    from emtta_core.pipeline.selection import resume_command
    from emtta_core.pipeline.state import cell_states
    from emtta_core.store.catalogue import Catalogue
    from emtta_core.store.describe import notices_of

    # 1) The results, and the notices that belong to them.
    with Catalogue(store, runs=[run.run_id]) as catalogue:
        catalogue.cache_rows()
        states = cell_states(store, run.run_id, catalogue)
        show_methods(catalogue, run.run_id)
        notices = notices_of(catalogue, run.run_id)
        cut = sum(row["truncated"] for row in catalogue.report("flags", run.run_id).records)
    for sentence in notices:
        echo(sentence)
    if cut:
        echo(
            f"hypotheses cut at the token limit (tokens_per_second of the suite's model): {cut}; "
            f"list them with: {_report(store, run, 'flags')}"
        )
    echo(f"store: {store.location}")
    # 2) What was left out of the figures.
    in_error = sum(state.in_error for state in states if state.cell in selected)
    if in_error:
        echo(f"utterances in error: {in_error}, excluded from every WER; see: {_report(store, run, 'failures')}")
    # 3) What is missing, why, and the command that finishes it.
    incomplete = [state for state in states if not state.complete]
    unfinished = [state for state in incomplete if state.cell in selected]
    if not unfinished:
        echo(f"next: {_report(store, run, 'leaderboard')}")
        return
    _echo_reasons(unfinished)
    echo(f"log: {store.backend.url(f'logs/{run.run_id}.log')}")
    cells, others = ([state.cell for state in states] for states in (unfinished, incomplete))
    echo(f"finish them with: {resume_command(run.run_id, store.location, cells, others)}")
    raise typer.Exit(TERMINATED if channel.stopped_by is signal.SIGTERM else INCOMPLETE)


def _echo_reasons(unfinished: "Sequence[CellState]") -> None:
    reasons: dict[str, list[str]] = {}
    for state in unfinished:
        if state.error is not None:
            reasons.setdefault(state.error, []).append(state.cell.name)
    named = dict(list(reasons.items())[:MAX_LISTED_REASONS])
    for reason, names in named.items():
        more = f" and {len(names) - MAX_LISTED_CELLS} more" if len(names) > MAX_LISTED_CELLS else ""
        echo(f"incomplete: {', '.join(names[:MAX_LISTED_CELLS])}{more}: {reason}")
    others = len(unfinished) - sum(map(len, named.values()))
    if others:
        echo(f"incomplete: {others} {'more ' if named else ''}cells")


def _report(store: "Store", run: "Run", name: str) -> str:
    return store.command("report", name, "--run", run.run_id)
