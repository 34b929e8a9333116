"""Compare two runs: whether they are comparable, and what is significantly better or worse."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from statistics import fmean
from typing import Any

import pyarrow as pa

from emtta_core.errors import UsageError, unknown
from emtta_core.scoring import paired
from emtta_core.scoring.paired import ALPHA
from emtta_core.scoring.significance import MIN_EFFECT, MinEffect, check_thresholds, holm
from emtta_core.store import COMPLETE, Catalogue, PlanRow, Result, Store
from emtta_core.store.describe import check_scored
from emtta_core.store.queries import Limits
from emtta_core.store.result import SharedCell
from emtta_core.suite import parse_suite
from emtta_core.suite.messages import differences

__all__ = ["ALL", "Change", "Comparison", "Difference", "compare", "corrected"]

ALL = "all"
"""Replaces the domain in a method's mean over its domains."""

NOT_DISTINGUISHABLE = "not distinguishable"
"""The verdict on a change that may be due to chance."""

_MAX_LISTED = 5
"""The most domains that an error message names."""

_SHARED_CELLS = (
    SharedCell("difference", "{difference:+.2f} ± {ci_half_width:.1f}"),
    SharedCell("wins_ties_losses", "{wins}/{ties}/{losses}"),
)
"""Columns that a displayed table shows in one cell."""

_INCOMPLETE = """
    SELECT method, domain, seed, run_id
    FROM cells
    WHERE run_id IN ($a, $b)
    QUALIFY state <> $complete AND count(*) OVER (PARTITION BY domain, method, seed) = 2
    ORDER BY position, run_id
"""
"""The cells of both runs that are incomplete in one of them."""

Cell = tuple[str, str, int | None]
"""A domain, a method, and a seed if the method draws random numbers."""

Figure = tuple[str, str]
"""A domain, or `ALL`, and a method."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A field in which two runs differ, and its value in each."""

    what: str
    a: Any
    b: Any

    def __str__(self) -> str:
        return f"{self.what}: {_shown(self.a)} in A, {_shown(self.b)} in B"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(paired.Change):
    """The change of a method's WER from run A to run B, in one domain or over all."""

    method: str  # the method
    domain: str  # the domain; `all` for the mean over the domains
    p: float  # the p-value, corrected by `corrected`, like `p_sign_flip`
    # `worse` or `better` if the change is significant and large enough; `too small` if it is only significant;
    # `unchanged` if no utterance has more or fewer errors; otherwise `not distinguishable`.
    verdict: str

    @property
    def ci_half_width(self) -> float | None:
        """Half the width of the interval in points: the interval is `difference` ± this."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two runs."""

    run_a: str  # the earlier run
    run_b: str  # the later run
    alpha: float  # the significance level: the largest p of a significant change
    min_effect: MinEffect  # the size that a change must exceed
    changes: tuple[Change, ...]  # method by method, for each domain and, last, the mean
    differences: tuple[Difference, ...]  # the fields in which the runs differ
    notes: tuple[str, ...]  # what was left out or hidden and why, and what the intervals do not cover

    @property
    def regressions(self) -> tuple[Change, ...]:
        """The changes for the worse."""
        return tuple(change for change in self.changes if change.verdict == "worse")

    @property
    def improvements(self) -> tuple[Change, ...]:
        """The changes for the better."""
        return tuple(change for change in self.changes if change.verdict == "better")

    @property
    def summary(self) -> str:
        """The findings in one line."""
        unclear = sum(change.verdict == NOT_DISTINGUISHABLE for change in self.changes)
        counts = f"{len(self.regressions)} worse and {len(self.improvements)} better of {len(self.changes)} figures"
        counts += f", {unclear} not distinguishable" if unclear else ""
        return f"{self.run_b} against {self.run_a}: {counts} (p ≤ {self.alpha:g}, over {self.min_effect})"

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        regressions = [asdict(change) for change in self.regressions]
        return asdict(self) | {"min_effect": self.min_effect.value, "regressions": regressions}

    def as_result(self) -> Result:
        """The changes as a table of numbers; when displayed, the interval shares a cell with the difference."""
        names = ("method", "domain", "verdict", "difference", "ci_half_width", "p", "p_sign_flip", "wer_a", "wer_b")
        counts = ("wins", "ties", "losses", "utterances")
        columns = {name: [getattr(change, name) for change in self.changes] for name in (*names, *counts)}
        return Result(pa.table(columns), _SHARED_CELLS)

    def markdown(self) -> str:
        """The comparison in Markdown."""
        lines = [f"# {self.run_b} (B) against {self.run_a} (A)", "", f"{self.summary}.", ""]
        lines += ["WER in %; above zero is worse.", "", self.as_result().markdown()]
        for head, items in (("What differs", self.differences), ("Notes", self.notes)):
            if items:
                lines += [f"## {head}", "", *(f"- {item}" for item in items), ""]
        return "\n".join(lines)


