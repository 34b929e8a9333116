"""`emtta run`: evaluate a suite, or finish an earlier run of it; `emtta prepare`: only fetch and prepare its audio."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from emtta_core.names import counted
from emtta_core.sanitize import escaped
from flows.cli import _log
from flows.cli._evaluation import (
    check_devices,
    check_no_reuse,
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
    DomainsOption,
    DryRunOption,
    FormOption,
    IsolationOption,
    LimitOption,
    RayAddressOption,
    RunnerOption,
    SnrConventionOption,
    StoreOption,
    SuiteArgument,
    use_corpora,
)
from flows.cli._output import COMPLETE, INCOMPLETE, echo, put_json, tabulate
from flows.runner import check_runner

if TYPE_CHECKING:
    from emtta_core.corpora.base import Archive, Availability
    from emtta_core.errors import EmttaError
    from emtta_core.pipeline.inventory import Need
    from emtta_core.pipeline.preparation import Prepared
    from emtta_core.suite import ModelChoice


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
        bool, typer.Option("--no-reuse", help="Reuse no results of other runs in the store: measure everything.")
    ] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Evaluate a suite: each domain with each method, and each seed if the method draws random numbers.

    Repeating the command finishes what is missing, if anything. Results of the same work (model, method, options,
    audio) in other runs of the store are reused, unless --no-reuse is given.
    Exit codes: 0 everything is complete, 1 an error, 2 a usage error, 3 something is missing.

    Examples:
        emtta run smoke

        emtta run demo --only group=noise --only method=source --only method=em-tok-b

        emtta run suites/mine.toml --limit 20 --dry-run
    """
    check_runner(runner, ray_address, devices, isolation)
    _log.configure_environment()
    use_corpora(corpus_dir)
    from emtta_core.names import check_name
    from emtta_core.pipeline.rescoring import finalize_figures
    from emtta_core.pipeline.run import record
    from emtta_core.pipeline.selection import select
    from emtta_core.store import Store
    from emtta_core.store.backend import open_backend
    from emtta_core.suite import load_suite

    loaded = load_suite(suite, limit=limit, snr_convention=snr_convention, allow_absolute=allow_absolute)
    if no_reuse:
        loaded = loaded.without_reuse()
    if run_id is not None:
        check_name("run id", run_id)
    check_devices(loaded, devices, runner)
    if dry_run:
        open_backend(store).check_writable()
    opened = Store.find(store) if dry_run else Store.open(store, create=True)
    planned, progress = plan_suite(loaded, run_id, opened, dry_run=dry_run)
    selected = with_streams(planned, select(planned.cells, only or []))
    if no_reuse and progress.recorded and opened is not None:
        check_no_reuse(planned, opened)
    if dry_run or opened is None:
        todo = [state for state in progress.states if state.cell in selected and not state.complete]
        show_dry_run(opened, planned, progress, selected, todo)
        return
    record(planned, opened)
    if progress.recorded and all(state.complete for state in progress.now if state.cell in selected):
        echo(f"run {planned.run_id}: nothing to do, all of its {len(selected)} cells are complete")
        finalize_figures(opened, planned.run_id)
    else:
        execute(
            opened,
            planned.run_id,
            selected,
            runtime=planned.suite.runtime,
            model=planned.suite.model,
            devices=devices,
            isolation=isolation,
            runner=runner,
            ray_address=ray_address,
        )
    conclude(opened, planned, selected)


def prepare(
    suite: SuiteArgument,
    only: DomainsOption = None,
    limit: LimitOption = None,
    snr_convention: SnrConventionOption = None,
    allow_absolute: AllowAbsoluteOption = False,
    store: StoreOption = DEFAULT_STORE,
    corpus_dir: CorpusDirOption = None,
    dry_run: DryRunOption = False,
    form: FormOption = "table",
) -> None:
    """Fetch the corpora and the model of a suite, and prepare the audio of its domains; no GPU is needed.

    Afterwards the suite runs without a network. First, it shows what is available, what will be fetched and how large
    that is, and what is missing.
    Exit codes: 0 everything is prepared, 1 an error, 2 a usage error, 3 something is missing, or all of a domain's
    utterances are in error.

    Examples:
        emtta prepare demo --dry-run --format json

        emtta prepare suites/mine.toml --only group=noise --corpus-dir /data
    """
    _log.configure_environment()
    use_corpora(corpus_dir)
    from emtta_core.errors import EmttaError
    from emtta_core.hub import refuse_full_disk
    from emtta_core.pipeline.inventory import inventory, to_fetch
    from emtta_core.pipeline.preparation import prepare_all
    from emtta_core.pipeline.selection import choose_domains
    from emtta_core.store import Store
    from emtta_core.suite import load_suite

    loaded = load_suite(suite, limit=limit, snr_convention=snr_convention, allow_absolute=allow_absolute)
    chosen = loaded.model_copy(update={"domains": tuple(choose_domains(loaded, only or []))})
    opened = Store.find(store) if dry_run else Store.open(store, create=True)
    needs = inventory(chosen, opened)
    if form == "json":
        put_json([need.as_dict() for need in needs])
    else:
        show_needs(needs)
    if dry_run or opened is None:
        missing = any(need.is_missing for need in needs)
        raise typer.Exit(INCOMPLETE if missing else COMPLETE)
    size = to_fetch(needs)
    refuse_full_disk(size, "the download for the suite", EmttaError)
    if size:
        echo(f"fetching up to {size / 1e6:,.0f} MB from the hub, and preparing")
    failures = prepare_all(chosen, opened, partial(_echo_prepared, {}))
    fetched = _fetch(chosen.model)
    echo(f"store: {opened.location}")
    raise typer.Exit(INCOMPLETE if failures or not fetched else COMPLETE)


