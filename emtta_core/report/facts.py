"""The contents of a run's page: rows of the store's views, and the formatting of numbers."""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from emtta_core.errors import UsageError
from emtta_core.pipeline.run_results import Row, compared
from emtta_core.scoring.paired import ALPHA
from emtta_core.store import Catalogue, Store
from emtta_core.store.describe import cautions_of, notices_of, scorer_of, scorers_of
from emtta_core.suite import parse_suite

ALL = "all"
"""The group of all domains."""

SOURCE = "source"
"""The method that leaves the model as it is."""

NAMED_HUES, COMPOSED_HUES = 17, 6
"""Number of colours in `page.css` for ranked methods other than source, one each; and for all other methods."""

MAX_PROPERTIES, MAX_SLICES = 6, 12
"""The most metadata columns by which a page slices utterances, and slices per property; the report has all."""

_METADATA = "SELECT DISTINCT unnest(json_keys(metadata)) AS name FROM utterances WHERE run_id = $run ORDER BY name"

MAX_FAILURES = 200
"""The most failures on a page; further ones are only counted."""

# Each sentence on what a limit selects, with the domains it applies to.
_SAMPLES = """
    SELECT sample, array_agg(domain ORDER BY position) AS domains
    FROM (SELECT sample, domain, min(position) AS position FROM planned WHERE run_id = $run GROUP BY ALL)
    WHERE sample IS NOT NULL
    GROUP BY sample
    ORDER BY min(position)
"""


@dataclass(frozen=True)
class Facts:
    """The contents of a run's page."""

    run: Row  # its row of the view `runs`
    scorer: str | None  # the scorer of the figures
    scorers: tuple[str, ...]  # all scorers with scores
    notices: tuple[str, ...]  # the notices required beside its figures
    ranks: Mapping[str, int]  # the rank of each method in the registry
    samples: tuple[str, ...]  # which utterances a limit selects, one sentence per selection
    descriptions: Mapping[str, str]  # a description of each domain, if the suite can still be read
    cells: Mapping[tuple[str, str], Row]  # the view `domains` compared with source, by domain and method
    means: Mapping[tuple[str, str], Row]  # the view `groups` compared with source, by method and group
    best: Mapping[str, Row]  # the view `best`, by group
    pairs: tuple[Row, ...]  # the report `between`, over all domains
    cautions: tuple[str, ...]  # what the intervals do not cover
    steps: tuple[Row, ...]  # the report `steps`
    speeds: Mapping[str, Row]  # the report `speed`, by method
    failures: tuple[Row, ...]  # the report `failures`
    streams: tuple[Row, ...]  # the report `stream`; empty if all utterances are episodes
    forgetting: tuple[Row, ...]  # the report `forgetting`; empty if all utterances are episodes
    # The report `slices`, by property of the utterances, slice and method.
    slices: Mapping[str, Mapping[str, Mapping[str, Row]]]

    @cached_property
    def about(self) -> dict[str, Any]:
        """The run's model, versions and other details."""
        try:
            versions = dict(json.loads(self.run["versions"]))
        except (ValueError, TypeError):
            versions = {"versions": self.run["versions"]}
        return {
            "model": self.run["model"],
            "weights digest": self.run["model_digest"],
            "algorithm version": self.run["algorithm_version"],
            "commit": self.run["git_commit"] or "unknown",
            "host": self.run["host"],
            "created": f"{self.run['created_at']:%Y-%m-%d %H:%M} UTC",
            "plan": self.run["plan_id"],
            **versions,
        }

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups in plan order, without `all`."""
        return tuple(dict.fromkeys(cell["group"] for cell in self.cells.values()))

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The domains in plan order."""
        return tuple(dict.fromkeys(domain for domain, _ in self.cells))

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods in registry order, then the suite's own."""
        last = len(self.ranks) + 1
        return tuple(sorted({method for _, method in self.cells}, key=lambda name: (self.ranks.get(name, last), name)))

    @cached_property
    def adapting(self) -> tuple[str, ...]:
        """The methods except source."""
        return tuple(method for method in self.methods if method != SOURCE)

    @cached_property
    def has_statistics(self) -> bool:
        """Whether intervals and tests are stored."""
        return any(cell["confidence"] is not None for cell in self.cells.values())

    @cached_property
    def has_seeds(self) -> bool:
        """Whether a method has several seeds."""
        return any(mean["seeds"] > 1 for mean in self.means.values())

    def cells_of(self, method: str) -> list[Row]:
        """The cells of a method, in plan order."""
        return [cell for (_, name), cell in self.cells.items() if name == method]

    def cost(self, method: str) -> float | None:
        """A method's wall-clock seconds per second of speech; None if nothing was timed."""
        rtfx = self.speeds.get(method, {}).get("rtfx")
        return 1 / rtfx if rtfx else None

    def ranked(self) -> list[Row]:
        """The means over all domains that have figures, lowest WER first."""
        found = [self.means[method, ALL] for method in self.methods]
        return sorted((mean for mean in found if mean["wer"] is not None), key=lambda mean: float(mean["wer"]))

    def is_best(self, method: str, group: str) -> bool:
        """Whether a method is the best of a group according to the tests."""
        found = self.best.get(group)
        return found is not None and found["method"] == method and bool(found["is_best"])

    def hue(self, method: str) -> str:
        """The name of a method's colour, the same on every page: `source`, or `hue` followed by a number."""
        if method == SOURCE:
            return SOURCE
        if method in self.ranks:
            return f"hue{(self.ranks[method] - 2) % NAMED_HUES}"  # source has rank 1
        return f"hue{NAMED_HUES + zlib.crc32(method.encode()) % COMPOSED_HUES}"


