"""Two runs side by side: whether they can be compared, and what is better or worse beyond chance."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from emtta_core.errors import UsageError, unknown
from emtta_core.scoring.bootstrap import holm
from emtta_core.scoring.paired import Change as PairedChange
from emtta_core.scoring.paired import Sample
from emtta_core.store import COMPLETE, Catalogue, PlanRow, Result, RunRow, Store
from emtta_core.store.queries import Limits
from emtta_core.store.result import SharedCell
from emtta_core.suite import parse_suite
from emtta_core.suite.messages import differences

_NAMED = 5
"""How many domains a refusal names."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A place at which two runs differ, and its value in each."""

    what: str
    a: Any
    b: Any

    def __str__(self) -> str:
        return f"{self.what}: {_shown(self.a)} in A, {_shown(self.b)} in B"


def check_comparable(
    store: Store, run_a: str, run_b: str, *, methods: Collection[str] = (), domains: Collection[str] = ()
) -> tuple[Difference, ...]:
    """Return in what two runs that can be compared differ.

    Args:
        store: which has both.
        run_a: one run.
        run_b: the other.
        methods: compare these alone; all that both have where empty.
        domains: likewise.

    Raises:
        UsageError: no such run, method or domain; the runs have no cell in common; or a domain's speech is not the
            same in both, in which case it names the fields that differ.
    """
    plans = [{(row.domain, row.method): row for row in store.plan(run)} for run in (run_a, run_b)]
    shared = _shared(plans[0], plans[1], run_a, run_b, methods, domains)
    rows = [store.run(run) for run in (run_a, run_b)]
    identities = _identities(*rows)
    others = list(dict.fromkeys(cell[0] for cell in shared if plans[0][cell].corpus_id != plans[1][cell].corpus_id))
    if others:
        raise UsageError(_other_speech(others, run_a, run_b, identities))
    return tuple(_rest(rows[0], rows[1], identities))


def _shared(
    plan_a: Mapping[tuple[str, str], PlanRow],
    plan_b: Mapping[tuple[str, str], PlanRow],
    run_a: str,
    run_b: str,
    methods: Collection[str],
    domains: Collection[str],
) -> list[tuple[str, str]]:
    # The domains and methods that both runs have, of those that are asked for.
    shared = [cell for cell in plan_a if cell in plan_b]
    if not shared:
        has = [
            f"{run} has {_listed({cell[0] for cell in plan})} with {_listed({cell[1] for cell in plan})}"
            for run, plan in ((run_a, plan_a), (run_b, plan_b))
        ]
        raise UsageError(f"the runs have no domain and method in common: {'; '.join(has)}")
    for what, place, asked in (("domain", 0, domains), ("method", 1, methods)):
        there = sorted({cell[place] for cell in shared})
        for name in asked:
            if name not in there:
                raise unknown(f"{what} of both runs", name, there)
    kept = [cell for cell in shared if (not domains or cell[0] in domains) and (not methods or cell[1] in methods)]
    if not kept:
        raise UsageError(
            f"no cell of both runs has one of the domains {_listed(domains)} and one of the methods {_listed(methods)}"
        )
    return kept


def _identities(row_a: RunRow, row_b: RunRow) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    # The identity fields of the suites of two runs; nothing where a suite is of another release.
    try:
        a, b = (parse_suite(row.suite_toml).identity() for row in (row_a, row_b))
    except UsageError:
        return {}, {}
    return a, b


