"""`emtta doctor`: check that this machine can run emtta, and has what a suite needs."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from emtta_core.errors import EmttaError
from emtta_core.sanitize import escaped
from flows.cli import _log
from flows.cli._options import (
    DEFAULT_STORE,
    AllowAbsoluteOption,
    CorpusDirOption,
    FormOption,
    SnrConventionOption,
    StoreOption,
    use_corpora,
)
from flows.cli._output import COMPLETE, ERROR, put_json, tabulate
from flows.cli.run import show_needs

if TYPE_CHECKING:
    from emtta_core.audio.mix import SnrConvention
    from emtta_core.pipeline.inventory import Need

FREE_BYTES = 500_000_000
"""Disk space that a run of the demo may need, including Prefect's records."""


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    what: str
    ok: bool
    found: str


def _checks(store: str) -> Iterator[Check]:
    for what, look in (
        ("versions", _versions),
        ("devices", _devices),
        ("espeak-ng", _espeak),
        ("demo model", _model),
        ("store", lambda: _store(store)),
        ("disk", lambda: _disk(store)),
        ("prefect", _prefect),
    ):
        try:
            yield Check(what, True, look())
        except (EmttaError, OSError) as error:
            yield Check(what, False, str(error))


def _versions() -> str:
    from emtta_core.pipeline.run import versions

    return ", ".join(f"{name} {release}" for name, release in versions().items())


def _devices() -> str:
    import torch

    from emtta_core.cores import cores

    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join([f"cpu with {cores()} cores", *(f"cuda:{index} {name}" for index, name in enumerate(cards))])


def _espeak() -> str:
    from emtta_core.audio.waveform import SAMPLE_RATE
    from emtta_core.corpora.espeak import INSTALL, is_installed
    from emtta_core.corpora.synthetic import voices_for_noise

    seconds = len(voices_for_noise(1, 0)[0]) / SAMPLE_RATE
    if is_installed():
        return f"spoke {seconds:.1f} s"
    return f"not installed: smoke, demo and robustness include their speech; for other sentences: {INSTALL}"


def _model() -> str:
    from emtta_core.model import load_model

    model = load_model("demo")
    return f"{model.size:,} parameters on {model.device}, digest {model.digest}"


def _store(location: str) -> str:
    from emtta_core.store.backend import open_backend

    return open_backend(location).check_writable()


def _disk(store: str) -> str:
    # The free space where the store is or would be; if it is not a folder, in the current one.
    path = Path(store).absolute()
    folder = next(folder for folder in [path, *path.parents] if folder.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free at {folder}"
    if free < FREE_BYTES:
        raise EmttaError(found)
    return found


def _prefect() -> str:
    from prefect.settings import PREFECT_API_URL

    from flows.prefect_server import reach, writable_home

    url = PREFECT_API_URL.value()
    if not url:
        return f"no server configured: a temporary one is used, with its records in {writable_home()}"
    reach()
    return f"the server {url} answers"


def doctor(
    suite: Annotated[
        str | None, typer.Argument(help="A suite whose corpora, noise and model to look for.", show_default=False)
    ] = None,
    snr_convention: SnrConventionOption = None,
    allow_absolute: AllowAbsoluteOption = False,
    store: StoreOption = DEFAULT_STORE,
    corpus_dir: CorpusDirOption = None,
    form: FormOption = "table",
) -> None:
    """Check versions, devices, speech synthesis, the model, the store, and Prefect's server.

    For a suite, it also shows what is available, what will be fetched and how large that is, what is missing, and where
    to get it. Methods with plug-ins are tried on the demo model: they must not mix utterances, and must be
    deterministic and finite. The exit code is 1 if something is missing or wrong.

    Examples:
        emtta doctor

        emtta doctor --store /data/emtta-store --format json

        emtta doctor suites/mine.toml --corpus-dir /data
    """
    _log.configure_environment()
    use_corpora(corpus_dir)
    from emtta_core.errors import UsageError

    if suite is None and snr_convention is not None:
        raise UsageError("--snr-convention applies to the ratios of a suite; name the suite")
    if suite is None and allow_absolute:
        raise UsageError("--allow-absolute applies to the corpora of a suite; name the suite")
    checks = list(_checks(store))
    if suite is not None:
        checks += [*_path_of(suite), *_scorers_of(suite), *_plugins_of(suite)]
    if form == "table":
        _show(checks)
    needs = [] if suite is None else _needs_of(suite, snr_convention, allow_absolute, store)
    if form == "json":
        put_json({"checks": [asdict(check) for check in checks], "needs": [need.as_dict() for need in needs]})
    elif needs:
        show_needs(needs)
    well = all(check.ok for check in checks) and not any(need.is_missing for need in needs)
    raise typer.Exit(COMPLETE if well else ERROR)


PATHS = {
    None: "fast: utterances side by side",
    "encoder-decoder": "generic: {cost}",
    "decoder": "generic, a decoder with audio input: {cost}",
    "ctc": "CTC: source, greedy-em and suta on frames, one utterance at a time",
}
"""A description of the path that a model takes, by its layout."""

COST = "transformers' own code, one utterance at a time: about four times the fast path's time (docs/models.md)"


def _path_of(suite: str) -> Iterator[Check]:
    from emtta_core.pipeline.models import check_path, path_of_choice
    from emtta_core.suite import load_suite

    loaded = load_suite(suite)
    try:
        found = path_of_choice(loaded.model)
        check_path(loaded)
    except EmttaError as error:
        yield Check("model path", False, str(error))
        return
    if found is not None:
        kind, layout = found
        yield Check("model path", True, f"{kind}: {PATHS[layout].format(cost=COST)}")


def _scorers_of(suite: str) -> Iterator[Check]:
    from emtta_core.errors import UsageError
    from emtta_core.scoring import scorer
    from emtta_core.suite import load_suite

    for name in load_suite(suite).scorers:
        try:
            yield Check(f"scorer {name}", True, scorer(name).normalizer("en").name)
        except UsageError as error:
            yield Check(f"scorer {name}", False, str(error))


def _plugins_of(suite: str) -> Iterator[Check]:
    from emtta_core.suite import load_suite

    methods = [method for choice in load_suite(suite).methods if (method := choice.method()).plugins]
    if not methods:
        return
    from emtta_core.adaptation.plugin_check import check_method
    from emtta_core.model import load_model

    model = load_model("demo", device="cpu", precision="float64")
    for method in methods:
        faults = check_method(model, method)
        well = "utterances side by side as alone, deterministic, finite"
        yield Check(f"method {method.name}", not faults, "; ".join(faults) or well)


def _show(checks: Sequence[Check]) -> None:
    table = Table("", "what", "found", box=None)
    for check in checks:
        mark = Text("ok", style="green") if check.ok else Text("no", style="bold red")
        table.add_row(mark, check.what, Text(escaped(check.found)))
    tabulate(table)


def _needs_of(suite: str, snr_convention: "SnrConvention | None", allow_absolute: bool, store: str) -> "list[Need]":
    from emtta_core.pipeline.inventory import inventory
    from emtta_core.store import Store
    from emtta_core.suite import load_suite

    loaded = load_suite(suite, snr_convention=snr_convention, allow_absolute=allow_absolute)
    return inventory(loaded, Store.find(store))
