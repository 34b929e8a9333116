"""What makes a change of WER significant and large enough to be told."""

import math
from dataclasses import dataclass

from emtta_core.errors import UsageError

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