def compare(
    store: Store,
    run_a: str,
    run_b: str,
    *,
    methods: Collection[str] = (),
    domains: Collection[str] = (),
    alpha: float = ALPHA,
    min_effect: float | str = MIN_EFFECT,
    scorer: str | None = None,
    limits: Limits | None = None,
) -> Comparison:
    """Compare two runs, utterance by utterance; a method's seeds are averaged over those that both runs have.

    Args:
        store: the store with both runs.
        run_a: the earlier run.
        run_b: the later run.
        methods: the methods to compare; if empty, all that both runs have.
        domains: the domains to compare, likewise.
        alpha: the largest p of a significant change.
        min_effect: the size that a change must exceed, as accepted by `MinEffect.read`.
        scorer: the scorer of the figures; by default the first of each run's suite.
        limits: the limits of each query.

    Raises:
        UsageError: no such run, method or domain; the runs have no cell in common; a domain's speech differs between
            them (the message names the fields that differ); they were scored by different normalizers; no utterance is
            scored in both; or `alpha` or `min_effect` is out of range.
    """
    min_change = check_thresholds(alpha, min_effect)
    # 1) what both runs have, and whether it is the same speech
    plan_a, plan_b = ({(row.domain, row.method, row.seed): row for row in store.plan(run)} for run in (run_a, run_b))
    cells = _shared(plan_a, plan_b, run_a, run_b, methods, domains)
    differing = _differences(store, run_a, run_b)
    others = list(dict.fromkeys(cell[0] for cell in cells if plan_a[cell].corpus_id != plan_b[cell].corpus_id))
    if others:
        raise UsageError(_other_speech(others, run_a, run_b, differing))
    # 2) its utterances
    with Catalogue(store, runs=[run_a, run_b], scorer=scorer, limits=limits) as catalogue:
        for run in (run_a, run_b):
            check_scored(catalogue, run, scorer)
        every = catalogue.report("pairs", run_b, baseline=run_a).records
        incomplete = catalogue.query(_INCOMPLETE, {"a": run_a, "b": run_b, "complete": COMPLETE}).rows
    pairs = [pair for pair in every if (pair["domain"], pair["method"], pair["seed"]) in cells]
    scored = [pair for pair in pairs if pair["words_a"] and pair["words_b"]]
    _check_scoring(scored, run_a, run_b)
    if not scored:
        looks = " and ".join(store.command("status", run) for run in (run_a, run_b))
        raise UsageError(f"no utterance is scored in both {run_a} and {run_b}; see {looks}")
    # 3) method by method: the change in each domain, and over all domains unless a cell is incomplete
    notes, changes = [*_other_seeds(plan_a, plan_b, cells), *_left_out(pairs)], dict[Figure, paired.Change]()
    averaged = _over_seeds(scored)
    for method in dict.fromkeys(pair["method"] for pair in averaged):
        found = _changes([pair for pair in averaged if pair["method"] == method])
        hidden = [
            f"{domain}{_named(seed, cells)} in {run}"
            for name, domain, seed, run in incomplete
            if name == method and (domain, name, seed) in cells
        ]
        if hidden:
            del found[ALL]
            why = f"these cells are incomplete: {', '.join(hidden)}"
            notes.append(f"{method}: the mean over all domains is hidden because {why}")
        changes |= {(domain, method): change for domain, change in found.items()}
    # 4) the verdicts, over all figures of the comparison
    judged = _judged(changes, alpha, min_change)
    notes += _cautions(judged)
    return Comparison(run_a, run_b, alpha, min_change, judged, tuple(differing), tuple(notes))


