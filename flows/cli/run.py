"""`emtta run`: evaluate a suite, or finish what is missing of it."""

from typing import Annotated

import typer

from flows.cli import _log
from flows.cli._evaluation import (
    check_devices,
    check_measures_anew,
    conclude,
    execute,
    plan_suite,
    show_dry_run,
    with_streams,
)
from flows.cli._options import (
    DEFAULT_STORE,
    AllowAbsoluteOption,
    CorpusDirOption,
    DevicesOption,
    DryRunOption,
    IsolationOption,
    LimitOption,
    RayAddressOption,
    RunnerOption,
    SnrConventionOption,
    StoreOption,
    SuiteArgument,
    use_corpora,
)
from flows.cli._output import say
from flows.runner import check_runner


def run(
    suite: SuiteArgument,
    run_id: Annotated[
        str | None, typer.Option("--run-id", metavar="ID", help="Default: the suite's name and its plan's digest.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="domain=…|method=…|group=…|seed=…", help="These cells; repeatable."),
    ] = None,
    limit: LimitOption = None,
    snr_convention: SnrConventionOption = None,
    allow_absolute: AllowAbsoluteOption = False,
    devices: DevicesOption = None,
    isolation: IsolationOption = None,
    runner: RunnerOption = "threads",
    ray_address: RayAddressOption = None,
    corpus_dir: CorpusDirOption = None,
    no_reuse: Annotated[
        bool, typer.Option("--no-reuse", help="Take no results from other runs of the store: measure everything anew.")
    ] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Evaluate a suite: its domains times its methods, each as often as it has seeds where it draws random numbers.

    The same command again finishes what is missing, and does nothing where nothing is. Results that other runs of the
    store have of the same work (model, method, options, audio) are reused, unless --no-reuse is given.
    Exit codes: 0 all is complete, 1 an error, 2 a usage error, 3 something is missing.

    Examples:
        emtta run smoke

        emtta run demo --only group=noise --only method=source --only method=em-tok-b

        emtta run suites/mine.toml --limit 20 --dry-run
    """
    check_runner(runner, ray_address, devices, isolation)
    _log.settle_environment()
    use_corpora(corpus_dir)
    from emtta_core.names import check_name
    from emtta_core.pipeline.rescoring import settle_figures
    from emtta_core.pipeline.run import record
    from emtta_core.pipeline.selection import select
    from emtta_core.store import Store
    from emtta_core.store.backend import open_backend
    from emtta_core.suite import load_suite

    loaded = load_suite(suite, limit=limit, snr_convention=snr_convention, allow_absolute=allow_absolute)
    if no_reuse:
        loaded = loaded.measured_anew()
    if run_id is not None:
        check_name("run id", run_id)
    check_devices(loaded, devices, runner)
    if dry_run:
        open_backend(store).check_writable()
    opened = Store.find(store) if dry_run else Store.open(store, create=True)
    planned, progress = plan_suite(loaded, run_id, opened, dry_run=dry_run)
    wanted = with_streams(planned, select(planned.cells, only or []))
    if no_reuse and progress.recorded and opened is not None:
        check_measures_anew(planned, opened)
    if dry_run or opened is None:
        todo = [state for state in progress.states if state.cell in wanted and not state.complete]
        show_dry_run(opened, planned, progress, wanted, todo)
        return
    record(planned, opened)
    if progress.recorded and all(state.complete for state in progress.now if state.cell in wanted):
        say(f"run {planned.run_id}: nothing to do, all of its {len(wanted)} cells are complete")
        settle_figures(opened, planned.run_id)
    else:
        execute(
            opened,
            planned.run_id,
            wanted,
            runtime=planned.suite.runtime,
            model=planned.suite.model,
            devices=devices,
            isolation=isolation,
            runner=runner,
            ray_address=ray_address,
        )
    conclude(opened, planned, wanted)
