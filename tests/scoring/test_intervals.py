"""A 95 % interval contains the truth in 93 to 97 % of simulated sets, from 20 utterances on and with heavy tails."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats

from emtta_core.scoring.bootstrap import rate_interval, resampled_sums, strata_of
from emtta_core.scoring.significance import change_interval, student_p, student_quantile

SETS = 2_000
Simulation = Callable[[np.random.Generator, int], np.ndarray]
"""Simulates the errors of A, the errors of B, and the words of utterances, `(N, 3)`."""


def plain(generator: np.random.Generator, count: int) -> np.ndarray:
    """Word errors, more in some utterances than in others, which is what pairing is for."""
    words = generator.integers(4, 25, count)
    hardness = generator.gamma(2.0, 0.5, count)
    errors = [generator.binomial(words, np.minimum(rate * hardness, 1)) for rate in (0.20, 0.24)]
    return np.stack([*errors, words], axis=1).astype(np.float64)


def heavy(generator: np.random.Generator, count: int) -> np.ndarray:
    """Overdispersed counts: most utterances are easy, a few are hopeless, and insertions are unbounded."""
    words = generator.integers(4, 40, count)
    hardness = generator.gamma(1.0, 1.0, count)
    errors = [generator.poisson(rate * hardness * words) for rate in (0.20, 0.24)]
    return np.stack([*errors, words], axis=1).astype(np.float64)


def covered(simulate: Simulation, count: int, sets: int, resamples: int) -> tuple[float, float]:
    """The shares of simulated sets whose intervals contain the true WER of B, and its true difference from A's."""
    generator = np.random.default_rng(count)
    a, b, words = simulate(generator, 500_000).sum(axis=0)
    rate, change = 100 * b / words, 100 * (b - a) / words
    hits = np.zeros(2)
    for seed in range(sets):
        a, b, words = simulate(generator, count)[:, :, None].transpose(1, 0, 2)
        for index, (truth, found) in enumerate(
            (
                (rate, rate_interval(b, words, resamples=resamples, seed=seed)),
                (change, change_interval(b - a, words)),
            )
        ):
            assert found is not None
            hits[index] += found[0] <= truth <= found[1]
    return float(hits[0] / sets), float(hits[1] / sets)


@pytest.mark.parametrize("simulate", [plain, heavy])
def test_coverage_is_93_to_97_percent(simulate: Simulation) -> None:
    for share in covered(simulate, 20, 800, resamples=600):
        assert 0.93 <= share <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("simulate", [plain, heavy])
@pytest.mark.parametrize("count", [20, 50, 100, 300])
def test_coverage_holds_with_all_resamples(simulate: Simulation, count: int) -> None:
    for share in covered(simulate, count, SETS, resamples=2_000):
        assert 0.93 <= share <= 0.97


def test_mean_over_shared_utterances_is_covered() -> None:
    generator = np.random.default_rng(1)
    hits, sets, domains = np.zeros(2), 500, 4
    for seed in range(sets):
        hardness = generator.gamma(2.0, 0.5, (30, 1))  # of an utterance, the same under every noise
        words = np.repeat(generator.integers(4, 25, (30, 1)), domains, axis=1).astype(np.float64)
        a, b = (generator.poisson(0.2 * hardness * words).astype(np.float64) for _ in "ab")
        rate, change = rate_interval(b, words, resamples=300, seed=seed), change_interval(b - a, words)
        assert rate is not None
        assert change is not None
        hits += [rate[0] <= 20 <= rate[1], change[0] <= 0 <= change[1]]
    assert (hits / sets >= 0.92).all()
    assert (hits / sets <= 0.98).all()


