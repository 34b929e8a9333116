"""The bootstrap interval of a word error rate, over units (utterances or speakers) drawn in strata."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

SEED = 20260101
"""The seed of every draw, so that the same results give the same figures."""

RESAMPLES = 2_000
"""The number of bootstrap resamples."""

CONFIDENCE = 0.95
"""The confidence level of intervals."""

MIN_UNITS = 5
"""With fewer units there is no interval, as resamples hardly differ from each other."""

_CHUNK = 4_000_000
"""Numbers drawn at a time: 32 MB of counts."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def chunks(rows: int, width: int) -> Iterator[slice]:
    """Yield slices that cover `rows`, none of more than `_CHUNK` numbers."""
    step = max(1, _CHUNK // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def rate_interval(
    errors: Floats, words: Floats, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float] | None:
    """The bootstrap-t interval of the mean WER over domains, %; None for fewer than `MIN_UNITS`.

    Its ends are clipped to the range of the resamples: if very few units have errors, some resamples have none, and
    their standard error is 0.

    Args:
        errors: of each unit in each domain, `(U, D)`.
        words: likewise; 0 where a unit does not occur in a domain.
        confidence: the level of the interval.
        resamples: how many to draw.
        seed: the seed of the draws.
    """
    if len(words) < MIN_UNITS:
        return None
    strata = strata_of(words)
    rates, over = _replicates(errors, words, strata, resamples, seed)
    # 1) how far the rate of each resample is from that of the sample, in its own standard errors
    rate, width = mean_rate(errors, words), np.sqrt(_variances(errors, words, strata).sum())
    replicates = 100 * rates.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = 100 * np.sqrt(_replicated_variance(errors, words, strata, rates, over, seed))
        studentised = (replicates - rate) / spread
    found = np.isfinite(replicates)  # without resamples in which a domain has no words
    studentised = np.nan_to_num(studentised[found], nan=0.0, posinf=np.inf, neginf=-np.inf)
    # 2) the interval extends as far, in the sample's standard errors, in the opposite direction
    tail = (1 - confidence) / 2
    high, low = np.quantile(studentised, [tail, 1 - tail], method="inverted_cdf")  # infinities cannot be interpolated
    lowest, highest = replicates[found].min(), replicates[found].max()
    ends = [np.clip(rate - shift * width, lowest, highest) if width else rate for shift in (low, high)]
    return float(ends[0]), float(ends[1])


def mean_rate(errors: Floats, words: Floats) -> float:
    """The mean over domains of 100 * errors / words, from the contribution of each unit to each domain, `(U, D)`."""
    return float(100 * (errors.sum(axis=0) / words.sum(axis=0)).mean())


def strata_of(words: Floats) -> Integers:
    """The stratum of each unit, `(U,)`; as many units of each are drawn as it has, so that domains keep their sizes.

    Units that occur in the same domains form a stratum. Those that lack some of a larger stratum's domains belong to
    that one: an utterance in error under one of eight noises is one of the utterances of all eight.

    Args:
        words: of each unit in each domain, `(U, D)`; 0 where it does not occur.
    """
    patterns, found, sizes = np.unique(words > 0, axis=0, return_inverse=True, return_counts=True)
    belongs = np.arange(len(patterns))
    for index in np.argsort(-sizes, kind="stable"):
        wider = np.flatnonzero((patterns >= patterns[index]).all(axis=1) & (sizes > sizes[index]))
        if len(wider):
            belongs[index] = belongs[wider[np.argmax(sizes[wider])]]
    # A single unit has no variance: it joins the largest of the strata with which it shares a domain.
    for index in range(len(patterns)):
        near = np.flatnonzero((patterns & patterns[index]).any(axis=1) & (belongs != index))
        if sizes[belongs == index].sum() == 1 and len(near):
            belongs[index] = belongs[near[np.argmax(sizes[near])]]
    strata: Integers = np.unique(belongs[found.ravel()], return_inverse=True)[1].ravel()
    return strata


def resampled_sums(table: Floats, strata: Integers, *, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """Sum a table's columns over units drawn with replacement.

    Args:
        table: the contribution of each unit to each sum, `(U, K)`.
        strata: the stratum of each unit, `(U,)`; as many of its units are drawn as it has.
        resamples: how many times to draw, R.
        seed: the seed of the draws.

    Returns:
        The sums, `(R, K)`.
    """
    sums = np.zeros((resamples, table.shape[1]))
    for units, some, counts in _draws(strata, resamples, seed):
        sums[some] += counts @ table[units]
    return sums


def _replicates(errors: Floats, words: Floats, strata: Integers, resamples: int, seed: int) -> tuple[Floats, Floats]:
    # The rate of each domain in each resample, as a fraction, and its words, both `(R, D)`.
    sums = resampled_sums(np.concatenate([errors, words], axis=1), strata, resamples=resamples, seed=seed)
    totals, over = np.split(sums, 2, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a domain may have no words in a resample
        return totals / over, over


def _variances(errors: Floats, words: Floats, strata: Integers) -> Floats:
    # The contribution of each stratum to the variance of the mean rate, points², `(S,)`, by linearisation: a unit
    # changes the rate E/W of a domain by (e - w·E/W) / W.
    over = words.sum(axis=0)
    moved = 100 * ((errors - words * (errors.sum(axis=0) / over)) / over).mean(axis=1)
    sizes = np.bincount(strata)
    centred = moved - (np.bincount(strata, moved) / sizes)[strata]
    return np.asarray(np.bincount(strata, centred**2) * sizes / np.maximum(sizes - 1, 1), dtype=np.float64)


def _replicated_variance(
    errors: Floats, words: Floats, strata: Integers, rates: Floats, over: Floats, seed: int
) -> Floats:
    # The sum of `_variances` in each resample, for rates as fractions, `(R,)`: from the errors and words of each unit,
    # `(U, D)`, the rates and words of each resample, `(R, D)`, and the seed with which they were drawn.
    domains = words.shape[1]
    found = np.zeros(len(rates))
    for units, some, counts in _draws(strata, len(rates), seed):
        size = counts.shape[1]
        moved = (1 / over[some]) @ errors[units].T - (rates[some] / over[some]) @ words[units].T
        moved /= domains
        weighted = counts * moved
        squares = np.einsum("ru,ru->r", weighted, moved) - weighted.sum(axis=1) ** 2 / size
        found[some] += np.maximum(squares, 0) * size / max(size - 1, 1)
    return found


def _draws(
    strata: Integers, resamples: int, seed: int
) -> Iterator[tuple[npt.NDArray[np.intp], slice, npt.NDArray[np.float64]]]:
    # The units of a stratum, some resamples, and how often each unit is drawn in them; the same for the same seed.
    generator = np.random.default_rng(seed)
    for stratum in np.unique(strata):
        units = np.flatnonzero(strata == stratum)
        size = len(units)
        for some in chunks(resamples, size):
            times = some.stop - some.start
            drawn = generator.integers(size, size=(times, size)) + size * np.arange(times)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=times * size).reshape(times, size)
            yield units, some, counts.astype(np.float64)
