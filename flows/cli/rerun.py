"""`emtta rerun`: do again what is missing of a run, what failed, or all of it."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli import _log
from flows.cli._evaluation import carry_out, conclude, foretell, foretell_reuse, foretell_time
from flows.cli._options import (
    DEFAULT_STORE,
    CorpusDirOption,
    DevicesOption,
    DryRunOption,
    IsolationOption,
    RayAddressOption,
    Runner,
    RunnerOption,
    StoreOption,
    use_corpora,
)
from flows.cli._output import say
from flows.runner import check_runner

if TYPE_CHECKING:
    from emtta_core.pipeline.run import Run
    from emtta_core.pipeline.selection import Redo


def rerun(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id; see emtta list.")],
    failed: Annotated[
        bool, typer.Option("--failed", help="Only cells that failed, and utterances in error, which are tried again.")
    ] = False,
    domain: Annotated[list[str] | None, typer.Option("--domain", help="Only this domain; repeatable.")] = None,
    method: Annotated[list[str] | None, typer.Option("--method", help="Only this method; repeatable.")] = None,
    group: Annotated[list[str] | None, typer.Option("--group", help="Only this group; repeatable.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Redo everything, including complete cells.")] = False,
    store: StoreOption = DEFAULT_STORE,
    devices: DevicesOption = None,
    isolation: IsolationOption = None,
    runner: RunnerOption = Runner.THREADS,
    ray_address: RayAddressOption = None,
    corpus_dir: CorpusDirOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Finish an incomplete run, as the next attempt under the same id; finished work is reused.

    The run is carried out as it was recorded; no suite file is needed. Its corpora must be where they were, unless
    their audio is prepared. A domain in which something failed is planned anew where its audio or transcripts have
    changed since; what is the same is reused. Where this release adapts or scores differently from the one that
    planned the run, it is refused. Exit codes are those of emtta run.

    Examples:
        emtta rerun demo-1a2b3c4d --dry-run

        emtta rerun demo-1a2b3c4d --failed

        emtta rerun demo-1a2b3c4d --domain BA --method em-tok-b --force
    """
    check_runner(runner.value, ray_address, devices, isolation)
    _log.settle_environment()
    use_corpora(corpus_dir)
    from emtta_core.errors import UsageError
    from emtta_core.pipeline.amend import amend, failed_before
    from emtta_core.pipeline.reuse import Expected, expected
    from emtta_core.pipeline.run import check_unchanged, load_run
    from emtta_core.pipeline.run_statistics import settle_statistics
    from emtta_core.pipeline.selection import select
    from emtta_core.pipeline.state import cell_states
    from emtta_core.store import Store

    if failed and force:
        raise UsageError("--failed does what failed, --force does everything; give one of them")
    Store.open(store).run(run)  # makes no store where there is none
    opened = Store.open(store, create=not dry_run)
    only = [f"{key}={value}" for key, values in _keys(domain, method, group) for value in values]

    redo: Redo = "all" if force else "errors" if failed else "missing"

    def progress() -> "tuple[Run, Expected]":
        found = load_run(opened, run)
        return found, Expected(cell_states(opened, run), recorded=True) if force else expected(found, opened)

    found, states = progress()
    wanted = set(select(found.cells, only))
    with_failures = {state.cell.domain for state in states.now if state.cell in wanted and state.has_failed}
    renewed = () if dry_run else amend(opened, run, with_failures)
    for name in renewed:
        say(f"domain {name} is planned anew, with the audio and transcripts that are there now")
    if renewed:
        found, states = progress()
        wanted = set(select(found.cells, only))
    todo = [state.cell for state in states.now if state.cell in wanted and state.open_to(redo)]
    if failed:
        has_failed = {state.cell for state in states.now if state.has_failed}
        todo = [cell for cell in todo if cell in has_failed or failed_before(opened, run, cell)]
    if todo:
        check_unchanged(opened, found)
    would_be = [state for state in states.states if state.cell in wanted]
    left = [state for state in would_be if state.cell in todo and state.open_to(redo)]
    foretell(run, would_be, left, redo)
    if dry_run:
        foretell_reuse(would_be, states)
        foretell_time(opened, found, left, redo)
        return
    if todo:
        cells = [f"name={cell.name}" for cell in todo]
        carry_out(
            opened,
            run,
            suite=None,
            only=cells,
            devices=devices,
            isolation=isolation,
            redo=redo,
            runner=runner,
            ray_address=ray_address,
        )
    else:
        say(f"run {run}: nothing to do")
        settle_statistics(opened, run)
    conclude(opened, found, wanted)


def _keys(domain: list[str] | None, method: list[str] | None, group: list[str] | None) -> list[tuple[str, list[str]]]:
    """Return what was asked for, by key."""
    return [("domain", domain or []), ("method", method or []), ("group", group or [])]
