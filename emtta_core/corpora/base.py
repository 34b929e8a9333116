"""What every corpus has: utterances with ids, the choice of some of them, and whether they are on this machine."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from emtta_core.audio.waveform import Waveform
from emtta_core.identity import digest


def _unknown() -> float | None:
    return None


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of speech with its transcript."""

    id: str  # unique within its corpus and the same on every machine; letters, digits, `.`, `_` and `-`
    text: str  # the transcript as the corpus gives it, not normalized
    language: str  # ISO 639-1 code
    speaker: str  # who speaks; utterances of one speaker are not independent
    # Returns the waveform; raises `emtta_core.errors.AudioError` where there is none to be had.
    read: Callable[[], Waveform]
    # Returns its length as the audio's header tells it; None where it does not.
    seconds: Callable[[], float | None] = _unknown


_ID = re.compile(r"[A-Za-z0-9._-]+")
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]")


def is_id(name: str) -> bool:
    """Return whether a name may be an utterance's id."""
    return _ID.fullmatch(name) is not None


def id_of(name: str, source: str | None = None) -> str:
    """Return an id made of a name; what an id may not hold becomes `_`, and then a digest tells such names apart.

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
    """Return Whisper's code of a language, which a corpus may name with a script or a region: `pt_br`, `zh-CN`."""
    if language in _REGIONS:
        return _REGIONS[language]
    code = re.split("[-_]", language, maxsplit=1)[0]
    return _OTHERS.get(code, code)


_FEW = 0.5
"""Of less than this share of the utterances no file is fetched."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What of a corpus will be used, as far as it can be told without hearing it."""

    utterances: int  # how many
    left_out: int = 0  # how many before the last of them are not used, for they are too long
    notes: tuple[str, ...] = ()  # what else of the corpus is not used, as files and columns, a sentence each


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


State = Literal["here", "to fetch", "missing"]
"""On this machine; on the hub, which gives it; or neither, so that somebody has to do something."""


@dataclass(frozen=True, slots=True)
class Archive:
    """What somebody gets by hand, where nothing fetches it."""

    holds: str = ""  # what is in it, for those who look at how large it is
    size: int | None = None  # bytes of it; None where nobody is known to say
    source: str = ""  # who says so


@dataclass(frozen=True, slots=True)
class Standing:
    """How something stands that a suite needs."""

    what: str  # its name, with the part of it that is wanted
    state: State  # whether it is there
    where: str  # the folder that it lies in, or where it is to be had
    licence: str  # under which it may be used
    size: int | None = None  # bytes that would be fetched; None where that is nothing, or not known
    error: str | None = None  # why it cannot be had
    subject: str = ""  # what the error begins with, where others of the same reason differ in that alone
    archive: Archive | None = None  # of what is missing, what is to be got by hand; None where that is of no use
