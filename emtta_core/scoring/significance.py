"""How sure a difference in WER is: its interval, its tests, families of tests; and when it is large enough.

Everything is computed from what each unit (an utterance, or a speaker with all their utterances) adds to each domain.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from emtta_core.errors import UsageError
from emtta_core.scoring.bootstrap import CONFIDENCE, FEWEST_UNITS, SEED, Floats, chunks, mean_rate, strata_of

PERMUTATIONS = 10_000
"""Of a sign-flip test; where there are no more ways to flip the signs than this, all of them are tried."""


@dataclass(frozen=True, slots=True)
class _Estimate:
    value: float  # the difference, points
    error: float  # its standard error, points
    freedom: float  # degrees of freedom of the error
    skewness: float  # of the estimate

    @property
    def is_constant(self) -> bool:
        return self.error <= 1e-9 * abs(self.value)  # no unit differs from another, but for rounding


def change_interval(added: Floats, words: Floats, *, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Student's interval of the mean over domains of a difference in WER, with the jackknife's standard error.

    In points; none for fewer than `FEWEST_UNITS`.

    Args:
        added: errors of one system less those of the other, of each unit in each domain, `(U, D)`.
        words: of the references, likewise; 0 where a unit does not occur in a domain.
        confidence: of the interval.
    """
    if len(words) < FEWEST_UNITS:
        return None
    found = _estimate(added, words)
    width = 0.0 if found.is_constant else student_quantile((1 + confidence) / 2, found.freedom) * found.error
    return found.value - width, found.value + width


def mean_p(added: Floats, words: Floats) -> float:
    """The two-sided p of a test that the mean over domains of a difference in WER is 0.

    Student's t by the jackknife's standard error; and by Hall's transformation of t, which corrects for skewness (Hall
    1992, J. R. Statist. Soc. B 54, 221-228), where that is less sure. With fewer than `FEWEST_UNITS`, or where each
    unit adds the same, there is nothing to estimate an error by: then p is that of `sign_flip_p`.
    """
    found = _estimate(added, words)
    if len(words) < FEWEST_UNITS or found.is_constant:
        return sign_flip_p(flippable(added, words))
    t, skewness = found.value / found.error, found.skewness
    corrected = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
    return student_p(min(abs(t), abs(corrected)), found.freedom)


def flippable(added: Floats, words: Floats) -> Floats:
    """What each unit adds to the mean difference, up to a factor, `(U,)`: the differences of a sign-flip test."""
    if words.shape[1] == 1:
        return added[:, 0]  # errors alone: whole numbers leave ties as they are
    return np.asarray((added / words.sum(axis=0)).sum(axis=1), dtype=np.float64)


def sign_flip_p(differences: npt.ArrayLike, *, permutations: int = PERMUTATIONS, seed: int = SEED) -> float:
    """The two-sided p of a paired test: how often a sum at least as far from 0 comes of random signs.

    Under the hypothesis that the two systems can be exchanged, a unit's difference is as likely as its negative.

    Args:
        differences: what each unit adds to the difference, `(U,)`.
        permutations: random flips; where there are no more than this, each is tried once and p is exact.
        seed: of the flips.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]  # a sign changes nothing in them
    units = len(values)
    least = abs(values.sum()) * (1 - 1e-9)  # so that rounding makes no tie a difference
    if units <= np.log2(permutations):
        every: npt.NDArray[np.integer] = (np.arange(2**units)[:, None] >> np.arange(units)) & 1
        return float(np.mean(np.abs(_flipped(every, values)) >= least))
    generator = np.random.default_rng(seed)
    extreme = 1  # what was observed is one of the flips
    for some in chunks(permutations, units):
        times = some.stop - some.start
        drawn = np.frombuffer(generator.bytes(times * -(-units // 8)), np.uint8).reshape(times, -1)
        flips = np.unpackbits(drawn, axis=1, count=units)
        extreme += int(np.sum(np.abs(_flipped(flips, values)) >= least))
    return extreme / (permutations + 1)


def holm(p_values: npt.ArrayLike) -> Floats:
    """Adjust p-values by Holm: those at most alpha are significant at alpha as a family, `(M,)`."""
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def student_p(t: float, freedom: float) -> float:
    """The two-sided p of Student's t, for any number of degrees of freedom."""
    if math.isinf(t):
        return 0.0
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def student_quantile(share: float, freedom: float) -> float:
    """The quantile of Student's t for a share above a half, for any number of degrees of freedom."""
    # Newton's method. The tail is convex and the normal quantile below its root: each step leads up, but for rounding.
    t, tail = NormalDist().inv_cdf(share), 2 * (1 - share)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi * freedom)
    step = math.inf
    while step > 1e-13 * t:
        step = (student_p(t, freedom) - tail) / (2 * scale * (1 + t * t / freedom) ** (-(freedom + 1) / 2))
        t += step
    return t


def _estimate(added: Floats, words: Floats) -> _Estimate:
    # The jackknife: each unit is left out in turn. Of several strata the variances add up, and the degrees of freedom
    # are Satterthwaite's.
    strata = strata_of(words)
    over = words.sum(axis=0)
    rest = over - words  # 0 where a unit has all words of a domain, whose rate then depends on no other
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
    # The sum of `values` for each row of flips, `(P, U)`, of which 1 changes a sign.
    sums: Floats = values.sum() - 2 * (flips.astype(np.float64) @ values)
    return sums


def _incomplete_beta(a: float, b: float, x: float) -> float:
    # The regularised incomplete beta function by Lentz's continued fraction (Numerical Recipes, 1992, chapter 6.4).
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges fast is on the other side
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
"""A change of WER, in points, that is too small to matter."""


@dataclass(frozen=True, slots=True)
class MinEffect:
    """The largest change of WER that is too small to matter: points, or a share of the baseline's WER."""

    points: float = 0.0  # of WER
    share: float = 0.0  # of the baseline's WER

    @classmethod
    def read(cls, value: float | str) -> "MinEffect":
        """Read a number of points, as in `0.5`, or a share of the baseline's WER, as in `2%`.

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
                f"the minimum effect is {given}; give a number of WER points, as 0.5, or a share of the baseline's "
                "WER, as 2%; 0 or more"
            )
        return cls(share=size / 100) if text.endswith("%") else cls(points=size)

    @property
    def value(self) -> float | str:
        """As `read` takes it."""
        return f"{100 * self.share:g}%" if self.share else self.points

    def __str__(self) -> str:
        return f"{100 * self.share:g} % of the baseline's WER" if self.share else f"{self.points:g} points"

    def exceeded_by(self, difference: float, wer: float) -> bool:
        """Whether a difference in points is larger, where the baseline has this WER in percent."""
        return abs(difference) > self.points + self.share * wer


def check_thresholds(alpha: float, min_effect: float | str) -> MinEffect:
    """Check what makes a change significant and large enough; the latter as it was read.

    Raises:
        UsageError: `alpha` or `min_effect` is out of range.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha:g}; give a number between 0 and 1, such as 0.05")
    return MinEffect.read(min_effect)