def _other_speech(
    domains: list[str], run_a: str, run_b: str, identities: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> str:
    found = [
        Difference(what, a, b)
        for what, a, b in differences(*identities)
        if what == "limit" or any(what.startswith(f"domains.{domain}.") for domain in domains)
    ]
    lines = [str(item) for item in found] or ["no field of the suite: the content of a corpus, or how it is prepared"]
    listed = "\n".join(f"  {line}" for line in lines)
    return (
        f"{run_a} (A) and {run_b} (B) cannot be compared: other speech in {_listed(domains)}; what differs:\n{listed}\n"
        "compare other domains with --domain, or runs of the same suite"
    )


def _rest(row_a: RunRow, row_b: RunRow, identities: tuple[Mapping[str, Any], Mapping[str, Any]]) -> list[Difference]:
    found = [Difference(*item) for item in differences(*identities)]
    pairs = [
        ("the model's weights", row_a.model_digest, row_b.model_digest),
        ("the algorithm's version", row_a.algorithm_version, row_b.algorithm_version),
        ("commit", row_a.git_commit, row_b.git_commit),
        ("host", row_a.host, row_b.host),
    ]
    releases = differences(json.loads(row_a.versions), json.loads(row_b.versions))
    return [*found, *(Difference(*item) for item in [*pairs, *releases] if item[1] != item[2])]


def _listed(names: Collection[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return ", ".join(ordered[:_NAMED]) + more


def _shown(value: Any) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


ALL = "all"
"""What stands in place of a domain in a method's mean over its domains."""

_CELLS = (
    SharedCell("difference", "{difference:+.2f} ± {ci_half_width:.1f}"),
    SharedCell("wins_ties_losses", "{wins}/{ties}/{losses}"),
)
"""What a table for a reader shows in one cell."""

ALPHA = 0.05
"""How probable a regression may be where nothing has changed."""

NOT_DISTINGUISHABLE = "not distinguishable"
"""The verdict on a change that chance alone may have made."""

MIN_EFFECT = 0.2
"""A change of WER, in points, that is too small to matter."""


@dataclass(frozen=True, slots=True)
class Change:
    """How a method's WER changed in one domain, or over all."""

    method: str  # the method
    domain: str  # the domain; `all` for the mean over the domains
    utterances: int  # pairs that are compared
    wer_a: float  # WER in run A, %
    wer_b: float  # WER in run B, %
    difference: float  # `wer_b` less `wer_a`, points
    low: float | None  # lower end of its 95 % bootstrap interval, points; none for fewer than 5 units
    high: float | None  # upper end
    p: float  # of the sign-flip test, Holm-corrected over the method's domains; that of `all` is a separate test
    wins: int  # utterances with fewer word errors in B
    ties: int  # with as many
    losses: int  # with more
    drawn: str  # what the interval and the test draw: `utterances`, `speakers`, or `both` where domains differ in it
    # `worse` or `better` where the change is significant and large enough; `too small` where it is only significant;
    # `unchanged` where no utterance has more or fewer errors; else `not distinguishable`.
    verdict: str

    @property
    def ci_half_width(self) -> float | None:
        """Half the width of the interval, points: the interval is `difference` ± this."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs beside each other."""

    run_a: str  # the earlier run
    run_b: str  # the later run
    alpha: float  # p of a significant change is at most this
    min_effect: float  # and its size more than this, points of WER
    changes: tuple[Change, ...]  # domain by domain, the mean last, method by method
    differences: tuple[Difference, ...]  # in what the runs differ
    notes: tuple[str, ...]  # what was left out or hidden, and why

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
        """One line on what was found."""
        unclear = sum(change.verdict == NOT_DISTINGUISHABLE for change in self.changes)
        counts = f"{len(self.regressions)} worse and {len(self.improvements)} better of {len(self.changes)} figures"
        counts += f", {unclear} not distinguishable" if unclear else ""
        return f"{self.run_b} against {self.run_a}: {counts} (p ≤ {self.alpha:g}, over {self.min_effect:g} points)"

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        data = asdict(self)
        return data | {"regressions": [asdict(change) for change in self.regressions]}

    def as_result(self) -> Result:
        """Return the changes as a table: numbers, of which a reader sees the interval with the difference."""
        names = ("method", "domain", "verdict", "difference", "ci_half_width", "p", "wer_a", "wer_b")
        counts = ("wins", "ties", "losses", "utterances")
        columns = {name: [getattr(change, name) for change in self.changes] for name in (*names, *counts)}
        return Result(pa.table(columns), _CELLS)

    def markdown(self) -> str:
        """Return the comparison in Markdown."""
        lines = [f"# {self.run_b} (B) against {self.run_a} (A)", "", f"{self.summary}.", ""]
        lines += ["WER in %; above zero is worse.", "", self.as_result().markdown()]
        for head, items in (("What differs", self.differences), ("Left out", self.notes)):
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
    min_effect: float = MIN_EFFECT,
    limits: Limits | None = None,
) -> Comparison:
    """Compare two runs, utterance by utterance.

    Args:
        store: which has both.
        run_a: the earlier run.
        run_b: the later run.
        methods: these alone; all that both have where empty.
        domains: likewise.
        alpha: a change is significant with a p of at most this.
        min_effect: and only where it is larger than this, points of WER.
        limits: what each query may take.

    Raises:
        UsageError: the runs cannot be compared (see `check_comparable`); they were scored by other normalizers; no
            utterance is scored in both; or `alpha` or `min_effect` is out of range.
    """
    check_thresholds(alpha, min_effect)
    differing = check_comparable(store, run_a, run_b, methods=methods, domains=domains)
    with Catalogue(store, limits=limits) as catalogue:
        pairs = catalogue.report("pairs", run_b, baseline=run_a).records
        states = _incomplete(catalogue, run_a, run_b)
    pairs = [pair for pair in pairs if _asked(pair, methods, domains)]
    scored = [pair for pair in pairs if pair["error_a"] is None and pair["error_b"] is None]
    _check_scoring(scored, run_a, run_b)
    if not scored:
        looks = " and ".join(store.command("status", run) for run in (run_a, run_b))
        raise UsageError(f"no utterance is scored in both {run_a} and {run_b}; see {looks}")
    notes, changes = _left_out(pairs), []
    for method in dict.fromkeys(pair["method"] for pair in scored):
        of_method = [pair for pair in scored if pair["method"] == method]
        missing = [state for state in states if state[1] == method and (not domains or state[0] in domains)]
        found = _changes(method, of_method, alpha, min_effect)
        if missing:
            found.pop()
            named = ", ".join(f"{domain} in {run}" for domain, _, run in missing)
            notes.append(f"{method}: the mean over all domains is hidden because these cells are incomplete: {named}")
        changes += found
    return Comparison(run_a, run_b, alpha, min_effect, tuple(changes), differing, tuple(notes))


def check_thresholds(alpha: float, min_effect: float) -> None:
    """Check what makes a change significant and large enough.

    Raises:
        UsageError: `alpha` or `min_effect` is out of range.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha:g}; give a number between 0 and 1, such as 0.05")
    if not 0 <= min_effect < math.inf:
        raise UsageError(f"the minimum effect is {min_effect:g}; give a number of WER points, 0 or more")


def _asked(pair: Mapping[str, Any], methods: Collection[str], domains: Collection[str]) -> bool:
    return (not methods or pair["method"] in methods) and (not domains or pair["domain"] in domains)


def _incomplete(catalogue: Catalogue, run_a: str, run_b: str) -> list[tuple[str, str, str]]:
    # Domain, method and run of each cell of both runs that is not complete in one of them.
    query = """
        SELECT domain, method, run_id
        FROM cells
        WHERE run_id IN ($a, $b)
        QUALIFY state <> $complete AND count(*) OVER (PARTITION BY domain, method) = 2
        ORDER BY position, run_id
    """
    return catalogue.query(query, {"a": run_a, "b": run_b, "complete": COMPLETE}).rows


def _check_scoring(scored: Sequence[Mapping[str, Any]], run_a: str, run_b: str) -> None:
    for pair in scored:
        if pair["normalizer_a"] != pair["normalizer_b"] or pair["words_a"] != pair["words_b"]:
            raise UsageError(
                f"{run_a} (A) and {run_b} (B) cannot be compared: {pair['domain']}/{pair['utterance_id']} was scored "
                f"by {pair['normalizer_a']} over {pair['words_a']} words in A, and by {pair['normalizer_b']} over "
                f"{pair['words_b']} words in B; run the older one's suite again, under another --run-id"
            )


def _left_out(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    counts: dict[str, list[int]] = {}
    for pair in pairs:
        lacking = [pair["error_a"] is not None, pair["error_b"] is not None]
        if any(lacking):
            count = counts.setdefault(f"{pair['domain']}/{pair['method']}", [0, 0, 0])
            for place, value in enumerate([True, *lacking]):
                count[place] += value
    return [
        f"{cell}: {both} utterances are left out because they are in error or not done: {a} in A, {b} in B"
        for cell, (both, a, b) in counts.items()
    ]


def _changes(method: str, pairs: Sequence[Mapping[str, Any]], alpha: float, min_effect: float) -> list[Change]:
    # The change of each domain of a method, and that over all as the last.
    sample = Sample(
        [pair["domain"] for pair in pairs],
        [pair["utterance_id"] for pair in pairs],
        [pair["speaker"] for pair in pairs],
        [(pair["errors_a"], pair["errors_b"], pair["words_b"]) for pair in pairs],
    )
    found = [sample.change([name]) for name in sample.domains]
    whole = sample.change(sample.domains)
    p_values = [*holm([change.p for change in found]), whole.p]
    changes = []
    for name, change, p in zip([*sample.domains, ALL], [*found, whole], p_values, strict=True):
        verdict = _verdict(change, p, alpha, min_effect)
        changes.append(Change(**asdict(change) | {"method": method, "domain": name, "p": float(p), "verdict": verdict}))
    return changes


def _verdict(change: PairedChange, p: float, alpha: float, min_effect: float) -> str:
    if not change.wins and not change.losses:
        return "unchanged"
    if p > alpha:
        return NOT_DISTINGUISHABLE
    if abs(change.difference) <= min_effect:
        return "too small"
    return "worse" if change.difference > 0 else "better"


__all__ = ["ALL", "Change", "Comparison", "check_comparable", "compare"]
"""What the package is used by."""
