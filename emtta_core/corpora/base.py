"""What every corpus has: utterances with ids, the choice of some of them, and their availability."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from emtta_core.audio.waveform import Waveform
from emtta_core.identity import digest


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of speech with its transcript."""

    id: str  # unique within its corpus and the same on every machine; letters, digits, `.`, `_` and `-`
    text: str  # the transcript as the corpus gives it, not normalized
    language: str  # ISO 639-1 code
    speaker: str  # who speaks; utterances of one speaker are not independent
    read: Callable[[], Waveform]  # gives the waveform `(N,)`; raises `emtta_core.errors.AudioError` where there is none
    seconds: Callable[[], float | None] = lambda: None  # gives the length by the audio's header; None where not there


_ID = re.compile(r"[A-Za-z0-9._-]+")
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]")


def is_id(name: str) -> bool:
    """Whether a name may be an utterance's id."""
    return _ID.fullmatch(name) is not None


def id_of(name: str, source: str | None = None) -> str:
    """Make an id of a name; what an id may not hold becomes `_`, and then a digest tells such names apart.

    Args:
        name: what would be the id.
        source: what the digest is taken of; by default the name.
    """
    plain = _FOREIGN.sub("_", name)
    return plain if plain == name else f"{plain}-{digest(name if source is None else source, 8)}"


_OTHERS: Mapping[str, str] = {"cmn": "zh", "fil": "tl", "jv": "jw", "nb": "no"}
"""What Whisper calls a language, where it is not what corpora do: its own code of Javanese is the old `jw`."""

_REGIONS: Mapping[str, str] = {"zh-HK": "yue"}
"""Where the region says which language is spoken: Common Voice's Chinese of Hong Kong is Cantonese."""


def whisper_code(language: str) -> str:
    """Whisper's code of a language, which a corpus may name with a script or a region: `pt_br`, `zh-CN`."""
    if language in _REGIONS:
        return _REGIONS[language]
    code = re.split("[-_]", language, maxsplit=1)[0]
    return _OTHERS.get(code, code)


@dataclass(frozen=True, slots=True)
class Count:
    """How much of a corpus will be used, as far as it can be told without decoding its audio."""

    utterances: int  # how many
    left_out: int = 0  # how many before the last of them are not used, for they are too long
    notes: tuple[str, ...] = ()  # what else of the corpus is not used, as files and columns, a sentence each


def least(*counts: int | None) -> int | None:
    """The smallest of some counts, of which None is no limit."""
    return min((count for count in counts if count is not None), default=None)


def choose(utterances: Iterator[Utterance], max_seconds: float | None, limit: int | None) -> Iterator[Utterance]:
    """Yield the utterances that are used; one whose length is not in its header is among them."""
    return itertools.islice((one for one in utterances if not is_too_long(one, max_seconds)), limit)


def count(utterances: Iterator[Utterance], max_seconds: float | None, limit: int | None) -> Count:
    """Count what `choose` would yield."""
    used = left_out = 0
    for one in utterances:
        if used == limit:
            break
        if is_too_long(one, max_seconds):
            left_out += 1
        else:
            used += 1
    return Count(used, left_out)


def is_too_long(utterance: Utterance, max_seconds: float | None) -> bool:
    """Whether an utterance is longer than the limit."""
    if max_seconds is None:
        return False
    seconds = utterance.seconds()
    return seconds is not None and seconds > max_seconds


def unique_ids(utterances: Iterator[Utterance]) -> Iterator[Utterance]:
    """Yield the utterances with a number behind an id that came before: its count, or the next that is free."""
    counts: dict[str, int] = {}
    taken: set[str] = set()
    for one in utterances:
        counts[one.id] = number = counts.get(one.id, 0) + 1
        name = one.id if number == 1 else f"{one.id}-{number}"
        while name in taken:
            number += 1
            name = f"{one.id}-{number}"
        taken.add(name)
        yield replace(one, id=name)


State = Literal["here", "to fetch", "missing"]
"""On this machine; on the hub, which gives it; or neither, so that somebody has to do something."""


@dataclass(frozen=True, slots=True)
class Archive:
    """What somebody gets by hand, where nothing fetches it."""

    holds: str = ""  # what is in it, for those who look at how large it is
    size: int | None = None  # bytes of it; None where nobody is known to say
    source: str = ""  # who says so


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether something that a suite needs can be had, and where."""

    what: str  # its name, with the part of it that is wanted
    state: State  # whether it is on this machine
    where: str  # the folder that it lies in, or where it is to be had
    licence: str  # under which it may be used
    size: int | None = None  # bytes that would be fetched; None where that is nothing, or not known
    error: str | None = None  # why it cannot be had
    subject: str = ""  # what the error begins with, where others of the same reason differ in that alone
    archive: Archive | None = None  # of what is missing, what is to be got by hand; None where that is of no use
