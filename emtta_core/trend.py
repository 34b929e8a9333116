"""The trend watch: detects a gradual rise of a method's WER from night to night, in steps too small to be noticed.

The report `history` implements the test (`sql/reports/history.sql`); docs/statistics.md gives its false-alarm rate and
its delay in detecting a drift.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from emtta_core.errors import UsageError
from emtta_core.scoring.significance import MIN_EFFECT, MinEffect
from emtta_core.store import Catalogue, Store

NIGHTS = 30
"""The most nights over which a trend is sought."""

MIN_NIGHTS = 3
"""The fewest nights in which a trend can be detected."""

THRESHOLD = 3.8
"""The least z of a trend: with four methods, there is a false one in one year out of twenty."""


@dataclass(frozen=True, slots=True)
class Trend:
    """The trend of a method's mean WER over all domains, over some nights."""

    method: str  # the method
    state: str  # `worse`, `none`, or `too few, 4 of 10`
    nights: int  # number of nights watched
    drift: float | None  # rise in points; None for too few nights
    z: float | None  # test statistic, in standard errors
    wer: float  # WER of the last night, %
    is_new: bool  # whether it is worse now, but was not the night before

    @property
    def is_worse(self) -> bool:
        """Whether its WER has risen."""
        return self.state == "worse"

    def __str__(self) -> str:
        if self.drift is None:
            return f"{self.method}: {self.state} nights"
        found = "getting worse" if self.is_worse else "no trend for the worse"
        return f"{self.method}: {found}, {self.drift:+.2f} points over {self.nights} nights (z {self.z:.1f})"


@dataclass(frozen=True, slots=True)
class Watch:
    """The trends of all methods of a run."""

    run_id: str  # the last of the nights
    threshold: float  # the least z of a trend
    trends: tuple[Trend, ...]  # method by method

    @property
    def worse(self) -> tuple[Trend, ...]:
        """The trends for the worse."""
        return tuple(trend for trend in self.trends if trend.is_worse)

    @property
    def new(self) -> tuple[Trend, ...]:
        """The trends for the worse that are new this night."""
        return tuple(trend for trend in self.trends if trend.is_new)

    @property
    def summary(self) -> str:
        """The findings in one line."""
        if not self.trends:
            return "trend watch: no method has a mean over all its domains"
        if all(trend.drift is None for trend in self.trends):
            return f"trend watch: {self.trends[0].state} nights with the same speech"
        nights = max(trend.nights for trend in self.trends)
        if not self.worse:
            return f"trend watch: no method has got worse over the last {nights} nights"
        return f"trend watch: {'; '.join(map(str, self.worse))}"

    def as_dict(self) -> list[dict[str, Any]]:
        """The trends as plain JSON values."""
        return [asdict(trend) for trend in self.trends]

    def markdown(self) -> str:
        """The trends in Markdown."""
        return "\n".join(["## Trend", "", f"{self.summary}.", "", *(f"- {trend}" for trend in self.trends), ""])


def watch(
    store: Store,
    run_id: str,
    *,
    nights: int = NIGHTS,
    threshold: float = THRESHOLD,
    min_effect: float | str = MIN_EFFECT,
) -> Watch:
    """Look for a trend for the worse in the runs of one suite and model up to a run, over those with its speech.

    Args:
        store: the store with the runs.
        run_id: the last of the runs.
        nights: the most runs to watch.
        threshold: the least z of a trend.
        min_effect: the size that a drift must exceed, as accepted by `MinEffect.read`.

    Raises:
        UsageError: no such run, or `nights`, `threshold` or `min_effect` is out of range.
    """
    min_change = check_trend(nights, threshold, min_effect)
    values = {"trend_nights": nights, "trend_z": f"{threshold:f}", "min_effect": min_change.value}
    with Catalogue(store) as catalogue:
        every = catalogue.query(
            "SELECT count(*) FROM raw.runs AS one INNER JOIN raw.runs AS this USING (suite, model) "
            "WHERE this.run_id = $run AND one.created_at >= this.created_at",
            {"run": run_id},
        ).rows[0][0]
        # Up to this run and the one before it: more only if there are later runs already.
        rows = catalogue.report("history", run_id, nights=every + 1, **values).records
    return Watch(run_id, threshold, tuple(_trends(rows, run_id)))


def check_trend(nights: int, threshold: float, min_effect: float | str) -> MinEffect:
    """Check the parameters of the trend watch, and return the parsed minimum effect.

    Raises:
        UsageError: `nights`, `threshold` or `min_effect` is out of range.
    """
    if not MIN_NIGHTS <= nights <= 1000:
        raise UsageError(f"the trend is sought over {nights} nights; give a number from {MIN_NIGHTS} to 1000")
    if not 0 <= threshold < math.inf:
        raise UsageError(f"the threshold of a trend is {threshold:g}; give a number from 0, such as {THRESHOLD:g}")
    return MinEffect.read(min_effect)


def _trends(rows: Sequence[dict[str, Any]], run_id: str) -> list[Trend]:
    # The trends of a run; `rows` are of the report `history`, by date.
    tonight = [row for row in rows if row["run_id"] == run_id and row["trend"] is not None]
    earlier = itertools.takewhile(lambda row: row["run_id"] != run_id, rows)
    previous = {row["method"]: row["trend"] for row in earlier}
    return [
        Trend(
            method=row["method"],
            state=row["trend"],
            nights=row["watched"],
            drift=row["drift"],
            z=row["z"],
            wer=row["wer"],
            is_new=row["trend"] == "worse" and previous.get(row["method"]) != "worse",
        )
        for row in tonight
    ]
