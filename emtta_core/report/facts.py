"""What the page on a run shows, read from the store as records."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from emtta_core.errors import UsageError
from emtta_core.store import COMPLETE, Catalogue, Store
from emtta_core.store.describe import notices_of
from emtta_core.suite import parse_suite

ALL = "all"
"""The group that holds every domain."""

SOURCE = "source"
"""The method that leaves the model as it is."""

HUES = 8
"""Colours that the page has for the methods of the registry, and as many others for a suite's own methods."""

MOST_FAILURES = 200
"""Failures on a page; what is beyond is counted."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A WER and how it compares with source on the same speech, with what is known of their certainty."""

    wer: float | None = None  # word error rate, %; None while it is hidden
    source_wer: float | None = None  # that of source, %
    change: float | None = None  # points of WER against source on the utterances that both have; below zero is better
    change_percent: float | None = None  # the same relative to source, %
    low: float | None = None  # lower end of wer's interval, %; None where no statistics were stored
    high: float | None = None  # upper end
    change_low: float | None = None  # lower end of the interval of the change, points
    change_high: float | None = None  # upper end
    # Of no difference from source, corrected for the number of domains where the figure is a domain's.
    p: float | None = None
    wins: int | None = None  # utterances with fewer errors than source; None where no statistics were stored
    ties: int | None = None  # with as many
    losses: int | None = None  # with more
    confidence: float | None = None  # of the intervals, as 0.95


@dataclass(frozen=True, slots=True)
class Cell:
    """A method on a domain."""

    group: str  # of the domain
    domain: str  # which
    method: str  # which
    state: str  # complete, partial, failed or missing
    planned: int  # utterances that it is to have
    done: int  # that are done, those in error included
    in_error: int  # that are in error
    words: int | None  # of the references
    figure: Figure  # its WER
    cer: float | None  # character error rate, %
    entropy_before: float | None  # mean nats per token of the unadapted model
    entropy_after: float | None  # of the adapted one
    audio_seconds: float | None  # length of the speech that is done
    seconds: float | None  # wall seconds spent on it
    why: str | None  # why there is no figure, or why the newest attempt failed


@dataclass(frozen=True, slots=True)
class Standing:
    """A method on a group of domains."""

    method: str  # which
    group: str  # which; `all` for every domain
    domains: int  # domains that the plan holds
    complete: int  # domains that are there
    planned: int  # utterances that the plan holds
    done: int  # that are done, those in error included
    in_error: int  # that are in error
    figure: Figure  # the mean of the domains' WER
    reason_hidden: str | None  # why there is no figure


@dataclass(frozen=True, slots=True)
class Step:
    """A method after so many updates: mean entropy (nats per token) and mean WER over the domains, %."""

    method: str
    step: int
    entropy: float | None
    wer: float | None
    reason_hidden: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """A run as its page shows it."""

    run_id: str  # the run
    suite: str  # name of the suite
    suite_toml: str  # the suite as it was
    created_at: datetime  # UTC
    notices: tuple[str, ...]  # the sentences that must stand beside its figures
    about: tuple[tuple[str, str], ...]  # what it was made with, as pairs of a name and a value
    state: str  # complete or incomplete
    groups: tuple[str, ...]  # in the order of the plan, `all` left out
    domains: tuple[str, ...]  # likewise
    methods: tuple[str, ...]  # in the order in which tables show them
    ranks: Mapping[str, int]  # the rank of each method of the registry
    descriptions: Mapping[str, str]  # what each domain is, where the suite can still be read
    cells: Mapping[tuple[str, str], Cell]  # by domain and method
    standings: Mapping[tuple[str, str], Standing]  # by method and group
    steps: tuple[Step, ...]  # by method and step, in order
    # Cells that are not complete and utterances in error, the first `MOST_FAILURES`.
    failures: tuple[Mapping[str, Any], ...]
    failed: int  # how many there are
    has_statistics: bool  # whether intervals are stored

    @property
    def adapting(self) -> tuple[str, ...]:
        """The methods but source."""
        return tuple(method for method in self.methods if method != SOURCE)

    @property
    def group_of(self) -> dict[str, str]:
        """The group of each domain."""
        return {cell.domain: cell.group for cell in self.cells.values()}

    @property
    def complete_cells(self) -> int:
        """Cells that are complete."""
        return sum(cell.state == COMPLETE for cell in self.cells.values())

    @property
    def done(self) -> int:
        """Utterances that are done, over all cells, those in error included."""
        return sum(cell.done for cell in self.cells.values())

    @property
    def in_error(self) -> int:
        """Utterances in error, over all cells."""
        return sum(cell.in_error for cell in self.cells.values())

    @property
    def seconds(self) -> float:
        """Wall seconds spent, over all cells."""
        return sum(cell.seconds or 0.0 for cell in self.cells.values())

    @property
    def audio_seconds(self) -> float:
        """Seconds of speech done, over all cells."""
        return sum(cell.audio_seconds or 0.0 for cell in self.cells.values())

    @property
    def hidden(self) -> tuple[Standing, ...]:
        """The standings without a figure, with their reason."""
        return tuple(standing for standing in self.standings.values() if standing.reason_hidden is not None)

    def hue(self, method: str) -> str:
        """Return the name of a method's colour, the same on every page: `source`, or `hue` and a number."""
        if method == SOURCE:
            return SOURCE
        if method in self.ranks:
            return f"hue{(self.ranks[method] - 2) % HUES}"  # source has rank 1
        return f"hue{HUES + zlib.crc32(method.encode()) % HUES}"

    def ranked(self) -> list[Standing]:
        """Return the standings over all domains that have a figure, the lowest WER first."""
        found = [self.standings[method, ALL] for method in self.methods if (method, ALL) in self.standings]
        return sorted((one for one in found if one.figure.wer is not None), key=lambda one: one.figure.wer or 0.0)


