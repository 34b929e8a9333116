"""`emtta rerun`: finish a run, retry what failed, or redo all of it; `emtta score`: rescore it."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emtta_core.names import counted
from flows.cli import _log
from flows.cli._evaluation import conclude, execute, show_dry_run, show_todo, with_streams
from flows.cli._options import (
    DEFAULT_STORE,
    CorpusDirOption,
    DevicesOption,
    DryRunOption,
    IsolationOption,
    RayAddressOption,
    RunArgument,
    RunnerOption,
    StoreOption,
    use_corpora,
)
from flows.cli._output import echo
from flows.runner import check_runner

if TYPE_CHECKING:
    from emtta_core.pipeline.plan import Cell
    from emtta_core.pipeline.reuse import Expected
    from emtta_core.pipeline.run import Run
    from emtta_core.pipeline.selection import Redo
    from emtta_core.store import Store


def rerun(
    run: RunArgument,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only cells that failed, and utterances in error, which are retried.")
    ] = False,
    domain: Annotated[list[str] | None, typer.Option("--domain", help="Only this domain; repeatable.")] = None,
    method: Annotated[list[str] | None, typer.Option("--method", help="Only this method; repeatable.")] = None,
    group: Annotated[list[str] | None, typer.Option("--group", help="Only this group; repeatable.")] = None,
    seed: Annotated[
        list[str] | None,
        typer.Option("--seed", help="Only this seed (none: methods that draw no random numbers); repeatable."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Redo everything, including complete cells.")] = False,
    store: StoreOption = DEFAULT_STORE,
    devices: DevicesOption = None,
    isolation: IsolationOption = None,
    runner: RunnerOption = "threads",
    ray_address: RayAddressOption = None,
    corpus_dir: CorpusDirOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Finish an incomplete run, as the next attempt under the same id; finished work is reused.

    The run is executed as it was recorded; no suite file is needed. Its corpora must be where they were, unless
    their audio is prepared. A domain in which something failed is planned again if its audio or transcripts have
    changed since; identical results are reused. The run is refused if this release adapts or scores differently from
    the one that planned it. Exit codes are those of emtta run.

    Examples:
        emtta rerun demo-1a2b3c4d --dry-run

        emtta rerun demo-1a2b3c4d --failed

        emtta rerun demo-1a2b3c4d --domain BA --method em-tok-b --force
    """
    check_runner(runner, ray_address, devices, isolation)
    _log.configure_environment()
    use_corpora(corpus_dir)
    from emtta_core.errors import UsageError
    from emtta_core.pipeline.rescoring import finalize_figures
    from emtta_core.pipeline.run import check_unchanged
    from emtta_core.pipeline.selection import expand_to_streams
    from emtta_core.pipeline.state import failed_before
    from emtta_core.store import Store

    if failed and force:
        raise UsageError("--failed redoes what failed, --force redoes everything; give only one of them")
    Store.open(store).run(run)  # does not create a store
    opened = Store.open(store, create=not dry_run)
    redo: Redo = "all" if force else "errors" if failed else "missing"
    chosen = {"domain": domain or [], "method": method or [], "group": group or [], "seed": seed or []}
    found, selected, progress = _progress(opened, run, chosen, redo)
    if not dry_run and _replan(opened, found, selected, progress):
        found, selected, progress = _progress(opened, run, chosen, redo)
    todo = [state for state in progress.now if state.cell in selected and state.open_to(redo)]
    if failed:
        todo = [state for state in todo if state.has_failed or failed_before(opened, run, state.cell)]
    cells = expand_to_streams(found.suite, found.cells, {state.cell for state in todo})
    if cells:
        check_unchanged(opened, found)
    unfinished = [state for state in progress.states if state.cell in cells and state.open_to(redo)]
    if dry_run:
        show_dry_run(opened, found, progress, selected, unfinished, redo)
        return
    show_todo(run, [state for state in progress.states if state.cell in selected], unfinished, redo)
    if cells:
        where = {"devices": devices, "isolation": isolation, "runner": runner, "ray_address": ray_address}
        execute(opened, run, cells, redo=redo, **where)
    else:
        echo(f"run {run}: nothing to do")
        finalize_figures(opened, run)
    conclude(opened, found, selected)


def _progress(
    store: "Store", run_id: str, chosen: "Mapping[str, Sequence[str]]", redo: "Redo"
) -> "tuple[Run, Collection[Cell], Expected]":
    from emtta_core.pipeline.reuse import Expected, expected
    from emtta_core.pipeline.run import load_run
    from emtta_core.pipeline.selection import select_by_key
    from emtta_core.pipeline.state import cell_states

    found = load_run(store, run_id)
    selected = with_streams(found, select_by_key(found.cells, chosen))
    if redo == "all":
        return found, selected, Expected(cell_states(store, run_id), recorded=True)
    return found, selected, expected(found, store)


def _replan(store: "Store", run: "Run", selected: "Collection[Cell]", progress: "Expected") -> bool:
    # Domains that had no audio, or in which a selected cell failed, are planned again to see whether they have changed.
    from emtta_core.pipeline.run import check_unchanged, replace_plan, replan

    missing = {cell.domain for cell in run.cells if not cell.available}
    failed = {state.cell.domain for state in progress.now if state.cell in selected and state.has_failed}
    changed = replan(run, missing | failed)
    if changed.cells == run.cells:
        return False
    check_unchanged(store, run)
    replace_plan(changed, store)
    for name in dict.fromkeys(new.domain for new, old in zip(changed.cells, run.cells, strict=True) if new != old):
        echo(f"domain {name} is planned again with its current audio and transcripts")
    return True


def score(
    run: RunArgument,
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            "--scorer",
            metavar="NAME",
            help="whisper, basic, marks, jiwer, none, or my_package.mine:normalize; append +numbers or +compounds. "
            "Repeatable. Default: the suite's, and those used before.",
            show_default=False,
        ),
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            "--references", metavar="FILE", dir_okay=False, help="Corrected transcripts: id, text (.csv, .tsv, .jsonl)."
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Utterances that the references lack keep their transcripts.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=256, help="The most processes. Default: all cores.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Rescore the stored hypotheses of a run, including those of each step. Nothing is adapted again.

    Scores of several scorers are kept side by side; reports show one with --scorer. Scores that would come out the same
    are kept, so the command resumes where it was stopped, and repairs a run that two releases have scored.

    Examples:
        emtta score demo-1a2b3c4d --scorer jiwer --scorer whisper+compounds

        emtta score demo-1a2b3c4d --references corrected.csv --partial
    """
    from emtta_core.cores import cores
    from emtta_core.errors import UsageError
    from emtta_core.pipeline.references import read_references
    from emtta_core.pipeline.rescoring import rescore
    from emtta_core.store import Store

    if partial and references is None:
        raise UsageError("--partial belongs to --references FILE; give that too, or leave it out")
    opened = Store.open(store)
    opened.run(run)
    corrected = read_references(references, opened, run, partial=partial) if references else None
    found = rescore(opened, run, scorer or (), references=corrected, workers=workers or cores())
    for name, count in found.scored.items():
        echo(f"{name}: {counted(count, 'utterance')} scored, {found.kept[name]} already scored in the same way")
    for name in found.scored:
        echo(f"see: {opened.command('report', 'leaderboard', '--run', run, '--scorer', name)}")
