"""Checks of the numbers that an `Adapter` is given."""

import math

import numpy as np

from emtta_core.errors import UsageError


def at_least(name: str, value: int, least: int) -> int:
    """Return an option's value.

    Raises:
        UsageError: if it is not a whole number of at least `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise UsageError(f"{name} is {value!r}; it must be a whole number, at least {least}")
    return int(value)


def positive(name: str, value: float) -> float:
    """Return an option's value.

    Raises:
        UsageError: if it is not above 0.
    """
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name} is {value!r}; it must be a number above 0")
    return float(value)


def not_negative(name: str, value: float) -> float:
    """Return an option's value.

    Raises:
        UsageError: if it is below 0.
    """
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{name} is {value!r}; it must be a number, 0 or above")
    return float(value)


def decays(betas: tuple[float, float]) -> tuple[float, float]:
    """Return AdamW's two decays.

    Raises:
        UsageError: if one of them is not from 0 up to 1.
    """
    first, second = betas
    if not (0 <= first < 1 and 0 <= second < 1):
        raise UsageError(f"betas is {betas!r}; both must be at least 0 and below 1")
    return float(first), float(second)
