"""Simulate how often a year of nightly runs has a false alarm, and how late it detects a drift.

    python benchmarks/false_alarms.py           # some minutes of processor time
    python benchmarks/false_alarms.py --quick   # few nights, as a check; nothing is written

A night has four methods with new random errors, over 23 domains like those of the suite `demo`: 16 with the same
sentences, and 7 with different ones. Most utterances are almost always right or wrong, so that a method's mean WER
varies from night to night by about 0.5 points, as that of em-tok on the demo does from seed to seed. Each night is
compared with the previous one as by `emtta compare`: with Holm's procedure over all methods and, for reference, method
by method. Trends use the SQL of the report `history`.
Tables are printed in Markdown, and written to benchmarks/results/false_alarms.json.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emtta_core.compare import ALL, Cell, corrected
from emtta_core.scoring.paired import ALPHA
from emtta_core.scoring.significance import MIN_EFFECT, holm, mean_p
from emtta_core.store.reports import reports
from emtta_core.trend import NIGHTS, THRESHOLD

RESULTS = Path(__file__).parent / "results" / "false_alarms.json"
METHODS, SHARED, OWN = 4, 16, 7
DOMAINS = SHARED + OWN
WER = 0.22
SPREAD_OF_RATES = 0.43  # parameter of the Beta distribution of error rates: the smaller, the more rates are near 0 or 1
DRIFT, DRIFTING, BEFORE = 0.15, 20, 40  # points a night, nights with a drift, nights before

Floats = NDArray[np.float64]
Row = dict[str, str | float]


class Speech:
    """The utterances of all domains: the words of each in each domain, `(U, D)`, and their error rates."""

    def __init__(self, each: int) -> None:
        """Draw `each` utterances for the domains that share theirs, and as many for each other domain."""
        draw = np.random.default_rng(0)
        units = each * (1 + OWN)
        self.words = np.zeros((units, DOMAINS))
        self.words[:each, :SHARED] = draw.integers(4, 12, each)[:, None]
        for number in range(OWN):
            rows = slice(each * (1 + number), each * (2 + number))
            self.words[rows, SHARED + number] = draw.integers(4, 12, each)
        self.rates = draw.beta(WER * SPREAD_OF_RATES, (1 - WER) * SPREAD_OF_RATES, (units, DOMAINS))

    def errors(self, draw: np.random.Generator, added: float = 0.0) -> Floats:
        """Return a method's errors in one night, `(U, D)`; `added` raises the WER, as a share of all words."""
        rates = self.rates + (1 - self.rates) * added / (1 - WER)
        return draw.binomial(self.words.astype(int), rates).astype(np.float64)

    def wer(self, errors: Floats) -> float:
        """Return the mean WER over the domains, in %."""
        return float(100 * (errors.sum(axis=0) / self.words.sum(axis=0)).mean())


def judge(speech: Speech, before: Floats, after: Floats) -> tuple[dict[str, float], dict[str, float]]:
    """Return, for one method, the p-values of each domain and of the overall mean, and the differences in points."""
    added, p_values, sizes = after - before, dict[str, float](), dict[str, float]()
    for domain in range(DOMAINS):
        spoken = speech.words[:, domain] > 0
        part, over = added[spoken][:, [domain]], speech.words[spoken][:, [domain]]
        p_values[f"d{domain}"], sizes[f"d{domain}"] = mean_p(part, over), float(100 * part.sum() / over.sum())
    p_values[ALL], sizes[ALL] = mean_p(added, speech.words), speech.wer(added)
    return p_values, sizes


def is_worse(p_values: Mapping[Cell, float], sizes: Mapping[Cell, float]) -> bool:
    """Return whether any figure of a night is worse."""
    return any(p <= ALPHA and sizes[cell] > MIN_EFFECT for cell, p in p_values.items())


def by_method(p_values: Mapping[Cell, float]) -> dict[Cell, float]:
    """Apply the previous rule: Holm over the domains of each method, and no correction for the mean."""
    found = {cell: p for cell, p in p_values.items() if cell[0] == ALL}
    for method in {method for _, method in p_values}:
        own = [cell for cell in p_values if cell[1] == method and cell[0] != ALL]
        found |= dict(zip(own, holm([p_values[cell] for cell in own]).tolist(), strict=True))
    return found


def nights(speech: Speech, count: int) -> Row:
    """Return the share of nights with a figure that counts as worse, though nothing changes."""
    draw = np.random.default_rng(1)
    before = [speech.errors(draw) for _ in range(METHODS)]
    alarms = np.zeros(3)
    for _ in range(count):
        after = [speech.errors(draw) for _ in range(METHODS)]
        p_values, sizes = dict[Cell, float](), dict[Cell, float]()
        for method in range(METHODS):
            found, points = judge(speech, before[method], after[method])
            p_values |= {(domain, f"m{method}"): p for domain, p in found.items()}
            sizes |= {(domain, f"m{method}"): size for domain, size in points.items()}
        now = corrected(p_values)
        means = {cell: p for cell, p in now.items() if cell[0] == ALL}
        alarms += [is_worse(by_method(p_values), sizes), is_worse(now, sizes), is_worse(means, sizes)]
        before = after
    before_rule, now_rule, of_means = (100 * alarms / count).tolist()
    return {"nights": count, "method by method, %": before_rule, "over all methods, %": now_rule, "means, %": of_means}


