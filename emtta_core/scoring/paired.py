"""The figures of one system, or the comparison of two, over the utterances of one or several domains.

Both the statistics of a run (one method against another) and the comparison of two runs get their intervals, tests and
counts from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emtta_core.names import counted
from emtta_core.scoring.bootstrap import CONFIDENCE, Floats, Integers, mean_rate, rate_interval
from emtta_core.scoring.significance import change_interval, flippable, mean_p, sign_flip_p

ALPHA = 0.05
"""A difference is significant if its p-value is at most this."""

MIN_SPEAKERS = 5
"""With fewer, utterances are resampled instead, and a note says what the interval then lacks."""

_CAVEAT = "the interval does not reflect how speakers differ"


@dataclass(frozen=True, slots=True)
class Rate:
    """A word error rate; over several domains, the mean of theirs."""

    utterances: int  # number of utterances
    units: int  # number of units that the interval resamples
    drawn: str  # the units: `utterances`, `speakers`, or `both` if domains differ
    note: str | None  # what the interval does not reflect; None if speakers are resampled
    wer: float  # %
    low: float | None  # lower end of its interval, %; None for too few units
    high: float | None  # upper end


@dataclass(frozen=True, slots=True)
class Change:
    """The difference between two systems over the same utterances; over several domains, the mean of theirs."""

    utterances: int  # number of utterances
    units: int  # as in `Rate`
    drawn: str  # likewise
    note: str | None  # likewise
    wer_a: float  # of the first system, %
    wer_b: float  # of the second, %
    difference: float  # `wer_b` less `wer_a`, points
    low: float | None  # lower end of its interval, points; None for too few units
    high: float | None  # upper end
    p: float  # two-sided, unadjusted, for a mean difference of 0; determines significance
    p_sign_flip: float  # likewise, for exchangeability of the two systems
    wins: int  # utterances in which the second system has fewer word errors
    ties: int  # utterances with equally many
    losses: int  # utterances with more


@dataclass(frozen=True, slots=True)
class _Units:
    """The units of some domains."""

    counts: Floats  # of each utterance, `(N, K)`
    table: Floats  # of each unit in each domain, `(U, D, K)`
    drawn: str
    note: str | None


class Sample:
    """The scored utterances of some domains."""

    def __init__(
        self,
        domains: Sequence[str],
        utterances: Sequence[str],
        speakers: Sequence[str],
        counts: Sequence[Sequence[float]],
    ) -> None:
        """Store the utterances, each at the same index of every argument.

        Args:
            domains: the domain of each.
            utterances: its id; the same id in two domains is the same speech.
            speakers: its speaker; empty if unknown. The same name in two domains is the same speaker.
            counts: the word errors of each system, which may be means over seeds, and last the words of the reference.
        """
        self.domains = tuple(dict.fromkeys(domains))  # their names, in order of appearance
        self._domain = _numbered(domains)
        self._utterance = _numbered(utterances)
        self._speaker = np.where(np.array(speakers) == "", -1, _numbered(speakers))
        self._counts = np.array(counts, dtype=np.float64)

    def rate(self, domains: Sequence[str], confidence: float = CONFIDENCE) -> Rate:
        """The word error rate of the only system, over some of the domains."""
        units = self._units(domains)
        errors, words = units.table[:, :, 0], units.table[:, :, 1]
        low, high = rate_interval(errors, words, confidence=confidence) or (None, None)
        return Rate(len(units.counts), len(words), units.drawn, units.note, mean_rate(errors, words), low, high)

    def change(self, domains: Sequence[str], confidence: float = CONFIDENCE) -> Change:
        """The change from the first system to the second, over some of the domains."""
        units = self._units(domains)
        words, added = units.table[:, :, 2], units.table[:, :, 1] - units.table[:, :, 0]
        low, high = change_interval(added, words, confidence=confidence) or (None, None)
        better = np.sign(units.counts[:, 0] - units.counts[:, 1])
        wer_a, wer_b = (mean_rate(units.table[:, :, system], words) for system in (0, 1))
        return Change(
            utterances=len(units.counts),
            units=len(words),
            drawn=units.drawn,
            note=units.note,
            wer_a=wer_a,
            wer_b=wer_b,
            difference=wer_b - wer_a,
            low=low,
            high=high,
            p=mean_p(added, words),
            p_sign_flip=sign_flip_p(flippable(added, words)),
            wins=int(np.sum(better > 0)),
            ties=int(np.sum(better == 0)),
            losses=int(np.sum(better < 0)),
        )

    def _units(self, domains: Sequence[str]) -> _Units:
        column = np.full(len(self.domains), -1)  # of the table; -1 for a domain that is not selected
        column[[self.domains.index(name) for name in domains]] = np.arange(len(domains))
        chosen = column[self._domain] >= 0
        domain, speaker = column[self._domain[chosen]], self._speaker[chosen]
        by_speaker, note = _draw_speakers(domain, speaker, len(domains))
        # An utterance's key is its own number or its speaker's; speakers are numbered after the utterances.
        utterance = self._utterance[chosen]
        keys = np.where(by_speaker[domain], speaker + 1 + self._utterance.max(), utterance)
        units, unit = np.unique(keys, return_inverse=True)
        counts = self._counts[chosen]
        table = np.zeros((len(units), len(domains), counts.shape[1]))
        np.add.at(table, (unit, domain), counts)
        drawn = "speakers" if by_speaker.all() else "both" if by_speaker.any() else "utterances"
        return _Units(counts, table, drawn, note)


def _draw_speakers(domain: Integers, speaker: Integers, domains: int) -> tuple[npt.NDArray[np.bool_], str | None]:
    # In which domains speakers are drawn, `(D,)`, and what the interval lacks; an unknown speaker is -1.
    known = np.ones(domains, dtype=bool)
    known[domain[speaker < 0]] = False
    pairs = np.unique(np.stack([domain, speaker]), axis=1)
    several = np.bincount(pairs[0], minlength=domains) > 1  # a single speaker has no variance
    by_speaker = known & several
    if len(np.unique(pairs[1, by_speaker[pairs[0]]])) < MIN_SPEAKERS:
        by_speaker[:] = False
    if by_speaker.all():
        return by_speaker, None
    if by_speaker.any():
        few = f"{domains - by_speaker.sum()} of {domains} domains have one speaker or unknown ones"
        return by_speaker, f"{few}: {_CAVEAT} in them"
    if not known.all():
        return by_speaker, f"unknown speakers: {_CAVEAT}"
    count = len(np.unique(speaker))
    each = f", too few in each of {domains} domains" if count >= MIN_SPEAKERS else ""
    return by_speaker, f"{counted(count, 'speaker')}{each}: {_CAVEAT}"


def _numbered(names: Sequence[str]) -> Integers:
    index = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([index[name] for name in names], dtype=np.int64)
