"""Two runs beside each other: whether they can be compared, and what is better or worse beyond chance."""

from emtta_core.compare.comparable import check_comparable
from emtta_core.compare.comparison import ALL, Change, Comparison, compare

__all__ = ["ALL", "Change", "Comparison", "check_comparable", "compare"]
"""What the package is used by."""