def _fetch(model: "ModelChoice") -> bool:
    from emtta_core.errors import EmttaError
    from emtta_core.pipeline.models import digest_of

    try:
        echo(f"model {model.name}: digest {digest_of(model)}")
    except EmttaError as error:
        echo(f"model {model.name}: {error}")
        return False
    return True


def _echo_prepared(reasons: dict[str, str], domain: str, found: "Prepared | EmttaError") -> None:
    # `reasons` records the first domain with each reason.
    if isinstance(found, Exception):
        first = reasons.setdefault(str(found), domain)
        echo(f"{domain}: not prepared: {found}" if first == domain else f"{domain}: not prepared, like {first}")
        return
    how = "already prepared" if found.reused else f"prepared in {found.seconds:.1f} s"
    left_out = f"; {found.corpus.left_out} longer than max_seconds were left out" if found.corpus.left_out else ""
    in_error = f"{found.corpus.errors} in error (first: {found.corpus.first_error}), " if found.corpus.errors else ""
    echo(f"{domain}: {counted(found.corpus.utterances, 'utterance')}, {in_error}{how}{left_out}")


MARKS = {"here": ("ok", "green"), "to fetch": ("--", "yellow"), "missing": ("no", "bold red")}
"""The mark at the beginning of a line, and its style."""


def show_needs(needs: "Sequence[Need]") -> None:
    """Show what a suite needs, and what to do about anything missing."""
    table = Table("", "what", "domains", "utterances", "state", "licence", box=None)
    table.add_column("where", overflow="fold")
    for need in needs:
        mark, style = MARKS[need.availability.state]
        row = (need.availability.what, _domains(need), _utterances(need), _state(need))
        cells = [Text(escaped(cell)) for cell in (*row, need.availability.licence, need.availability.where)]
        table.add_row(Text(mark, style=style), *cells)
    tabulate(table)
    for need in needs:
        for note in (*filter(None, [need.sample]), *need.notes):
            echo(f"{need.availability.what}: {note}")
    for error, others in _reasons(needs).items():
        echo(f"missing: {error}")
        if others:
            echo(f"missing, for the same reason: {', '.join(others)}")
    for archive, names in _archives(needs).items():
        if archive.size is not None:
            by_hand = f"about {decimal(archive.size)} to get by hand ({archive.holds}), according to {archive.source}"
            echo(f"{', '.join(names)}: {by_hand}")


def _archives(needs: "Sequence[Need]") -> "dict[Archive, list[str]]":
    # Each archive that must be downloaded manually, with the needs that it satisfies.
    found: dict[Archive, list[str]] = {}
    for availability in (need.availability for need in needs):
        if availability.archive is not None:
            found.setdefault(availability.archive, []).append(availability.what)
    return found


def _reasons(needs: "Sequence[Need]") -> dict[str, list[str]]:
    # Each reason why something is missing, as reported for the first, with the others that share it.
    first: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for availability in (need.availability for need in needs):
        if availability.error is None:
            continue
        reason = availability.error.removeprefix(availability.subject)
        if reason in first:
            others[first[reason]].append(availability.subject or availability.what)
        else:
            first[reason] = availability.error
            others[availability.error] = []
    return others


def _domains(need: "Need") -> str:
    return "".join(need.domains[:1]) + (f" and {len(need.domains) - 1} more" if len(need.domains) > 1 else "")


def _utterances(need: "Need") -> str:
    # The number of utterances, how many are left out, and their length, as far as known.
    if need.utterances is None:
        return ""
    left_out = f" ({need.left_out:,} too long)" if need.left_out else ""
    hours = f", {need.seconds / 3600:.2f} h" if need.seconds is not None else ""
    return f"{need.utterances:,}{left_out}{hours}"


def _state(need: "Need") -> str:
    # Whether it is available, how much will be fetched, and how many domains are prepared.
    if need.streamed:
        return "to read over the network" + _prepared(need)
    return f"{need.availability.state}{_size(need.availability)}{_prepared(need)}"


def _size(availability: "Availability") -> str:
    # How much will be fetched or must be downloaded manually, if anything.
    if availability.size is not None:
        return f", {availability.size / 1e6:,.0f} MB"
    if availability.archive is None:
        return ""
    return ", size unknown" if availability.archive.size is None else f", about {decimal(availability.archive.size)}"


def _prepared(need: "Need") -> str:
    return f", {need.prepared} of {len(need.domains)} prepared" if need.prepared else ""
