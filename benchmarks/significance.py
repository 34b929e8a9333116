"""Simulate how often intervals cover the truth, and how often tests find a difference where there is none.

    python benchmarks/significance.py           # about eight minutes of processor time
    python benchmarks/significance.py --quick   # few sets, as a check; nothing is written

Prints three tables in Markdown, and writes benchmarks/results/significance.json: the coverage of 95 % intervals if
speakers differ, drawing utterances or speakers; the coverage if utterances are independent; and, for both tests, the
share of sets with p of at most 0.05, if two systems have the same mean (type I error) and if they do not (power). Seeds
are fixed: the same code gives the same tables.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emtta_core.scoring.bootstrap import rate_interval
from emtta_core.scoring.paired import ALPHA, Sample
from emtta_core.scoring.significance import change_interval, mean_p, sign_flip_p

RESULTS = Path(__file__).parent / "results" / "significance.json"
UTTERANCES = (12, 50, 300)
SPEAKERS = (4, 5, 6, 8, 12, 24, 33)
EACH = 20  # utterances per speaker
WER = 0.2
SPREAD = 0.35  # standard deviation of the logarithm of the speakers' WER
SPEAKER_ADVANTAGE = 0.2  # the same for the second system's advantage with each speaker
FLIPS, RESAMPLES = 999, 500

Row = dict[str, str | float]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Speech:
    """Utterances of two systems: the errors of each, and the words, `(N,)`."""

    a: Floats
    b: Floats
    words: Floats


def plain(draw: np.random.Generator, count: int, better: float) -> Speech:
    """Words are misrecognized, in some utterances more than in others."""
    words = draw.integers(4, 25, count)
    hardness = draw.gamma(2.0, 0.5, count)
    a, b = (draw.binomial(words, np.minimum(rate * hardness, 1)) for rate in (WER, WER * (1 - better)))
    return Speech(*(values.astype(np.float64) for values in (a, b, words)))


def heavy(draw: np.random.Generator, count: int, better: float) -> Speech:
    """Most utterances are easy, a few are hopeless, and insertions are unlimited."""
    words = draw.integers(4, 40, count)
    hardness = draw.gamma(1.0, 1.0, count)
    a, b = (draw.poisson(rate * hardness * words) for rate in (WER, WER * (1 - better)))
    return Speech(*(values.astype(np.float64) for values in (a, b, words)))


LOOP_RATE, LOOP_WORDS = 0.01, 20


def loops(draw: np.random.Generator, count: int, better: float) -> Speech:
    """The second system corrects a word in some utterances, and adds a loop of words to one in a hundred."""
    first = plain(draw, count, 0)
    fixed_words = LOOP_RATE * LOOP_WORDS + better * WER * 14  # words per utterance, with 14 words on average
    a = first.a + (draw.random(count) < fixed_words)
    return Speech(a, first.a + LOOP_WORDS * (draw.random(count) < LOOP_RATE), first.words)


KINDS: Mapping[str, Callable[[np.random.Generator, int, float], Speech]] = {
    "plain": plain,
    "heavy": heavy,
    "loops": loops,
}


def of_speakers(draw: np.random.Generator, speakers: int, better: float) -> Speech:
    """Return `EACH` utterances per speaker; speakers differ in difficulty, and in which system suits them."""
    words = draw.integers(4, 25, speakers * EACH)
    ease = np.exp(draw.normal(0, SPREAD, speakers) - SPREAD**2 / 2)
    suits = np.exp(draw.normal(0, SPEAKER_ADVANTAGE, speakers) - SPEAKER_ADVANTAGE**2 / 2) * (1 - better)
    a, b = (draw.binomial(words, np.minimum(WER * rate.repeat(EACH), 1)) for rate in (ease, ease * suits))
    return Speech(*(values.astype(np.float64) for values in (a, b, words)))


def speaker_coverage(sets: int) -> Iterator[Row]:
    """Yield the coverage of intervals for one domain by number of speakers, and for a mean over six domains of four."""
    for domains, speakers in (*((1, count) for count in SPEAKERS), (6, 4)):
        draw = np.random.default_rng(speakers + 100 * domains)
        hits = np.zeros(4)
        drawn = ""
        for _ in range(sets):
            parts = [of_speakers(draw, speakers, 0.1) for _ in range(domains)]
            names = [f"d{domain}" for domain in range(domains) for _ in range(speakers * EACH)]
            ids = [str(index) for index in range(len(names))]
            voices = [f"{name}-{index % (speakers * EACH) // EACH}" for index, name in enumerate(names)]
            a, b, words = (np.concatenate([getattr(part, side) for part in parts]) for side in ("a", "b", "words"))
            domain_names = [f"d{domain}" for domain in range(domains)]
            for column, unit_speakers in enumerate(([""] * len(names), voices)):
                rate = Sample(names, ids, unit_speakers, np.stack([b, words], axis=1)).rate(domain_names)
                change = Sample(names, ids, unit_speakers, np.stack([a, b, words], axis=1)).change(domain_names)
                hits[column] += rate.low <= 100 * WER * 0.9 <= rate.high
                hits[2 + column] += change.low <= -100 * WER * 0.1 <= change.high
                drawn = rate.drawn
        wer_utterances, wer, change_utterances, change_now = (100 * hits / sets).tolist()
        yield {
            "domains": domains,
            "speakers of each": speakers,
            "drawn": drawn,
            "WER, utterances drawn": wer_utterances,
            "WER": wer,
            "change, utterances drawn": change_utterances,
            "change": change_now,
        }


def coverage(sets: int) -> Iterator[Row]:
    """Yield the coverage of intervals for independent utterances."""
    for kind, simulate in KINDS.items():
        population = simulate(np.random.default_rng(0), 2_000_000, 0.1)
        words = population.words.sum()
        truths = 100 * population.b.sum() / words, 100 * (population.b - population.a).sum() / words
        for count in UTTERANCES:
            draw = np.random.default_rng(count)
            hits = np.zeros(2)
            for seed in range(sets):
                speech = simulate(draw, count, 0.1)
                b, added, over = (values[:, None] for values in (speech.b, speech.b - speech.a, speech.words))
                ends = rate_interval(b, over, resamples=RESAMPLES, seed=seed), change_interval(added, over)
                hits += [low <= truth <= high for (low, high), truth in zip(ends, truths, strict=True)]
            rate, change = (100 * hits / sets).tolist()
            yield {"errors": kind, "utterances": count, "WER": rate, "change": change}


def tests(sets: int) -> Iterator[Row]:
    """Yield how often each test finds a difference, where there is none and where there is one."""

    def found(added: Floats, words: Floats, seed: int) -> list[bool]:
        table = added[:, None], words[:, None]
        return [sign_flip_p(added, permutations=FLIPS, seed=seed) <= ALPHA, mean_p(*table) <= ALPHA]

    for kind, simulate in KINDS.items():
        for count in UTTERANCES:
            shares = []
            for better in (0.0, 0.2):
                draw = np.random.default_rng(count)
                hits = np.zeros(2)
                for seed in range(sets):
                    speech = simulate(draw, count, better)
                    hits += found(speech.b - speech.a, speech.words, seed)
                shares += (100 * hits / sets).tolist()
            yield _tested(kind, count, "utterances", shares)
    for speakers in SPEAKERS:
        shares = {"utterances": [], "speakers": []}
        for better in (0.0, 0.2):
            draw = np.random.default_rng(speakers)
            hits = np.zeros((2, 2))
            for seed in range(sets):
                speech = of_speakers(draw, speakers, better)
                added = speech.b - speech.a
                hits[0] += found(added, speech.words, seed)
                hits[1] += found(*(values.reshape(-1, EACH).sum(axis=1) for values in (added, speech.words)), seed)
            for drawn, each in zip(shares, (100 * hits / sets).tolist(), strict=True):
                shares[drawn] += each
        for drawn, each in shares.items():
            yield _tested("speakers differ", speakers, drawn, each)


def _tested(kind: str, count: int, drawn: str, shares: Sequence[float]) -> Row:
    names = ("sign-flip, equal", "mean, equal", "sign-flip, 20 % better", "mean, 20 % better")
    return {"errors": kind, "count": count, "drawn": drawn, **dict(zip(names, shares, strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few sets, as a check; nothing is written")
    quick = parser.parse_args().quick
    found: dict[str, list[Row]] = {}
    for measure, sets in ((tests, 2_000), (speaker_coverage, 1_000), (coverage, 1_000)):
        sets = 3 if quick else sets
        name = measure.__name__.replace("_", " ")
        print(f"\n{name}: % of {sets:,} sets\n")
        rows = found[name] = []
        for row in measure(sets):
            if not rows:
                print(f"| {' | '.join(row)} |\n|{' --- |' * len(row)}")
            rows.append(row)
            cells = (f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values())
            print(f"| {' | '.join(cells)} |", flush=True)
    if not quick:
        RESULTS.write_text(json.dumps({"alpha": ALPHA, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
