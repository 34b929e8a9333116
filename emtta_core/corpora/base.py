"""What every corpus has: utterances with ids, the choice of some of them, and their availability."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    metadata: str = "{}"  # what else the corpus says of it: a JSON object, a field a column
    silence: bool = False  # whether nobody speaks in it, so that its transcript is empty


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
    left_out: int = 0  # how many were passed over, for they are too long
    notes: tuple[str, ...] = ()  # what else of the corpus is not used, as files and columns, a sentence each
    sample: str | None = None  # which of its utterances a limit takes, in words; None where all are used


def least(*counts: int | None) -> int | None:
    """The smallest of some counts, of which None is no limit."""
    return min((count for count in counts if count is not None), default=None)


@dataclass(frozen=True, slots=True)
class Key:
    """What decides whether an utterance is in a sample."""

    id: str  # as in `Utterance`, and so is the speaker
    speaker: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The utterances of a corpus that are used."""

    indices: tuple[int, ...]  # where they are in the corpus, in its order
    left_out: int  # how many were passed over, for they are too long
    sample: str | None  # as in `Count`

    def count(self) -> Count:
        """How much that is."""
        return Count(len(self.indices), self.left_out, sample=self.sample)


def choose(keys: Sequence[Key], limit: int | None, is_too_long: Callable[[int], bool]) -> Choice:
    """Choose the utterances that are used: all that are short enough, or a sample of them, spread over the speakers.

    The speakers take turns, in the order of a hash of their name, each with utterances in the order of a hash of their
    id; where nobody says who speaks, that is the order of a hash of the id. So the choice depends on names alone, and a
    larger limit keeps what a smaller one chose.

    Args:
        keys: of all utterances of the corpus, in its order.
        limit: at most so many; None for all.
        is_too_long: whether the utterance at an index is; asked of no more than are needed.
    """
    drawn = limit is not None and limit < len(keys)
    chosen: list[int] = []
    left_out = 0
    for index in _in_turns(keys) if drawn else range(len(keys)):
        if len(chosen) == limit:
            break
        if is_too_long(index):
            left_out += 1
        else:
            chosen.append(index)
    speakers = [keys[index].speaker for index in chosen]
    sample = describe_sample(limit, speakers, len(keys)) if limit is not None and drawn else None
    return Choice(tuple(sorted(chosen)), left_out, sample)


def describe_sample(limit: int, speakers: Sequence[str], total: int) -> str:
    """Say which utterances a limit takes.

    Args:
        limit: at most so many.
        speakers: who speaks in each that is taken; empty where nobody says.
        total: how many there are.
    """
    known = len({*speakers} - {""})
    spread = f"spread over {known} speaker{'' if known == 1 else 's'}" if known else "at random: no speaker is known"
    return f"limit {limit:,}: {len(speakers):,} of {total:,} utterances, {spread}"


def _in_turns(keys: Sequence[Key]) -> list[int]:
    # The indices of all utterances, in the order in which a sample takes them.
    turns: Counter[str] = Counter()
    ranks = {speaker: digest(speaker) for speaker in {key.speaker for key in keys}}
    order = []
    for index in sorted(range(len(keys)), key=lambda index: digest(keys[index].id)):
        speaker = keys[index].speaker
        order.append((turns[speaker], ranks[speaker], index))
        turns[speaker] += 1
    return [index for *_, index in sorted(order)]


def choose_of(utterances: Sequence[Utterance], max_seconds: float | None, limit: int | None) -> Choice:
    """Choose of utterances that are at hand; one whose length is not in its header is short enough."""
    keys = [Key(one.id, one.speaker) for one in utterances]
    return choose(keys, limit, lambda index: is_too_long(utterances[index], max_seconds))


def is_too_long(utterance: Utterance, max_seconds: float | None) -> bool:
    """Whether an utterance is longer than the limit."""
    if max_seconds is None:
        return False
    seconds = utterance.seconds()
    return seconds is not None and seconds > max_seconds


class Distinct:
    """Tells ids apart: one that came before gets a number behind it, its count, or the next that is free."""

    def __init__(self) -> None:
        """Begin with no id."""
        self._counts: Counter[str] = Counter()
        self._taken: set[str] = set()

    def __call__(self, name: str) -> str:
        """The id of the next utterance, which would be called `name`."""
        self._counts[name] += 1
        number = self._counts[name]
        found = name if number == 1 else f"{name}-{number}"
        while found in self._taken:
            number += 1
            found = f"{name}-{number}"
        self._taken.add(found)
        return found


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