def trends(wers: Floats, threshold: float = THRESHOLD) -> NDArray[np.bool_]:
    """Return whether each night of each series has a trend, `(S, N)`, according to the report `history`."""
    series, length = wers.shape
    connection = duckdb.connect()
    connection.execute("CREATE SCHEMA raw")
    connection.execute(
        "CREATE TABLE raw.runs AS SELECT 'r' || lpad(range::VARCHAR, 5, '0') AS run_id, 's' AS suite, 'm' AS model, "
        f"TIMESTAMP '2026-01-01' + INTERVAL (range) DAY AS created_at, 'p' AS plan_id, 'd' AS model_digest, "
        f"1 AS algorithm_version, '' AS versions, '' AS git_commit, '' AS host FROM range({length})"
    )
    flat = {"night": np.tile(np.arange(length), series), "series": np.repeat(np.arange(series), length)}
    connection.register("drawn", pa.table(flat | {"wer": wers.ravel()}))
    connection.execute(
        "CREATE TABLE groups AS SELECT 'r' || lpad(night::VARCHAR, 5, '0') AS run_id, "
        "'m' || lpad(series::VARCHAR, 5, '0') AS method, 'all' AS \"group\", wer, 0.0 AS change_percent, "
        "0 AS in_error, NULL AS reason_hidden FROM drawn"
    )
    connection.execute(
        "CREATE TABLE planned AS SELECT run_id, method, 'all' AS \"group\", 'd' AS domain, 'c' AS corpus_id FROM groups"
    )
    connection.execute("CREATE TABLE methods (method VARCHAR, rank BIGINT)")
    values = {"run_id": "r00000", "nights": length, "trend_nights": NIGHTS, "trend_z": threshold}
    for name, value in {**values, "min_effect": MIN_EFFECT, "group": None, "method": None}.items():
        connection.execute(f'SET VARIABLE "{name}" = CAST(? AS VARCHAR)', [None if value is None else str(value)])
    found = connection.sql(f"SELECT method, run_id, trend FROM ({reports()['history'].sql}) ORDER BY ALL").fetchall()
    return np.array([trend == "worse" for *_, trend in found]).reshape(series, length)


def years(speech: Speech, count: int, length: int) -> Row:
    """Return the share of years in which any method has a trend, though nothing drifts."""
    draw = np.random.default_rng(2)
    wers = np.array([[speech.wer(speech.errors(draw)) for _ in range(length)] for _ in range(METHODS * count)])
    alarms = np.concatenate([trends(part) for part in np.array_split(wers, count)]).reshape(count, METHODS, length)
    any_method = alarms.any(axis=1)
    new_alarms = any_method & ~np.roll(any_method, 1, axis=1)
    return {
        "years": count,
        "nights": length,
        "sd of a night's WER, points": float(wers.std(axis=1).mean()),
        "years with a trend, %": float(100 * any_method.any(axis=1).mean()),
        "trends a year": float(new_alarms.sum() / count),
    }


def drifts(speech: Speech, count: int) -> Iterator[Row]:
    """Yield how often and how late a drift of one method is detected, for each of three comparisons."""
    draw = np.random.default_rng(3)
    wers, last, fixed = np.zeros((count, BEFORE + DRIFTING)), np.zeros((count, DRIFTING)), np.zeros((count, DRIFTING))
    for one in range(count):
        past = [speech.errors(draw) for _ in range(BEFORE)]
        drifting = [speech.errors(draw, DRIFT * (night + 1) / 100) for night in range(DRIFTING)]
        wers[one] = [speech.wer(errors) for errors in (*past, *drifting)]
        for night, errors in enumerate(drifting):
            previous = drifting[night - 1] if night else past[-1]
            for against, found in ((previous, last), (past[-1], fixed)):
                # The first step of Holm's procedure, for the means.
                p = mean_p(errors - against, speech.words) * METHODS
                found[one, night] = p <= ALPHA and speech.wer(errors - against) > MIN_EFFECT
    ways = {"the night before": last, "a fixed night": fixed, "trend": trends(wers)[:, BEFORE:]}
    for way, found in ways.items():
        seen = found.any(axis=1)
        delay = float(np.median(found.argmax(axis=1)[seen]) + 1) if seen.any() else float("nan")
        yield {"against": way, "drifts": count, "seen": int(seen.sum()), "median night": delay}


def show(title: str, rows: list[Row]) -> None:
    """Print a table in Markdown."""
    print(f"\n{title}\n\n| {' | '.join(rows[0])} |\n|{' --- |' * len(rows[0])}")
    for row in rows:
        print("| " + " | ".join(value if isinstance(value, str) else f"{value:.4g}" for value in row.values()) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few nights, as a check; nothing is written")
    quick = parser.parse_args().quick
    few, many = Speech(12), Speech(50)
    count = 3 if quick else 365
    found = {
        "nights": [{"utterances a domain": each} | nights(speech, count) for each, speech in ((12, few), (50, many))],
        "years": [years(few, 2 if quick else 100, 40 if quick else 365)],
        "drifts": [{"utterances a domain": 12} | row for row in drifts(few, 3 if quick else 30)],
    }
    for title, rows in found.items():
        show(title, rows)
    if not quick:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
