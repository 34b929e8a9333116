"""Tests agree with SciPy's, p-values are never too small, and Holm's correction controls the family-wise error."""

import numpy as np
import pytest
import scipy.stats

from emtta_core.scoring.significance import change_interval, flippable, holm, mean_p, sign_flip_p


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
def test_few_units_match_exact_scipy(seed: int) -> None:
    differences = np.random.default_rng(seed).integers(-3, 5, 11).astype(np.float64)
    differences[differences == 0] = 1
    assert sign_flip_p(differences) == pytest.approx(scipy_p(differences, 4_096), abs=1e-12)


def test_chunked_flips_have_same_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.round(np.random.default_rng(6).normal(0.2, 1.2, 80))
    monkeypatch.setattr("emtta_core.scoring.bootstrap._CHUNK", 80 * 7)
    assert sign_flip_p(differences) == pytest.approx(scipy_p(differences, 10_000), abs=0.02)


@pytest.mark.parametrize("shift", [0.0, 0.15, 0.3])
def test_many_units_approximate_scipy(shift: float) -> None:
    differences = np.round(np.random.default_rng(8).normal(shift, 1.2, 120))
    assert sign_flip_p(differences) == pytest.approx(scipy_p(differences, 10_000), abs=0.03)


def test_p_is_uniform_under_null() -> None:
    generator = np.random.default_rng(9)
    found = [sign_flip_p(generator.normal(0, 1, 30), permutations=499, seed=seed) for seed in range(600)]
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.01


def test_p_is_never_zero_and_one_if_equal() -> None:
    assert sign_flip_p(np.ones(200)) == pytest.approx(1 / 10_001)
    assert sign_flip_p(np.zeros(200)) == 1
    assert sign_flip_p([]) == 1
    assert sign_flip_p([2.0]) == 1  # both signs are equally far from 0
    assert sign_flip_p([1.0, 1.0, 1.0]) == 0.25


def test_zero_differences_do_not_matter() -> None:
    differences = np.random.default_rng(10).normal(0.3, 1, 50)
    assert sign_flip_p(np.concatenate([differences, np.zeros(500)])) == sign_flip_p(differences)


def one_domain(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return differences[:, None].astype(np.float64), np.full((len(differences), 1), 10.0)


def test_symmetric_mean_p_is_students_t() -> None:
    half = np.arange(1.0, 8.0)
    added, words = one_domain(np.concatenate([half, -half]) + 0.8)
    assert mean_p(added, words) == pytest.approx(scipy.stats.ttest_1samp(added[:, 0], 0).pvalue)


def test_mean_p_is_at_least_students_t() -> None:
    for seed in range(50):
        added, words = one_domain(np.random.default_rng(seed).exponential(1, 30) - 0.8)
        assert mean_p(added, words) >= scipy.stats.ttest_1samp(added[:, 0], 0).pvalue - 1e-9
        assert mean_p(added, words) == pytest.approx(mean_p(-added, words)), "the sides can be exchanged"


def test_interval_and_mean_p_agree() -> None:
    significant = 0
    for seed in range(50):
        added, words = one_domain(np.random.default_rng(seed).normal(0.4, 1, 20))
        low, high = change_interval(added, words) or (0.0, 0.0)
        if mean_p(added, words) <= 0.05:
            significant += 1
            assert low > 0 or high < 0
    assert 10 <= significant <= 40, "the seeds must give both kinds of result"


def test_no_spread_falls_back_to_signs() -> None:
    assert mean_p(*one_domain(np.ones(4))) == sign_flip_p(np.ones(4)) == 0.125
    assert mean_p(*one_domain(np.ones(6))) == sign_flip_p(np.ones(6)) == 2 / 2**6
    assert mean_p(*one_domain(np.array([1, 1, 1, 2]))) == 0.125, "four units are too few to estimate an error by"
    assert mean_p(*one_domain(np.zeros(6))) == 1


def test_five_speakers_can_be_significant() -> None:
    added, words = one_domain(np.array([30, 28, 33, 27, 31]))
    assert mean_p(added, words) < 0.001
    assert sign_flip_p(flippable(added, words)) == 2 / 2**5, "which flips of signs alone cannot"


def test_holm_follows_its_procedure() -> None:
    # Holm's procedure, step by step: 4 times 0.01, 3 times 0.02, 2 times 0.03, 0.04, each at least the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.9]) == pytest.approx([1, 1])
    assert holm([0.03]) == pytest.approx([0.03])
    assert len(holm([])) == 0


def test_holm_controls_family_error() -> None:
    generator = np.random.default_rng(11)
    false_alarms = sum(bool((holm(generator.uniform(size=23)) <= 0.05).any()) for _ in range(4_000))
    assert false_alarms / 4_000 == pytest.approx(0.05, abs=0.015)