def test_speaker_units_have_right_coverage() -> None:
    generator = np.random.default_rng(2)
    speakers, each, sets = 20, 10, 400
    by_speaker = by_utterance = 0
    for _ in range(sets):
        shift = generator.normal(0, 0.05, speakers).repeat(each)  # B is better for some speakers and worse for others
        words = np.full(speakers * each, 20.0)
        added = generator.binomial(20, np.clip(0.2 + shift, 0, 1)) - generator.binomial(20, 0.2, speakers * each)
        for unit in ((speakers, each), (speakers * each, 1)):
            table = [values.reshape(unit).sum(axis=1, keepdims=True).astype(np.float64) for values in (added, words)]
            found = change_interval(table[0], table[1])
            assert found is not None
            hit = found[0] <= 0 <= found[1]
            by_speaker += hit if unit[0] == speakers else 0
            by_utterance += hit if unit[0] != speakers else 0
    assert by_speaker / sets > 0.92
    assert by_utterance < by_speaker - 20


def test_change_interval_matches_jackknife() -> None:
    a, b, words = plain(np.random.default_rng(3), 40)[:, :, None].transpose(1, 0, 2)

    def without(index: int) -> float:
        left = np.arange(40) != index
        return float(100 * (b[left] - a[left]).sum() / words[left].sum())

    error = np.sqrt(39 / 40 * np.var([without(index) for index in range(40)]) * 40)
    change, width = 100 * (b - a).sum() / words.sum(), scipy.stats.t.ppf(0.975, 39) * error
    assert change_interval(b - a, words) == pytest.approx((change - width, change + width), rel=1e-9)


def test_change_interval_is_near_bootstrap() -> None:
    a, b, words = plain(np.random.default_rng(3), 40)[:, :, None].transpose(1, 0, 2)
    low, high = change_interval(b - a, words) or (0.0, 0.0)
    error = scipy.stats.bootstrap(
        (a[:, 0], b[:, 0], words[:, 0]),
        lambda a, b, words, axis: 100 * (b.sum(axis) - a.sum(axis)) / words.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        batch=1_000,
        method="percentile",
        rng=np.random.default_rng(4),
    ).standard_error
    assert (high - low) / 2 == pytest.approx(np.sqrt(40 / 39) * scipy.stats.t.ppf(0.975, 39) * error, rel=0.05)


def test_rate_interval_matches_scipy() -> None:
    _, errors, words = plain(np.random.default_rng(5), 40)[:, :, None].transpose(1, 0, 2)

    def rate_and_error(errors: np.ndarray, words: np.ndarray) -> tuple[float, float]:
        """The WER and its standard error, from the variance of what each utterance adds to the rate."""
        rate = errors.sum() / words.sum()
        added = (errors - rate * words) / words.mean()
        return float(100 * rate), float(100 * np.sqrt(added.var(ddof=1) / len(added)))

    rate, error = rate_and_error(errors, words)

    def studentised(errors: np.ndarray, words: np.ndarray) -> float:
        again, width = rate_and_error(errors, words)
        return (again - rate) / width

    drawn = scipy.stats.bootstrap(
        (errors[:, 0], words[:, 0]),
        studentised,
        paired=True,
        vectorized=False,
        n_resamples=8_000,
        method="percentile",
        rng=np.random.default_rng(6),
    ).bootstrap_distribution
    high, low = np.quantile(drawn, [0.025, 0.975])
    theirs = (rate - low * error, rate - high * error)
    found = rate_interval(errors, words, resamples=20_000)
    assert found == pytest.approx(theirs, abs=0.05 * (theirs[1] - theirs[0]))


def test_few_errors_stay_finite() -> None:
    errors, words = np.zeros((12, 1)), np.full((12, 1), 8.0)
    assert rate_interval(errors, words) == (0.0, 0.0)
    errors[0] = 3  # a third of the resamples have no errors, and a standard error of 0
    low, high = rate_interval(errors, words) or (-1.0, -1.0)
    assert 0 <= low < 100 * 3 / 96 < high < 25