def newest_run(store: Store) -> str:
    """The newest run of a store; raises UsageError if it has none."""
    newest = next(iter(store.runs()), None)
    if newest is None:
        raise UsageError(f"the store {store.location} has no run yet; this makes one: {store.command('run', 'smoke')}")
    return newest


def read_facts(catalogue: Catalogue, run_id: str) -> Facts:
    """Read the facts about a run from the store."""

    def rows(sql: str) -> list[dict[str, Any]]:
        return catalogue.query(sql, {"run": run_id}).records

    (run,) = rows("FROM runs WHERE run_id = $run")
    streamed = rows("SELECT 1 FROM utterances WHERE run_id = $run AND position IS NOT NULL LIMIT 1")
    incomplete = run["complete"] < run["cells"] or run["in_error"]
    return Facts(
        run=run,
        scorer=scorer_of(catalogue, run_id),
        scorers=scorers_of(catalogue, run_id),
        notices=notices_of(catalogue, run_id),
        ranks=dict(catalogue.query("SELECT method, rank FROM methods").rows),
        samples=tuple(f"{row['sample']} ({', '.join(row['domains'])})." for row in rows(_SAMPLES)),
        descriptions=_descriptions(run["suite_toml"]),
        cells={(row["domain"], row["method"]): row for row in compared(catalogue, run_id, "domains").records},
        means={(row["method"], row["group"]): row for row in compared(catalogue, run_id, "groups").records},
        best={row["group"]: row for row in rows("FROM best WHERE run_id = $run")},
        pairs=tuple(catalogue.report("between", run_id).records),
        cautions=cautions_of(catalogue, run_id),
        steps=tuple(catalogue.report("steps", run_id).records),
        speeds={row["method"]: row for row in catalogue.report("speed", run_id).records},
        failures=tuple(catalogue.report("failures", run_id).records) if incomplete else (),  # most runs have none
        streams=tuple(catalogue.report("stream", run_id).records) if streamed else (),
        forgetting=tuple(catalogue.report("forgetting", run_id).records) if streamed else (),
        slices=dict(_slices(catalogue, run_id)),
    )


def _slices(catalogue: Catalogue, run_id: str) -> Iterator[tuple[str, dict[str, dict[str, Row]]]]:
    # The slices by length, language and metadata, for properties with several values, up to a readable number.
    names = [str(name) for (name,) in catalogue.query(_METADATA, {"run": run_id}).rows]
    for name in ("duration", "language", *names[:MAX_PROPERTIES]):
        found: dict[str, dict[str, Row]] = {}
        for row in catalogue.report("slices", run_id, by=name).records:
            found.setdefault(row["slice"], {})[row["method"]] = row
        if 1 < len(found) <= MAX_SLICES:
            yield name, found


def _descriptions(suite_toml: str) -> dict[str, str]:
    try:
        return {domain.name: domain.description() for domain in parse_suite(suite_toml).domains}
    except UsageError:  # recorded by a release with other fields
        return {}


MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
NO_VALUE = "\N{EN DASH}"


def number(value: float | None, form: str) -> str:
    """Format a number with typographic characters; zero has no sign, and None is a dash."""
    if value is None:
        return NO_VALUE
    text = f"{value:{form}}"
    if not float(text.replace(",", "")):
        text = text.lstrip("+-")
    return text.replace("-", MINUS).replace(",", "\N{NARROW NO-BREAK SPACE}")


rate = partial(number, form=".2f")
points = partial(number, form="+.2f")
signed_percent = partial(number, form="+.1f")
count = partial(number, form=",")


def interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """The two ends of an interval; empty if there is none."""
    if low is None or high is None:
        return ""
    write = points if signed else rate
    return f"{write(low)}{SPACE}…{SPACE}{write(high)}"


def probability(value: float | None) -> str:
    """A p-value with three decimals."""
    return "< 0.001" if value is not None and value < 0.001 else number(value, ".3f")


def duration(seconds: float | None) -> str:
    """Format a duration: `4.2 s`, `3 min 05 s`, `2 h 40 min`."""
    if seconds is None:
        return NO_VALUE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def verdict(figures: Row) -> str:
    """`better` or `worse` if the test says so, otherwise `unclear`, as it always is without a test."""
    if not figures["change"] or figures["p"] is None or figures["p"] > ALPHA:
        return "unclear"
    return "better" if figures["change"] < 0 else "worse"
