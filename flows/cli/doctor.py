"""`emtta doctor`: whether this machine can do the work, and has what a suite needs."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from emtta_core.escapes import escaped
from flows.cli import logs
from flows.cli.options import DEFAULT_STORE, CorpusDirOption, SnrConventionOption, StoreOption, use_corpora
from flows.cli.output import COMPLETE, ERROR, tabulate

if TYPE_CHECKING:
    from emtta_core.audio.mix import SnrConvention


def doctor(
    suite: Annotated[
        str | None, typer.Argument(help="A suite whose corpora, noise and model are looked for.", show_default=False)
    ] = None,
    snr_convention: SnrConventionOption = None,
    store: StoreOption = DEFAULT_STORE,
    corpus_dir: CorpusDirOption = None,
) -> None:
    """Look at versions, devices, speech synthesis, the model, the store, and Prefect's server.

    Of a suite that is named, it shows too what is there, what is to be fetched and how large that is, what is missing,
    and where it is to be had. The exit code is 1 where something is missing.

    Examples:
        emtta doctor

        emtta doctor --store /data/emtta-store

        emtta doctor suites/mine.toml --corpus-dir /data
    """
    logs.settle_environment()
    use_corpora(corpus_dir)
    from emtta_core.errors import UsageError
    from flows.cli.checks import checks

    if suite is None and snr_convention is not None:
        raise UsageError("--snr-convention is how a suite's ratios are understood; name the suite")

    table = Table("", "what", "found", box=None)
    well = True
    for check in checks(store):
        mark = Text("ok", style="green") if check.ok else Text("no", style="bold red")
        table.add_row(mark, check.what, Text(escaped(check.found)))
        well = well and check.ok
    tabulate(table)
    if suite is not None:
        well = _has_all(suite, snr_convention, store) and well
    raise typer.Exit(COMPLETE if well else ERROR)


def _has_all(suite: str, snr_convention: "SnrConvention | None", store: str) -> bool:
    """Show what a suite needs, and return whether none of it is missing."""
    from emtta_core.pipeline.inventory import inventory
    from emtta_core.store import Store
    from emtta_core.suite import load_suite
    from flows.cli.needs import show_needs

    needs = inventory(load_suite(suite, snr_convention=snr_convention), Store.find(store))
    show_needs(needs)
    return all(need.standing.state != "missing" for need in needs)