def corrected(p_values: Mapping[Figure, float]) -> dict[Figure, float]:
    """Correct the p-values of a comparison for the number of figures.

    There are two families: the means over all domains, one per method; and the domains of all methods. In each, Holm's
    procedure keeps the probability of any false finding at alpha, at most half of it on either side, so that of any
    false `worse` in both together is at most about alpha.

    Args:
        p_values: two-sided p-values by domain (or `ALL`) and method.
    """
    adjusted: dict[Figure, float] = {}
    for family in ([cell for cell in p_values if (cell[0] == ALL) is is_mean] for is_mean in (True, False)):
        adjusted |= dict(zip(family, holm([p_values[cell] for cell in family]).tolist(), strict=True))
    return adjusted


def _shared(
    plan_a: Mapping[Cell, PlanRow],
    plan_b: Mapping[Cell, PlanRow],
    run_a: str,
    run_b: str,
    methods: Collection[str],
    domains: Collection[str],
) -> dict[Cell, None]:
    # The requested cells that both runs have, in plan order.
    shared = [cell for cell in plan_a if cell in plan_b]
    if not shared:
        seeds_differ = bool({cell[:2] for cell in plan_a} & {cell[:2] for cell in plan_b})
        has = []
        for run, plan in ((run_a, plan_a), (run_b, plan_b)):
            methods_of = {f"{method} (seed {seed})" if seeds_differ else method for _, method, seed in plan}
            has.append(f"{run} has {_listed({domain for domain, *_ in plan})} with {_listed(methods_of)}")
        common = "domain, method and seed" if seeds_differ else "domain and method"
        raise UsageError(f"the runs have no {common} in common: {'; '.join(has)}")
    for what, names, requested in zip(
        ("domain", "method"), list(zip(*shared, strict=True))[:2], (domains, methods), strict=True
    ):
        for name in requested:
            if name not in names:
                raise unknown(f"{what} of both runs", name, sorted(set(names)))
    kept = [cell for cell in shared if (not domains or cell[0] in domains) and (not methods or cell[1] in methods)]
    if not kept:
        raise UsageError(
            f"no cell in both runs has one of the domains {_listed(domains)} and one of the methods {_listed(methods)}"
        )
    return dict.fromkeys(kept)


def _differences(store: Store, run_a: str, run_b: str) -> list[Difference]:
    # Differences between the suites' identity fields, then between the runs' records.
    rows = store.run(run_a), store.run(run_b)
    try:
        suite_a, suite_b = (parse_suite(row.suite_toml).identity() for row in rows)
    except UsageError:  # recorded by a release with other fields
        suite_a = suite_b = {}
    record_a, record_b = (
        {
            "the model's weights": row.model_digest,
            "the algorithm's version": row.algorithm_version,
            "commit": row.git_commit,
            "host": row.host,
            **json.loads(row.versions),
        }
        for row in rows
    )
    return [Difference(*item) for item in (*differences(suite_a, suite_b), *differences(record_a, record_b))]


def _other_speech(domains: Sequence[str], run_a: str, run_b: str, differing: Sequence[Difference]) -> str:
    fields = tuple(f"domains.{domain}." for domain in domains)
    lines = [str(item) for item in differing if item.what == "limit" or item.what.startswith(fields)]
    lines = lines or ["no field of the suite: the content of a corpus, or how it is prepared"]
    listed = "\n".join(f"  {line}" for line in lines)
    return (
        f"{run_a} (A) and {run_b} (B) cannot be compared: the speech differs in {_listed(domains)}; fields:\n{listed}\n"
        "compare other domains with --domain, or runs of the same suite"
    )


def _check_scoring(scored: Sequence[Mapping[str, Any]], run_a: str, run_b: str) -> None:
    for pair in scored:
        if pair["normalizer_a"] != pair["normalizer_b"] or pair["words_a"] != pair["words_b"]:
            raise UsageError(
                f"{run_a} (A) and {run_b} (B) cannot be compared: {pair['domain']}/{pair['utterance_id']} was scored "
                f"by {pair['normalizer_a']} over {pair['words_a']} words in A, and by {pair['normalizer_b']} over "
                f"{pair['words_b']} words in B; score both in the same way: emtta score RUN --scorer NAME"
            )


