"""The significance of a difference in WER: its interval, tests, families of tests, and the minimum effect.

Everything is computed from the contribution of each unit (an utterance, or all of a speaker's) to each domain.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from emtta_core.errors import UsageError
from emtta_core.scoring.bootstrap import CONFIDENCE, MIN_UNITS, SEED, Floats, chunks, mean_rate, strata_of

PERMUTATIONS = 10_000
"""Random flips in a sign-flip test; if there are at most this many ways to flip the signs, all are tried."""


@dataclass(frozen=True, slots=True)
class _Estimate:
    value: float  # the difference, points
    error: float  # its standard error, points
    freedom: float  # degrees of freedom of the error
    skewness: float  # of the estimate

    @property
    def is_constant(self) -> bool:
        return self.error <= 1e-9 * abs(self.value)  # units do not differ, except by rounding


def change_interval(added: Floats, words: Floats, *, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Student's interval of the mean difference in WER over domains, with the jackknife standard error.

    In points; None for fewer than `MIN_UNITS`.

    Args:
        added: errors of one system minus those of the other, of each unit in each domain, `(U, D)`.
        words: of the references, likewise; 0 where a unit does not occur in a domain.
        confidence: the level of the interval.
    """
    if len(words) < MIN_UNITS:
        return None
    found = _estimate(added, words)
    width = 0.0 if found.is_constant else student_quantile((1 + confidence) / 2, found.freedom) * found.error
    return found.value - width, found.value + width


def mean_p(added: Floats, words: Floats) -> float:
    """The two-sided p-value for a mean difference in WER of 0 over domains.

    From Student's t with the jackknife standard error, or from Hall's transformation of t, which corrects for skewness
    (Hall 1992, J. R. Statist. Soc. B 54, 221-228), whichever is less significant. With fewer than `MIN_UNITS`, or if
    all units contribute the same, no error can be estimated, and p is that of `sign_flip_p`.
    """
    found = _estimate(added, words)
    if len(words) < MIN_UNITS or found.is_constant:
        return sign_flip_p(flippable(added, words))
    t, skewness = found.value / found.error, found.skewness
    corrected = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
    return student_p(min(abs(t), abs(corrected)), found.freedom)


def flippable(added: Floats, words: Floats) -> Floats:
    """The contribution of each unit to the mean difference, up to a factor, `(U,)`, for a sign-flip test."""
    if words.shape[1] == 1:
        return added[:, 0]  # errors only, as whole numbers keep ties exact
    return np.asarray((added / words.sum(axis=0)).sum(axis=1), dtype=np.float64)


def sign_flip_p(differences: npt.ArrayLike, *, permutations: int = PERMUTATIONS, seed: int = SEED) -> float:
    """The two-sided p-value of a paired test: how often random signs give a sum at least as far from 0.

    Under the hypothesis that the two systems are exchangeable, a unit's difference is as likely as its negative.

    Args:
        differences: the contribution of each unit to the difference, `(U,)`.
        permutations: random flips; if there are no more than this, each is tried once and p is exact.
        seed: the seed of the flips.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]  # signs do not matter for zeros
    units = len(values)
    threshold = abs(values.sum()) * (1 - 1e-9)  # so that rounding does not break ties
    if units <= np.log2(permutations):
        every: npt.NDArray[np.integer] = (np.arange(2**units)[:, None] >> np.arange(units)) & 1
        return float(np.mean(np.abs(_flipped(every, values)) >= threshold))
    generator = np.random.default_rng(seed)
    extreme = 1  # the observed signs are one of the flips
    for some in chunks(permutations, units):
        times = some.stop - some.start
        drawn = np.frombuffer(generator.bytes(times * -(-units // 8)), np.uint8).reshape(times, -1)
        flips = np.unpackbits(drawn, axis=1, count=units)
        extreme += int(np.sum(np.abs(_flipped(flips, values)) >= threshold))
    return extreme / (permutations + 1)


def holm(p_values: npt.ArrayLike) -> Floats:
    """Adjust p-values by Holm's method, `(M,)`: those of at most alpha are significant as a family."""
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def student_p(t: float, freedom: float) -> float:
    """The two-sided p-value of Student's t, for any number of degrees of freedom."""
    if math.isinf(t):
        return 0.0
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def student_quantile(share: float, freedom: float) -> float:
    """The quantile of Student's t for a probability above 0.5, for any number of degrees of freedom."""
    # Newton's method. The tail is convex and the normal quantile below its root, so every step is upwards, except for
    # rounding.
    t, tail = NormalDist().inv_cdf(share), 2 * (1 - share)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi * freedom)
    step = math.inf
    while step > 1e-13 * t:
        step = (student_p(t, freedom) - tail) / (2 * scale * (1 + t * t / freedom) ** (-(freedom + 1) / 2))
        t += step
    return t


