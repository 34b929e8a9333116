"""Whether two runs can be compared, and in what they differ.

The speech must be the same: the corpus of a domain (its audio, transcripts, corruption and limit) in both runs. The
methods are matched by their names. All else may differ, for it is what one compares: the model, options, the make of a
method, the algorithm's version, libraries, the commit. It is said beside the figures.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from emtta_core.errors import UsageError, unknown
from emtta_core.pipeline.differences import differences
from emtta_core.store import PlanRow, RunRow, Store
from emtta_core.suite import parse_suite

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
    """Return the domains and methods that both runs have, of those that are asked for."""
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
    """Return the identity fields of the suites of two runs; nothing where a suite is of another release."""
    try:
        a, b = (parse_suite(row.suite_toml).identity() for row in (row_a, row_b))
    except UsageError:
        return {}, {}
    return a, b


def _other_speech(
    domains: list[str], run_a: str, run_b: str, identities: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> str:
    """Return the refusal of runs whose domains hold other speech."""
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
    """Return in what two runs differ that may be compared."""
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
    """Return some names for a message."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return ", ".join(ordered[:_NAMED]) + more


def _shown(value: Any) -> str:
    """Return a value for a message."""
    return "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