def _left_out(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    # A sentence for each cell with utterances that lack a score in a run; `pairs` are ordered by cell.
    notes, cells = [], {_cell(pair): None for pair in pairs}
    for (domain, method, seed), of_cell in groupby(pairs, _cell):
        in_error = [(pair["error_a"] is not None, pair["error_b"] is not None) for pair in of_cell]
        a, b, either = (sum(sides) for sides in zip(*((a, b, a or b) for a, b in in_error), strict=True))
        if either:
            why = "they are in error or not done"
            cell = f"{domain}/{method}{_named(seed, cells)}"
            notes.append(f"{cell}: {either} utterances are left out because {why}: {a} in A, {b} in B")
    return notes


def _cell(pair: Mapping[str, Any]) -> Cell:
    return pair["domain"], pair["method"], pair["seed"]


def _named(seed: int | None, cells: Collection[Cell]) -> str:
    # A seed, if the cells have several.
    return f", seed {seed}" if len({other for *_, other in cells if other is not None}) > 1 else ""


def _other_seeds(plan_a: Collection[Cell], plan_b: Collection[Cell], cells: Collection[Cell]) -> list[str]:
    # A sentence for each method whose seeds differ between the runs; seeds that one run lacks are left out.
    notes = []
    for method in dict.fromkeys(name for _, name, _ in cells):
        a, b = ({seed: None for _, name, seed in plan if name == method} for plan in (plan_a, plan_b))
        missing = [*(f"{seed} of A" for seed in a if seed not in b), *(f"{seed} of B" for seed in b if seed not in a)]
        if missing:
            both = ", ".join(str(seed) for seed in a if seed in b)
            notes.append(
                f"{method}: compared over the seeds that both runs have ({both}), without {', '.join(missing)}"
            )
    return notes


def _over_seeds(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    # Each utterance of a domain and method once, with its errors averaged over the seeds.
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for pair in pairs:
        found.setdefault((pair["domain"], pair["method"], pair["utterance_id"]), []).append(pair)
    names = ("errors_a", "errors_b")
    return [{**runs[0], **{name: fmean(pair[name] for pair in runs) for name in names}} for runs in found.values()]


def _cautions(changes: Sequence[Change]) -> list[str]:
    # What the intervals do not cover, and in which domains.
    domains: dict[str, dict[str, None]] = {}
    for change in changes:
        if change.note is not None:
            domains.setdefault(change.note, {})[change.domain] = None
    return [f"{_listed(names)}: {note}" for note, names in domains.items()]


def _changes(pairs: Sequence[Mapping[str, Any]]) -> dict[str, paired.Change]:
    # The change in each domain of a method and, last, the change over all domains.
    sample = paired.Sample(
        [pair["domain"] for pair in pairs],
        [pair["utterance_id"] for pair in pairs],
        [pair["speaker"] for pair in pairs],
        [(pair["errors_a"], pair["errors_b"], pair["words_b"]) for pair in pairs],
    )
    return {name: sample.change([name]) for name in sample.domains} | {ALL: sample.change(sample.domains)}


def _judged(changes: Mapping[Figure, paired.Change], alpha: float, min_change: MinEffect) -> tuple[Change, ...]:
    p_values = corrected({cell: change.p for cell, change in changes.items()})
    flips = corrected({cell: change.p_sign_flip for cell, change in changes.items()})
    judged = []
    for cell, change in changes.items():
        figures = {"method": cell[1], "domain": cell[0], "p": p_values[cell], "p_sign_flip": flips[cell]}
        figures["verdict"] = _verdict(change, p_values[cell], alpha, min_change)
        judged.append(Change(**asdict(change) | figures))
    return tuple(judged)


def _verdict(change: paired.Change, p: float, alpha: float, min_change: MinEffect) -> str:
    if not change.wins and not change.losses:
        return "unchanged"
    if p > alpha:
        return NOT_DISTINGUISHABLE
    if not min_change.exceeded_by(change.difference, change.wer_a):
        return "too small"
    return "worse" if change.difference > 0 else "better"


def _listed(names: Collection[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _MAX_LISTED} more" if len(ordered) > _MAX_LISTED else ""
    return ", ".join(ordered[:_MAX_LISTED]) + more


def _shown(value: Any) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