def _estimate(added: Floats, words: Floats) -> _Estimate:
    # The jackknife: each unit is left out in turn. The variances of strata add up, with Satterthwaite's degrees of
    # freedom.
    strata = strata_of(words)
    over = words.sum(axis=0)
    rest = over - words  # 0 where a unit has all words of a domain, whose rate then depends only on that unit
    moved = added - words * (added.sum(axis=0) / over)
    moved = 100 * np.divide(moved, rest, out=np.zeros_like(moved), where=rest > 0).mean(axis=1)
    sizes = np.bincount(strata)
    centred = moved - (np.bincount(strata, moved) / sizes)[strata]
    share = (sizes - 1) / sizes
    variances = np.bincount(strata, centred**2) * share
    third = float((np.bincount(strata, centred**3) * share**3).sum())
    value, whole = mean_rate(added, words), float(variances.sum())
    if not whole:
        return _Estimate(value, 0.0, 1.0, 0.0)
    freedom = whole**2 / float((variances**2 / np.maximum(sizes - 1, 1)).sum())
    return _Estimate(value, math.sqrt(whole), freedom, third / whole**1.5)


def _flipped(flips: npt.NDArray[np.integer], values: Floats) -> Floats:
    # The sum of `values` for each row of flips, `(P, U)`, where 1 changes a sign.
    sums: Floats = values.sum() - 2 * (flips.astype(np.float64) @ values)
    return sums


def _incomplete_beta(a: float, b: float, x: float) -> float:
    # The regularised incomplete beta function by Lentz's continued fraction (Numerical Recipes, 1992, chapter 6.4).
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side
        return 1 - _incomplete_beta(b, a, 1 - x)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    fraction = d
    for m in range(1, 1_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + numerator * d) or tiny)
            c = (1 + numerator / c) or tiny
            fraction *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return math.exp(logarithm) * fraction / a


MIN_EFFECT = 0.2
"""A change in WER, in points, that is too small to matter."""


@dataclass(frozen=True, slots=True)
class MinEffect:
    """The largest change in WER that is too small to matter: points, or a share of the baseline's WER."""

    points: float = 0.0  # of WER
    share: float = 0.0  # of the baseline's WER

    @classmethod
    def read(cls, value: float | str) -> "MinEffect":
        """Parse a number of points, such as `0.5`, or a share of the baseline's WER, such as `2%`.

        Raises:
            UsageError: it is neither, or below 0.
        """
        text = str(value).strip()
        try:
            size = float(text.removesuffix("%"))
        except ValueError:
            size = math.nan
        if not 0 <= size < math.inf:
            given = f"{value:g}" if isinstance(value, float) else value
            raise UsageError(
                f"the minimum effect is {given}; it must be a number of WER points, such as 0.5, or a share of the "
                "baseline's WER, such as 2%; 0 or more"
            )
        return cls(share=size / 100) if text.endswith("%") else cls(points=size)

    @property
    def value(self) -> float | str:
        """The value in the form that `read` parses."""
        return f"{100 * self.share:g}%" if self.share else self.points

    def __str__(self) -> str:
        return f"{100 * self.share:g} % of the baseline's WER" if self.share else f"{self.points:g} points"

    def exceeded_by(self, difference: float, wer: float) -> bool:
        """Whether a difference in points is larger, given the baseline's WER in percent."""
        return abs(difference) > self.points + self.share * wer


def check_thresholds(alpha: float, min_effect: float | str) -> MinEffect:
    """Check the thresholds for a significant and sufficiently large change; returns the parsed `min_effect`.

    Raises:
        UsageError: `alpha` or `min_effect` is out of range.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha:g}; it must be between 0 and 1, such as 0.05")
    return MinEffect.read(min_effect)
