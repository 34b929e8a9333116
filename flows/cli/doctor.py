"""`emtta doctor`: whether this machine can do the work, and has what a suite needs."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from emtta_core.errors import EmttaError
from emtta_core.sanitize import escaped
from flows.cli import _log
from flows.cli._options import DEFAULT_STORE, CorpusDirOption, SnrConventionOption, StoreOption, use_corpora
from flows.cli._output import COMPLETE, ERROR, tabulate

if TYPE_CHECKING:
    from emtta_core.audio.mix import SnrConvention

FREE_BYTES = 500_000_000
"""Room on the disk that a run of the demo may want, with Prefect's records."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str


def checks(store: str) -> Iterator[Check]:
    """Yield each check, made when it is asked for."""
    yield Check("versions", True, _versions())
    yield Check("devices", True, _devices())
    yield _tried("espeak-ng", _espeak)
    yield _tried("demo model", _model)
    yield _tried("store", lambda: _store(store))
    yield _disk(store)
    yield _tried("prefect", _prefect)


def _tried(what: str, look: Callable[[], str]) -> Check:
    """Return the check of something that raises where it will not do."""
    try:
        return Check(what, True, look())
    except (EmttaError, OSError) as error:
        return Check(what, False, str(error))


def _versions() -> str:
    """Return the releases that matter."""
    from emtta_core.pipeline.run import versions

    return ", ".join(f"{name} {release}" for name, release in versions().items())


def _devices() -> str:
    """Return what torch can compute on."""
    import torch

    from emtta_core.cores import cores

    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join([f"cpu with {cores()} cores", *(f"cuda:{index} {name}" for index, name in enumerate(cards))])


def _espeak() -> str:
    """Speak a word, where espeak-ng is installed."""
    from emtta_core.audio.waveform import SAMPLE_RATE
    from emtta_core.corpora.espeak import INSTALL, is_installed
    from emtta_core.corpora.synthetic import voices_for_noise

    seconds = len(voices_for_noise(1, 0)[0]) / SAMPLE_RATE
    if is_installed():
        return f"spoke {seconds:.1f} s"
    return f"not installed: smoke, demo and robustness have their speech; for other sentences: {INSTALL}"


def _model() -> str:
    """Load the demo model."""
    from emtta_core.model import load_model

    model = load_model("demo")
    return f"{model.size:,} parameters on {model.device}, digest {model.digest}"


def _store(location: str) -> str:
    """Look whether the store can be written, or could be made."""
    from emtta_core.store.backend import open_place

    return open_place(location).try_out()


def _disk(store: str) -> Check:
    """Look how much room there is where the store is, or would be; where it is no folder, in the current one."""
    path = Path(store).absolute()
    place = next(folder for folder in [path, *path.parents] if folder.exists())
    free = shutil.disk_usage(place).free
    return Check("disk", free >= FREE_BYTES, f"{free / 1e9:.1f} GB free at {place}")


def _prefect() -> str:
    """Look which Prefect server flows will use, and whether one that is configured answers."""
    from prefect.settings import PREFECT_API_URL

    from flows.prefect_server import reach, writable_home

    url = PREFECT_API_URL.value()
    if not url:
        return f"no server configured: a temporary one serves, with its records in {writable_home()}"
    reach()
    return f"the server {url} answers"


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
    _log.settle_environment()
    use_corpora(corpus_dir)
    from emtta_core.errors import UsageError

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
    from flows.cli._needs import show_needs

    needs = inventory(load_suite(suite, snr_convention=snr_convention), Store.find(store))
    show_needs(needs)
    return all(need.standing.state != "missing" for need in needs)
