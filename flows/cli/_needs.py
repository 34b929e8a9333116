"""The table of what a suite needs, which `emtta prepare` and `emtta doctor` show."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from emtta_core.sanitize import escaped
from flows.cli._output import say, tabulate

if TYPE_CHECKING:
    from emtta_core.corpora.base import Archive, Availability
    from emtta_core.pipeline.inventory import Need

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