def newest_run(store: Store) -> str:
    """Return the newest run of a store; UsageError where it has none."""
    newest = next(iter(store.runs()), None)
    if newest is None:
        raise UsageError(f"the store {store.location} has no run yet; this makes one: {store.command('run', 'smoke')}")
    return newest


def read_facts(store: Store, catalogue: Catalogue, run_id: str) -> Facts:
    """Return what is known of a run.

    Args:
        store: which has it.
        catalogue: of that run.
        run_id: the run.

    Raises:
        UsageError: there is no such run.
        StoreError: its record is broken.
    """
    record = store.run(run_id)
    ranks = dict(catalogue.query("SELECT method, rank FROM methods").rows)
    statistics = _statistics(catalogue, run_id)
    cells = {
        (row["domain"], row["method"]): _cell(row, statistics.get((row["method"], row["group"], row["domain"])))
        for row in _ordered(catalogue, "cells", run_id)
    }
    standings = {
        (row["method"], row["group"]): _standing(row, statistics.get((row["method"], row["group"], None)))
        for row in _ordered(catalogue, "groups", run_id)
    }
    lacking = any(cell.state != COMPLETE or cell.in_error for cell in cells.values())
    failures = catalogue.report("failures", run_id).records if lacking else []  # spares most runs a question
    return Facts(
        run_id=run_id,
        suite=record.suite,
        suite_toml=record.suite_toml,
        created_at=record.created_at,
        notices=notices_of(catalogue, run_id),
        about=_about(record),
        state=COMPLETE if all(cell.state == COMPLETE for cell in cells.values()) else "incomplete",
        groups=tuple(dict.fromkeys(cell.group for cell in cells.values())),
        domains=tuple(dict.fromkeys(domain for domain, _ in cells)),
        methods=tuple(
            sorted({method for _, method in cells}, key=lambda name: (ranks.get(name, len(ranks) + 1), name))
        ),
        ranks=ranks,
        descriptions=_descriptions(record.suite_toml),
        cells=cells,
        standings=standings,
        steps=tuple(
            Step(row["method"], row["step"], row["entropy"], row["wer"], row["reason_hidden"])
            for row in catalogue.report("steps", run_id).records
        ),
        failures=tuple(failures[:MOST_FAILURES]),
        failed=len(failures),
        has_statistics=bool(statistics),
    )


def _ordered(catalogue: Catalogue, view: str, run_id: str) -> list[dict[str, Any]]:
    return catalogue.query(f"SELECT * FROM {view} WHERE run_id = $run ORDER BY position", {"run": run_id}).records