def test_fewer_than_five_units_have_no_interval() -> None:
    four, five = np.ones((4, 1)), np.ones((5, 1))
    assert (rate_interval(four, four), change_interval(four, four)) == (None, None)
    assert rate_interval(five, 4 * five) == change_interval(five, 4 * five) == (25.0, 25.0)


def test_seed_determines_draws() -> None:
    _, errors, words = plain(np.random.default_rng(7), 60)[:, :, None].transpose(1, 0, 2)
    assert rate_interval(errors, words, seed=1) == rate_interval(errors, words, seed=1)
    assert rate_interval(errors, words, seed=1) != rate_interval(errors, words, seed=2)


def test_stratum_keeps_size() -> None:
    strata = np.array([0] * 7 + [1] * 3 + [2])
    membership = np.eye(3)[strata]
    assert (resampled_sums(membership, strata, resamples=50) == [7, 3, 1]).all()


def test_chunked_draws_have_same_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    _, errors, words = plain(np.random.default_rng(8), 80)[:, :, None].transpose(1, 0, 2)
    whole = rate_interval(errors, words, resamples=5_000)
    monkeypatch.setattr("emtta_core.scoring.bootstrap._CHUNK", 80 * 7)
    assert rate_interval(errors, words, resamples=5_000) == pytest.approx(whole, abs=0.4)


def test_partial_error_keeps_utterance() -> None:
    words = np.full((30, 3), 8.0)
    words[4, 1] = words[9, 2] = 0
    assert (strata_of(words) == 0).all()
    apart = np.zeros((30, 2))
    apart[:20, 0] = apart[20:, 1] = 8
    assert len(set(strata_of(apart))) == 2
    nested = np.full((30, 2), 8.0)
    nested[5:, 1] = 0  # the second domain has 5 of the 30, and keeps 5 in every resample
    assert np.bincount(strata_of(nested)).tolist() in ([5, 25], [25, 5])


def test_rare_domain_stays_finite() -> None:
    words = np.array([[4.0, 4.0], [4.0, 4.0], [4.0, 4.0], [4.0, 0.0], [4.0, 0.0]])  # 2 of 5 lack the second domain
    errors = np.array([[1.0, 2.0], [0.0, 1.0], [2.0, 2.0], [1.0, 0.0], [0.0, 0.0]])
    for found in (rate_interval(errors, words), change_interval(errors, words)):
        assert found is not None
        assert np.isfinite(found).all()


def test_lone_units_join_neighbours() -> None:
    words = np.array([[4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])  # one speaker in both domains, one more in each
    assert len(set(strata_of(words))) == 1
    alone = np.array([[4.0, 0.0], [0.0, 4.0], [0.0, 4.0]])
    assert len(set(strata_of(alone))) == 2, "the first unit shares no domain with another"


def test_student_matches_scipy() -> None:
    for freedom in (1, 2.3, 5, 12.5, 40, 300, 1e5):
        assert student_quantile(0.975, freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=1e-8)
        for t in (0.0, 0.3, 1.0, 2.5, 40.0):
            assert student_p(t, freedom) == pytest.approx(2 * scipy.stats.t.sf(t, freedom), abs=1e-9)
    assert student_p(np.inf, 3) == 0


def test_strata_add_variances_and_freedom() -> None:
    added = np.random.default_rng(9).normal(0, 1, (40, 1))
    apart, both = np.zeros((40, 2)), np.zeros((40, 2))
    apart[:20, [0]], apart[20:, [1]] = added[:20], added[20:]
    both[:20, 0] = both[20:, 1] = 8
    low, high = change_interval(apart, both) or (0.0, 0.0)
    parts = [100 * (side.std(ddof=1) / np.sqrt(20)) / 8 / 2 for side in (added[:20], added[20:])]
    error = np.hypot(*parts)
    freedom = error**4 / sum(part**4 / 19 for part in parts)  # Satterthwaite's
    assert (high - low) / 2 == pytest.approx(scipy.stats.t.ppf(0.975, freedom) * error, rel=1e-6)
