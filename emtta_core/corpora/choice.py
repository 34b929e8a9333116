"""Which utterances of a corpus are used: those that are short enough, and of them the first so many."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from emtta_core.corpora.utterance import Utterance

_FEW = 0.5
"""Of less than this share of the utterances no file is fetched."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What of a corpus will be used, as far as it can be told without hearing it.

    Attributes:
        utterances: how many.
        left_out: how many before the last of them are not used, for they are too long.
        notes: what else of the corpus is not used, as files and columns, a sentence each.
    """

    utterances: int
    left_out: int = 0
    notes: tuple[str, ...] = ()


def least(*counts: int | None) -> int | None:
    """Return the smallest of some counts, of which None is no limit."""
    return min((count for count in counts if count is not None), default=None)


def is_few(limit: int | None, count: Callable[[], int]) -> bool:
    """Return whether so few utterances of many are wanted that they are read over the network, and no file is fetched.

    Args:
        limit: how many are wanted; None for all.
        count: says how many there are.
    """
    return limit is not None and limit < _FEW * count()


def choose(utterances: Iterator[Utterance], max_seconds: float | None, limit: int | None) -> Iterator[Utterance]:
    """Yield the utterances that are used; one whose length is not told by its header is among them."""
    return itertools.islice((one for one in utterances if not is_too_long(one, max_seconds)), limit)


def survey(utterances: Iterator[Utterance], max_seconds: float | None, limit: int | None) -> Survey:
    """Return what `choose` would yield, counted."""
    found = left_out = 0
    for one in utterances:
        if found == limit:
            break
        if is_too_long(one, max_seconds):
            left_out += 1
        else:
            found += 1
    return Survey(found, left_out)


def is_too_long(utterance: Utterance, max_seconds: float | None) -> bool:
    """Return whether an utterance is longer than the limit."""
    if max_seconds is None:
        return False
    seconds = utterance.seconds()
    return seconds is not None and seconds > max_seconds
