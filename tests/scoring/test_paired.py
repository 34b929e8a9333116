"""Speakers are resampled if the summarised domains have at least five, and a note says where they are not."""

import numpy as np
import pytest

from emtta_core.scoring.paired import Change, Rate, Sample
from emtta_core.scoring.significance import change_interval, mean_p

NOTE = "the interval does not reflect how speakers differ"


def sample(*domains: int, each: int = 3, unknown: tuple[int, ...] = ()) -> Sample:
    """Domains with these numbers of speakers, each in one domain, and random errors."""
    names, utterances, speakers, counts = [], [], [], []
    draw = np.random.default_rng(sum(domains))
    for number, many in enumerate(domains):
        for voice in range(many):
            for index in range(each):
                names.append(f"d{number}")
                utterances.append(f"{number}-{voice}-{index}")
                speakers.append("" if number in unknown else f"{number}-{voice}")
                counts.append((*draw.integers(0, 5, 2), 10))
    return Sample(names, utterances, speakers, counts)


def both(of: Sample) -> tuple[Rate, Change]:
    return of.rate(of.domains), of.change(of.domains)


@pytest.mark.parametrize(
    ("speakers", "drawn", "units", "note"),
    [
        ((5,), "speakers", 5, None),
        ((33,), "speakers", 33, None),
        ((4,), "utterances", 12, f"4 speakers: {NOTE}"),
        ((1,), "utterances", 3, f"1 speaker: {NOTE}"),
        ((2, 2), "utterances", 12, f"4 speakers: {NOTE}"),
        ((4,) * 6, "speakers", 24, None),
        ((1,) * 6, "utterances", 18, f"6 speakers, too few in each of 6 domains: {NOTE}"),
        ((4, 4, 1), "both", 11, f"1 of 3 domains have one speaker or unknown ones: {NOTE} in them"),
    ],
)
def test_speaker_counts_decide_the_unit(speakers: tuple[int, ...], drawn: str, units: int, note: str | None) -> None:
    for found in both(sample(*speakers)):
        assert (found.drawn, found.units, found.note) == (drawn, units, note)


def test_unknown_speakers_are_noted() -> None:
    for found in both(sample(8, unknown=(0,))):
        assert (found.drawn, found.note) == ("utterances", f"unknown speakers: {NOTE}")
    for found in both(sample(8, 8, unknown=(1,))):
        assert (found.drawn, found.units) == ("both", 8 + 24)


def test_group_of_small_domains_draws_speakers() -> None:
    accents = sample(*(4,) * 6)
    assert accents.change(["d0"]).drawn == "utterances"
    assert accents.change(["d0", "d1"]).drawn == "speakers"


def test_speaker_is_one_unit_across_noises() -> None:
    names = [f"noise{number}" for number in range(8) for _ in range(30)]
    ids, voices = [f"u{index}" for index in range(30)] * 8, [f"s{index % 6}" for index in range(30)] * 8
    counts = np.random.default_rng(1).integers(0, 5, (240, 2))
    found = Sample(names, ids, voices, [(*pair, 10) for pair in counts]).change(
        [f"noise{number}" for number in range(8)]
    )
    assert (found.drawn, found.units, found.utterances) == ("speakers", 6, 240)


def test_change_is_computed_over_units() -> None:
    accents = sample(6)
    found = accents.change(["d0"])
    draw = np.random.default_rng(6)
    counts = np.array([draw.integers(0, 5, 2) for _ in range(18)]).reshape(6, 3, 2).sum(axis=1)
    added, words = (counts[:, 1] - counts[:, 0])[:, None].astype(float), np.full((6, 1), 30.0)
    assert (found.low, found.high) == pytest.approx(change_interval(added, words))
    assert found.p == pytest.approx(mean_p(added, words))


def test_mean_counts_are_accepted() -> None:
    errors = [(1 / 3, 2 / 3), (0.5, 0.5), (2.0, 1.5)] * 4
    of = Sample(["d"] * 12, [str(n) for n in range(12)], [""] * 12, [(*pair, 10) for pair in errors])
    found = of.change(["d"])
    assert (found.wins, found.ties, found.losses) == (4, 4, 4)
    assert found.difference == pytest.approx(100 * 4 * (1 / 3 - 0.5) / 120)
