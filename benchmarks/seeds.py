"""Check whether intervals include the variance of seeds: simulated changes of WER with a known truth.

    python benchmarks/seeds.py --simulations 400

Utterances are drawn from a population: each has words, and error probabilities per word without and with adaptation.
The source's errors are drawn once per utterance, those of a sampling method once per utterance and seed, because its
random numbers derive from both. The table shows how often the 95 % interval of the change covers the population's
change, if utterances are drawn with their mean errors over the seeds, as emtta does, and if each seed of an utterance
is treated as a separate utterance, like new speech.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from emtta_core.scoring.significance import change_interval

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Coverage:
    """The share of intervals that cover the truth, and the standard deviation of the WER over seeds, in points."""

    averaged: float  # with an utterance's mean errors over its seeds
    as_utterances: float  # with each seed as a separate utterance
    seed_sd: float  # of the same utterances' WER


def draw(utterances: int, seeds: int, rng: np.random.Generator) -> tuple[Numbers, Numbers, Numbers]:
    """Draw words `(U,)`, the source's errors `(U,)`, and the method's errors by seed `(U, S)`."""
    words = rng.integers(3, 15, utterances)
    before = rng.beta(0.7, 2.0, utterances)
    after = before * rng.beta(8.0, 2.0, utterances)
    source = rng.binomial(words, before)
    adapted = rng.binomial(words[:, None], after[:, None], (utterances, seeds))
    return words.astype(float), source.astype(float), adapted.astype(float)


def coverage(utterances: int, seeds: int, simulations: int, rng: np.random.Generator) -> Coverage:
    """Simulate evaluations with these numbers of utterances and seeds."""
    words, source, adapted = draw(2_000_000, 1, rng)
    truth = 100 * (adapted.sum() - source.sum()) / words.sum()
    covered, spreads = np.zeros((simulations, 2)), []
    for number in range(simulations):
        words, source, adapted = draw(utterances, seeds, rng)
        added = adapted - source[:, None]
        spreads.append((100 * adapted.sum(axis=0) / words.sum()).std(ddof=1) if seeds > 1 else np.nan)
        ways = ((added.mean(axis=1), words), (added.ravel(), np.repeat(words, seeds)))
        for way, (of_unit, in_words) in enumerate(ways):
            low, high = change_interval(of_unit[:, None], in_words[:, None]) or (np.nan, np.nan)
            covered[number, way] = low <= truth <= high
    averaged, as_utterances = covered.mean(axis=0)
    return Coverage(float(averaged), float(as_utterances), float(np.mean(spreads)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=400, help="simulations per row (default: 400)")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    table = Table("utterances", "seeds", "sd over seeds, points", "averaged over seeds", "a seed as an utterance")
    for utterances in (12, 50, 300):
        for seeds in (1, 3, 10):
            found = coverage(utterances, seeds, arguments.simulations, rng)
            rates = (f"{100 * rate:.1f} %" for rate in (found.averaged, found.as_utterances))
            table.add_row(str(utterances), str(seeds), f"{found.seed_sd:.2f}" if seeds > 1 else "", *rates)
    Console().print(table)


if __name__ == "__main__":
    main()