def _descriptions(suite_toml: str) -> dict[str, str]:
    # Each domain of a recorded suite is; nothing where the suite is of another release.
    try:
        return {domain.name: domain.description() for domain in parse_suite(suite_toml).domains}
    except UsageError:
        return {}


def _statistics(catalogue: Catalogue, run_id: str) -> dict[tuple[str, str, str | None], dict[str, Any]]:
    rows = catalogue.query("SELECT * FROM statistics WHERE run_id = $run", {"run": run_id}).records
    return {(row["method"], row["group"], row["domain"]): row for row in rows}


def _figure(row: Mapping[str, Any], found: Mapping[str, Any] | None) -> Figure:
    # The figure of a cell or group; without a WER it has no statistics either.
    known = {} if found is None or row["wer"] is None else found
    wer, source_wer = row["wer"], row["source_wer"]
    change = None if wer is None or source_wer is None or row["method"] == SOURCE else wer - source_wer
    return Figure(
        wer=wer,
        source_wer=source_wer,
        change=known.get("change", change),
        change_percent=None if change is None else known.get("change_percent", row["change_percent"]),
        low=known.get("wer_low"),
        high=known.get("wer_high"),
        change_low=known.get("change_low"),
        change_high=known.get("change_high"),
        p=known.get("p"),
        wins=known.get("wins"),
        ties=known.get("ties"),
        losses=known.get("losses"),
        confidence=known.get("confidence"),
    )


def _cell(row: Mapping[str, Any], found: Mapping[str, Any] | None) -> Cell:
    same = ("group", "domain", "method", "state", "planned", "done", "in_error", "words", "cer")
    times = ("entropy_before", "entropy_after", "audio_seconds", "seconds")
    return Cell(
        **{name: row[name] for name in (*same, *times)},
        figure=_figure(row, found),
        why=row["reason_hidden"] or row["error"],
    )


def _standing(row: Mapping[str, Any], found: Mapping[str, Any] | None) -> Standing:
    same = ("method", "group", "domains", "complete", "planned", "done", "in_error", "reason_hidden")
    return Standing(**{name: row[name] for name in same}, figure=_figure(row, found))


def _about(record: Any) -> tuple[tuple[str, str], ...]:
    try:
        versions: Mapping[str, Any] = dict(json.loads(record.versions))
    except (ValueError, TypeError):
        versions = {"versions": record.versions}
    pairs: Sequence[tuple[str, object]] = (
        ("model", record.model),
        ("weights digest", record.model_digest),
        ("algorithm version", record.algorithm_version),
        ("commit", record.git_commit or "unknown"),
        ("host", record.host),
        ("created", f"{record.created_at:%Y-%m-%d %H:%M} UTC"),
        ("plan", record.plan_id),
        *versions.items(),
    )
    return tuple((name, str(value)) for name, value in pairs)


MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
NOTHING = "\N{EN DASH}"
ALPHA = 0.05
"""The p from which on a difference is called one."""


def rate(value: float | None) -> str:
    """Return a rate in percent with two decimals."""
    return NOTHING if value is None else f"{value:.2f}".replace("-", MINUS)


def points(value: float | None) -> str:
    """Return a difference with its sign and two decimals."""
    return NOTHING if value is None else _signed(f"{value:+.2f}")


def signed_percent(value: float | None) -> str:
    """Return a relative difference with its sign and one decimal."""
    return NOTHING if value is None else _signed(f"{value:+.1f}")


def interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """Return the two ends of an interval; the empty text where there is none."""
    if low is None or high is None:
        return ""
    write = points if signed else rate
    return f"{write(low)}{SPACE}…{SPACE}{write(high)}"


def probability(value: float | None) -> str:
    """Return a p with three decimals."""
    return NOTHING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: int | None) -> str:
    """Return a count with its thousands set apart."""
    return NOTHING if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def duration(seconds: float | None) -> str:
    """Return a time as a reader says it."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def verdict(figure: Figure) -> str:
    """Return `better` or `worse` where the test says so, else `unclear`; without a test it is always unclear."""
    if not figure.change or figure.p is None or figure.p > ALPHA:
        return "unclear"
    return "better" if figure.change < 0 else "worse"


def _signed(text: str) -> str:
    return text.replace("-", MINUS) if float(text) else text.lstrip("+-")
