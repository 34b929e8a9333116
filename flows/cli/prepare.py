"""`emtta prepare`: make the audio of a suite's domains, before anything is adapted; and the table of what they need."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import typer
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from emtta_core.sanitize import escaped
from flows.cli import _log
from flows.cli._options import (
    DEFAULT_STORE,
    AllowAbsoluteOption,
    CorpusDirOption,
    DomainsOption,
    DryRunOption,
    FormOption,
    LimitOption,
    SnrConventionOption,
    StoreOption,
    SuiteArgument,
    use_corpora,
)
from flows.cli._output import COMPLETE, INCOMPLETE, put_json, say, tabulate

if TYPE_CHECKING:
    from emtta_core.corpora.base import Archive, Availability
    from emtta_core.errors import EmttaError
    from emtta_core.pipeline.inventory import Need
    from emtta_core.pipeline.preparation import Prepared
    from emtta_core.suite import ModelChoice


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
    """Fetch the corpora and the model of a suite, and prepare the audio of its domains; no GPU is used.

    Afterwards the suite runs without a network. First it shows what is there, what is to be fetched and how large it
    is, and what is missing.
    Exit codes: 0 all is prepared, 1 an error, 2 a usage error, 3 something is missing, or all of a domain's
    utterances are in error.

    Examples:
        emtta prepare demo --dry-run --format json

        emtta prepare suites/mine.toml --only group=noise --corpus-dir /data
    """
    _log.settle_environment()
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
    refuse_full_disk(size, "what is fetched for the suite", EmttaError)
    if size:
        say(f"fetching up to {size / 1e6:,.0f} MB from the hub, and preparing")
    failures = prepare_all(chosen, opened, partial(_say_prepared, {}))
    fetched = _fetch(chosen.model)
    say(f"store: {opened.location}")
    raise typer.Exit(INCOMPLETE if failures or not fetched else COMPLETE)


def _fetch(model: "ModelChoice") -> bool:
    from emtta_core.errors import EmttaError
    from emtta_core.pipeline.models import digest_of

    try:
        say(f"model {model.name}: digest {digest_of(model)}")
    except EmttaError as error:
        say(f"model {model.name}: {error}")
        return False
    return True


def _say_prepared(reasons: dict[str, str], domain: str, found: "Prepared | EmttaError") -> None:
    # `reasons` keeps which domain was the first of each.
    if isinstance(found, Exception):
        first = reasons.setdefault(str(found), domain)
        say(f"{domain}: not prepared: {found}" if first == domain else f"{domain}: not prepared, as {first}")
        return
    made = "there already" if found.reused else f"prepared in {found.seconds:.1f} s"
    left_out = f"; {found.corpus.left_out} longer than max_seconds were left out" if found.corpus.left_out else ""
    in_error = f"{found.corpus.errors} in error (first: {found.corpus.first_error}), " if found.corpus.errors else ""
    count = found.corpus.utterances
    say(f"{domain}: {count} utterance{'' if count == 1 else 's'}, {in_error}{made}{left_out}")


MARKS = {"here": ("ok", "green"), "to fetch": ("--", "yellow"), "missing": ("no", "bold red")}
"""The mark at the beginning of a line, and its style."""


def show_needs(needs: "Sequence[Need]") -> None:
    """Show what a suite needs, and say of what is missing what to do."""
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
            say(f"{need.availability.what}: {note}")
    for error, others in _reasons(needs).items():
        say(f"missing: {error}")
        if others:
            say(f"missing, for the same reason: {', '.join(others)}")
    for archive, names in _archives(needs).items():
        if archive.size is not None:
            by_hand = f"about {decimal(archive.size)} to get by hand ({archive.holds}), according to {archive.source}"
            say(f"{', '.join(names)}: {by_hand}")


def _archives(needs: "Sequence[Need]") -> "dict[Archive, list[str]]":
    # Each archive that is to be got by hand, with the things that it holds.
    found: dict[Archive, list[str]] = {}
    for availability in (need.availability for need in needs):
        if availability.archive is not None:
            found.setdefault(availability.archive, []).append(availability.what)
    return found


def _reasons(needs: "Sequence[Need]") -> dict[str, list[str]]:
    # Each reason for which something is missing, as the first thing has it, with the others that have it.
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
    # How many utterances there are, how many of them are left out, and how long they are, where it is known.
    if need.utterances is None:
        return ""
    left_out = f" ({need.left_out:,} too long)" if need.left_out else ""
    hours = f", {need.seconds / 3600:.2f} h" if need.seconds is not None else ""
    return f"{need.utterances:,}{left_out}{hours}"


def _state(need: "Need") -> str:
    # Whether it is there, how much is to be fetched, and how many domains are prepared.
    if need.streamed:
        return "to read over the network" + _prepared(need)
    return f"{need.availability.state}{_size(need.availability)}{_prepared(need)}"


def _size(availability: "Availability") -> str:
    # How much is to be fetched, or to be got by hand, where that is something.
    if availability.size is not None:
        return f", {availability.size / 1e6:,.0f} MB"
    if availability.archive is None:
        return ""
    return ", size not known" if availability.archive.size is None else f", about {decimal(availability.archive.size)}"


def _prepared(need: "Need") -> str:
    return f", {need.prepared} of {len(need.domains)} prepared" if need.prepared else ""
