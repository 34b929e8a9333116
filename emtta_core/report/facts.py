"""What the page on a run shows: the rows of the store's views, and how numbers are written."""

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
"""Colours of `page.css` for the methods that have a rank, source aside, one each; and for all others."""

MOST_PROPERTIES, MOST_SLICES = 6, 12
"""Metadata columns by which a page slices the utterances, and slices of a property: others are in the report alone."""

_METADATA = "SELECT DISTINCT unnest(json_keys(metadata)) AS name FROM utterances WHERE run_id = $run ORDER BY name"

MOST_FAILURES = 200
"""Failures on a page; those beyond are counted."""

# Each sentence on what a limit takes, with the domains of which it is so.
_SAMPLES = """
    SELECT sample, array_agg(domain ORDER BY position) AS domains
    FROM (SELECT sample, domain, min(position) AS position FROM planned WHERE run_id = $run GROUP BY ALL)
    WHERE sample IS NOT NULL
    GROUP BY sample
    ORDER BY min(position)
"""


@dataclass(frozen=True)
class Facts:
    """A run as its page shows it."""

    run: Row  # of the view `runs`
    scorer: str | None  # by which the figures are
    scorers: tuple[str, ...]  # by which there are scores
    notices: tuple[str, ...]  # the sentences that must stand beside its figures
    ranks: Mapping[str, int]  # the rank of each method of the registry
    samples: tuple[str, ...]  # which utterances a limit takes, a sentence each
    descriptions: Mapping[str, str]  # what each domain is, where the suite can still be read
    cells: Mapping[tuple[str, str], Row]  # by domain and method: the view `domains`, compared with source
    means: Mapping[tuple[str, str], Row]  # by method and group: the view `groups`, likewise
    best: Mapping[str, Row]  # by group: the view `best`
    pairs: tuple[Row, ...]  # of the report `between`, over all domains
    cautions: tuple[str, ...]  # what intervals do not hold
    steps: tuple[Row, ...]  # of the report `steps`
    speeds: Mapping[str, Row]  # by method: the report `speed`
    failures: tuple[Row, ...]  # of the report `failures`
    streams: tuple[Row, ...]  # of the report `stream`; none where all utterances are episodes
    forgetting: tuple[Row, ...]  # of the report `forgetting`, likewise
    # By property of the utterances, by slice and by method: the report `slices`.
    slices: Mapping[str, Mapping[str, Mapping[str, Row]]]

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the run was made with."""
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
        """The groups in the order of the plan, without `all`."""
        return tuple(dict.fromkeys(cell["group"] for cell in self.cells.values()))

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The domains in the order of the plan."""
        return tuple(dict.fromkeys(domain for domain, _ in self.cells))

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods in the order of the registry, then a suite's own."""
        last = len(self.ranks) + 1
        return tuple(sorted({method for _, method in self.cells}, key=lambda name: (self.ranks.get(name, last), name)))

    @cached_property
    def adapting(self) -> tuple[str, ...]:
        """The methods but source."""
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
        """The cells of a method, in the order of the plan."""
        return [cell for (_, name), cell in self.cells.items() if name == method]

    def cost(self, method: str) -> float | None:
        """Wall seconds that a method took for a second of speech; None if nothing was timed."""
        rtfx = self.speeds.get(method, {}).get("rtfx")
        return 1 / rtfx if rtfx else None

    def ranked(self) -> list[Row]:
        """The means over all domains that have a figure, the lowest WER first."""
        found = [self.means[method, ALL] for method in self.methods]
        return sorted((mean for mean in found if mean["wer"] is not None), key=lambda mean: float(mean["wer"]))

    def is_best(self, method: str, group: str) -> bool:
        """Whether the tests call a method the best of a group."""
        found = self.best.get(group)
        return found is not None and found["method"] == method and bool(found["is_best"])

    def hue(self, method: str) -> str:
        """The name of a method's colour, the same on every page: `source`, or `hue` and a number."""
        if method == SOURCE:
            return SOURCE
        if method in self.ranks:
            return f"hue{(self.ranks[method] - 2) % NAMED_HUES}"  # source has rank 1
        return f"hue{NAMED_HUES + zlib.crc32(method.encode()) % COMPOSED_HUES}"


def newest_run(store: Store) -> str:
    """The newest run of a store; UsageError where it has none."""
    newest = next(iter(store.runs()), None)
    if newest is None:
        raise UsageError(f"the store {store.location} has no run yet; this makes one: {store.command('run', 'smoke')}")
    return newest


def read_facts(catalogue: Catalogue, run_id: str) -> Facts:
    """Read what is known of a run that the store has."""

    def rows(sql: str) -> list[dict[str, Any]]:
        return catalogue.query(sql, {"run": run_id}).records

    (run,) = rows("FROM runs WHERE run_id = $run")
    streamed = rows("SELECT 1 FROM utterances WHERE run_id = $run AND position IS NOT NULL LIMIT 1")
    lacking = run["complete"] < run["cells"] or run["in_error"]
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
        failures=tuple(catalogue.report("failures", run_id).records) if lacking else (),  # most runs need no query
        streams=tuple(catalogue.report("stream", run_id).records) if streamed else (),
        forgetting=tuple(catalogue.report("forgetting", run_id).records) if streamed else (),
        slices=dict(_slices(catalogue, run_id)),
    )


def _slices(catalogue: Catalogue, run_id: str) -> Iterator[tuple[str, dict[str, dict[str, Row]]]]:
    # The slices by length, language and metadata, of properties with several values, no more than a reader takes in.
    names = [str(name) for (name,) in catalogue.query(_METADATA, {"run": run_id}).rows]
    for name in ("duration", "language", *names[:MOST_PROPERTIES]):
        found: dict[str, dict[str, Row]] = {}
        for row in catalogue.report("slices", run_id, by=name).records:
            found.setdefault(row["slice"], {})[row["method"]] = row
        if 1 < len(found) <= MOST_SLICES:
            yield name, found


def _descriptions(suite_toml: str) -> dict[str, str]:
    try:
        return {domain.name: domain.description() for domain in parse_suite(suite_toml).domains}
    except UsageError:  # recorded by a release with other fields
        return {}


MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
NOTHING = "\N{EN DASH}"


def number(value: float | None, form: str) -> str:
    """A number as `format` writes it, in a typographer's characters: zero has no sign, None is a dash."""
    if value is None:
        return NOTHING
    text = f"{value:{form}}"
    if not float(text.replace(",", "")):
        text = text.lstrip("+-")
    return text.replace("-", MINUS).replace(",", "\N{NARROW NO-BREAK SPACE}")


rate = partial(number, form=".2f")
points = partial(number, form="+.2f")
signed_percent = partial(number, form="+.1f")
count = partial(number, form=",")


def interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """The two ends of an interval; the empty text where there is none."""
    if low is None or high is None:
        return ""
    write = points if signed else rate
    return f"{write(low)}{SPACE}…{SPACE}{write(high)}"


def probability(value: float | None) -> str:
    """A p with three decimals."""
    return "< 0.001" if value is not None and value < 0.001 else number(value, ".3f")


def duration(seconds: float | None) -> str:
    """A time as a reader says it: `4.2 s`, `3 min 05 s`, `2 h 40 min`."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def verdict(figures: Row) -> str:
    """`better` or `worse` where the test says so, else `unclear`; without a test it is always unclear."""
    if not figures["change"] or figures["p"] is None or figures["p"] > ALPHA:
        return "unclear"
    return "better" if figures["change"] < 0 else "worse"
