"""The figures of one system, or of two side by side, over the utterances of one domain or of several.

This is the one place from which both the statistics of a run (a method against `source`) and the comparison of two
runs take their intervals, tests and counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emtta_core.scoring.bootstrap import (
    CONFIDENCE,
    Floats,
    change_interval,
    mean_rate,
    rate_interval,
    sign_flip_p,
)

FEWEST_SPEAKERS = 10
"""With fewer, a bootstrap over speakers covers too little: their utterances are drawn instead."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A word error rate; over several domains the mean of theirs."""

    utterances: int  # over which it is
    units: int  # what the interval draws, so many
    drawn: str  # `utterances`, `speakers`, or `both` where domains differ in it
    wer: float  # %
    low: float | None  # lower end of its interval, %; none for too few units
    high: float | None  # upper end


@dataclass(frozen=True, slots=True)
class Change:
    """The difference between two systems over the same utterances; over several domains the mean of theirs."""

    utterances: int  # over which it is
    drawn: str  # as in `Rate`
    wer_a: float  # of the first system, %
    wer_b: float  # of the second, %
    difference: float  # `wer_b` less `wer_a`, points
    low: float | None  # lower end of its interval, points; none for too few units
    high: float | None  # upper end
    p: float  # of the sign-flip test, two-sided, by itself
    wins: int  # utterances in which the second system has fewer word errors
    ties: int  # as many
    losses: int  # more


class Sample:
    """The scored utterances of some domains.

    Attributes:
        domains: their names, in the order in which they come.
    """

    def __init__(
        self,
        domains: Sequence[str],
        utterances: Sequence[str],
        speakers: Sequence[str],
        counts: Sequence[Sequence[int]],
    ) -> None:
        """Take the utterances, each at the same index of every argument.

        Args:
            domains: the domain of each.
            utterances: its id; the same id in two domains is the same speech.
            speakers: who speaks; empty where nobody knows.
            counts: word errors of each system, and the words of the reference last.
        """
        self.domains = tuple(dict.fromkeys(domains))
        index = {name: number for number, name in enumerate(self.domains)}
        self._domain = np.array([index[name] for name in domains], dtype=np.int64)
        self._counts = np.array(counts, dtype=np.float64)
        known: dict[str, set[str]] = {}
        for name, speaker in zip(domains, speakers, strict=True):
            known.setdefault(name, set()).add(speaker)
        self._by_speaker = {name: len(them) >= FEWEST_SPEAKERS and "" not in them for name, them in known.items()}
        keys = [
            (True, speaker) if self._by_speaker[name] else (False, utterance)
            for name, utterance, speaker in zip(domains, utterances, speakers, strict=True)
        ]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        self._unit = np.array([numbers[key] for key in keys], dtype=np.int64)

    def rate(self, domains: Sequence[str], confidence: float = CONFIDENCE) -> Rate:
        """The word error rate of the only system, over some of the domains."""
        chosen, table = self._chosen(domains)
        ends = rate_interval(table[:, :, 0], table[:, :, 1], confidence=confidence)
        low, high = ends or (None, None)
        wer = mean_rate(table[:, :, 0], table[:, :, 1])
        return Rate(len(chosen), len(table), self._drawn(domains), wer, low, high)

    def change(self, domains: Sequence[str], confidence: float = CONFIDENCE) -> Change:
        """The change from the first system to the second, over some of the domains."""
        chosen, table = self._chosen(domains)
        words, added = table[:, :, 2], table[:, :, 1] - table[:, :, 0]
        low, high = change_interval(added, words, confidence=confidence) or (None, None)
        better = np.sign(chosen[:, 0] - chosen[:, 1])
        wer_a, wer_b = (mean_rate(table[:, :, system], words) for system in (0, 1))
        weights = 1 if len(domains) == 1 else 1 / words.sum(axis=0)  # whole numbers leave ties as they are
        return Change(
            utterances=len(chosen),
            drawn=self._drawn(domains),
            wer_a=wer_a,
            wer_b=wer_b,
            difference=wer_b - wer_a,
            low=low,
            high=high,
            p=sign_flip_p((added * weights).sum(axis=1)),
            wins=int(np.sum(better > 0)),
            ties=int(np.sum(better == 0)),
            losses=int(np.sum(better < 0)),
        )

    def _chosen(self, domains: Sequence[str]) -> tuple[Floats, Floats]:
        # The counts of each utterance of some domains, and of each unit in each: `(N, K)` and `(U, D, K)`.
        column = np.full(len(self.domains), -1)  # of the table; -1 for a domain that is left out
        column[[self.domains.index(name) for name in domains]] = np.arange(len(domains))
        chosen = column[self._domain] >= 0
        counts = self._counts[chosen]
        units, unit = np.unique(self._unit[chosen], return_inverse=True)
        table = np.zeros((len(units), len(domains), counts.shape[1]))
        np.add.at(table, (unit, column[self._domain[chosen]]), counts)
        return counts, table

    def _drawn(self, domains: Sequence[str]) -> str:
        kinds = {self._by_speaker[name] for name in domains}
        return "both" if len(kinds) > 1 else "speakers" if kinds == {True} else "utterances"
