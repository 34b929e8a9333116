"""Whether a difference in word errors is more than chance: the sign-flip test of paired errors, and Holm's correction.

Everything here is NumPy on counts.

Sources: Phipson and Smyth, Permutation p-values should never be zero, 2010; Holm, A simple sequentially rejective
multiple test procedure, 1979.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

SEED = 20260101
"""Of every draw, so that the same results give the same figures."""

PERMUTATIONS = 10_000
"""Of a test; where there are no more ways to flip the signs than this, all of them are tried."""

_CHUNK = 4_000_000
"""Numbers drawn at once: 32 MB of counts."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def sign_flip_p(differences: npt.ArrayLike, *, permutations: int = PERMUTATIONS, seed: int = SEED) -> float:
    """Return the two-sided p of a paired test: how often a sum at least as far from 0 comes of random signs.

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
    """Return p-values adjusted by Holm: those at most alpha are significant at alpha as a family, `(M,)`."""
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def _flipped(flips: npt.NDArray[np.integer], values: Floats) -> Floats:
    """Return the sum of `values` for each row of flips, `(P, U)`, of which 1 changes a sign."""
    sums: Floats = values.sum() - 2 * (flips.astype(np.float64) @ values)
    return sums


def chunks(rows: int, width: int) -> Iterator[slice]:
    """Yield slices that cover `rows`, none of more than `_CHUNK` numbers."""
    step = max(1, _CHUNK // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))
