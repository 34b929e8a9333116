"""Intervals cover what they say, tests agree with SciPy's, and Holm holds the family together."""

import numpy as np
import pytest
import scipy.stats

from emtta_core.scoring.significance import holm, percentile_interval, resampled_sums, sign_flip_p


def utterances(generator: np.random.Generator, count: int, rates: tuple[float, float]) -> np.ndarray:
    """Return errors of A, errors of B, and words of utterances whose errors go together, `(N, 3)`."""
    words = generator.integers(4, 25, count)
    hardness = generator.gamma(2.0, 0.5, count)  # of mean 1, shared by A and B: what pairing is for
    errors = [generator.binomial(words, np.minimum(rate * hardness, 1)) for rate in rates]
    return np.stack([*errors, words], axis=1).astype(np.float64)


def difference(sums: np.ndarray) -> np.ndarray:
    """Return WER of B less that of A, %, from sums `(…, 3)`."""
    return 100 * (sums[..., 1] - sums[..., 0]) / sums[..., 2]


def interval(table: np.ndarray, strata: np.ndarray, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    low, high = percentile_interval(difference(resampled_sums(table, strata, resamples=resamples, seed=seed)))
    return float(low), float(high)


@pytest.mark.parametrize("count", [50, 100])
def test_a_95_percent_interval_covers_the_difference_in_93_to_97_of_100_sets(count: int) -> None:
    generator = np.random.default_rng(1)
    truth = float(difference(utterances(generator, 2_000_000, (0.20, 0.24)).sum(axis=0)))
    hits = 0
    for seed in range(2_000):
        low, high = interval(utterances(generator, count, (0.20, 0.24)), np.zeros(count, np.int64), seed=seed)
        hits += low <= truth <= high
    assert 0.93 <= hits / 2_000 <= 0.97


def test_by_speaker_it_covers_where_by_utterance_it_does_not() -> None:
    generator = np.random.default_rng(2)
    speakers, each, sets = 40, 10, 1_000
    by_speaker = by_utterance = 0
    for seed in range(sets):
        shift = generator.normal(0, 0.05, speakers).repeat(each)  # B suits some speakers and not others
        words = np.full(speakers * each, 20)
        a, b = generator.binomial(words, 0.2), generator.binomial(words, np.clip(0.2 + shift, 0, 1))
        table = np.stack([a, b, words], axis=1).astype(np.float64)
        low, high = interval(table.reshape(speakers, each, 3).sum(axis=1), np.zeros(speakers, np.int64), 500, seed)
        by_speaker += low <= 0 <= high
        low, high = interval(table, np.zeros(len(table), np.int64), 500, seed)
        by_utterance += low <= 0 <= high
    assert by_speaker / sets > 0.91
    assert by_utterance < by_speaker - 20


def test_the_interval_is_that_of_scipy() -> None:
    table = utterances(np.random.default_rng(3), 150, (0.2, 0.25))
    found = interval(table, np.zeros(150, np.int64), resamples=20_000)
    theirs = scipy.stats.bootstrap(
        tuple(table.T),
        lambda a, b, words, axis: 100 * (b.sum(axis) - a.sum(axis)) / words.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        batch=1_000,
        rng=np.random.default_rng(4),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found == pytest.approx(tuple(theirs), abs=0.03 * width)


def test_a_stratum_keeps_its_size() -> None:
    strata = np.array([0] * 7 + [1] * 3 + [2])
    membership = np.eye(3)[strata]
    assert (resampled_sums(membership, strata, resamples=50) == [7, 3, 1]).all()


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    table, strata = utterances(np.random.default_rng(5), 60, (0.2, 0.3)), np.zeros(60, np.int64)
    assert interval(table, strata, seed=1) == interval(table, strata, seed=1)
    assert interval(table, strata, seed=1) != interval(table, strata, seed=2)


def test_what_is_drawn_in_parts_is_drawn_by_the_same_law(monkeypatch: pytest.MonkeyPatch) -> None:
    table, strata = utterances(np.random.default_rng(6), 80, (0.2, 0.3)), np.zeros(80, np.int64)
    whole = interval(table, strata, 5_000)
    monkeypatch.setattr("emtta_core.scoring.significance._CHUNK", 80 * 7)
    assert interval(table, strata, 5_000) == pytest.approx(whole, abs=0.4)
    assert sign_flip_p(table[:, 1] - table[:, 0]) == pytest.approx(scipy_p(table[:, 1] - table[:, 0], 10_000), abs=0.02)


def scipy_p(differences: np.ndarray, resamples: int) -> float:
    return float(
        scipy.stats.permutation_test(
            (differences,),
            lambda values, axis: values.sum(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=resamples,
            rng=np.random.default_rng(7),
        ).pvalue
    )


@pytest.mark.parametrize("seed", range(5))
def test_with_few_units_every_sign_is_tried_as_scipy_does(seed: int) -> None:
    differences = np.random.default_rng(seed).integers(-3, 5, 11).astype(np.float64)
    differences[differences == 0] = 1
    assert sign_flip_p(differences) == pytest.approx(scipy_p(differences, 4_096), abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.15, 0.3])
def test_with_many_units_p_is_close_to_that_of_scipy(shift: float) -> None:
    differences = np.round(np.random.default_rng(8).normal(shift, 1.2, 120))
    assert sign_flip_p(differences) == pytest.approx(scipy_p(differences, 10_000), abs=0.03)


def test_where_nothing_changed_p_is_uniform() -> None:
    generator = np.random.default_rng(9)
    found = [sign_flip_p(generator.normal(0, 1, 30), permutations=499, seed=seed) for seed in range(600)]
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.01


def test_p_is_never_zero_and_one_where_there_is_no_difference() -> None:
    assert sign_flip_p(np.ones(200)) == pytest.approx(1 / 10_001)
    assert sign_flip_p(np.zeros(200)) == 1
    assert sign_flip_p([]) == 1
    assert sign_flip_p([2.0]) == 1  # either sign is as far from 0
    assert sign_flip_p([1.0, 1.0, 1.0]) == 0.25


def test_units_without_a_difference_change_nothing() -> None:
    differences = np.random.default_rng(10).normal(0.3, 1, 50)
    assert sign_flip_p(np.concatenate([differences, np.zeros(500)])) == sign_flip_p(differences)


def test_holm_multiplies_the_smallest_by_all_and_never_falls() -> None:
    # Holm's own procedure, step by step: 4 of 0.01, 3 of 0.02, 2 of 0.03, 1 of 0.04, each at least the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.9]) == pytest.approx([1, 1])
    assert holm([0.03]) == pytest.approx([0.03])
    assert len(holm([])) == 0


def test_holm_keeps_a_family_of_true_hypotheses_at_alpha() -> None:
    generator = np.random.default_rng(11)
    false_alarms = sum(bool((holm(generator.uniform(size=23)) <= 0.05).any()) for _ in range(4_000))
    assert false_alarms / 4_000 == pytest.approx(0.05, abs=0.015)
