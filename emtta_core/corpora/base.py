"""The common parts of all corpora: utterances with ids, sampling, and availability."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from emtta_core.audio.waveform import Waveform
from emtta_core.identity import digest
from emtta_core.names import counted


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of speech with its transcript."""

    id: str  # unique within its corpus and the same on every machine; letters, digits, `.`, `_` and `-`
    text: str  # the transcript as in the corpus, not normalized
    language: str  # ISO 639-1 code
    speaker: str  # the speaker; utterances of the same speaker are not independent
    read: Callable[[], Waveform]  # returns the waveform `(N,)`; raises `emtta_core.errors.AudioError` if there is none
    seconds: Callable[[], float | None] = lambda: None  # returns the length in the audio's header; None if unknown
    metadata: str = "{}"  # other information from the corpus: a JSON object with a field per column
    silence: bool = False  # whether it contains no speech, so that its transcript is empty


_ID = re.compile(r"[A-Za-z0-9._-]+")
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]")


def is_id(name: str) -> bool:
    """Whether a name may be an utterance's id."""
    return _ID.fullmatch(name) is not None


def id_of(name: str, source: str | None = None) -> str:
    """Make an id from a name; invalid characters become `_`, and a digest is appended to keep such names distinct.

    Args:
        name: the name.
        source: the string to digest; by default the name.
    """
    plain = _FOREIGN.sub("_", name)
    return plain if plain == name else f"{plain}-{digest(name if source is None else source, 8)}"


_WHISPER_CODES: Mapping[str, str] = {"cmn": "zh", "fil": "tl", "jv": "jw", "nb": "no"}
"""Whisper's codes of languages for which corpora use another: its code for Javanese is the old `jw`."""

_REGIONS: Mapping[str, str] = {"zh-HK": "yue"}
"""Regions that determine the language: Common Voice's Chinese (Hong Kong) is Cantonese."""


def whisper_code(language: str) -> str:
    """Whisper's code for a language, which a corpus may give with a script or a region: `pt_br`, `zh-CN`."""
    if language in _REGIONS:
        return _REGIONS[language]
    code = re.split("[-_]", language, maxsplit=1)[0]
    return _WHISPER_CODES.get(code, code)


@dataclass(frozen=True, slots=True)
class Count:
    """How much of a corpus will be used, where that is known without decoding its audio."""

    utterances: int  # number of utterances
    left_out: int = 0  # number of utterances left out because they are too long
    notes: tuple[str, ...] = ()  # what else of the corpus is not used, such as files and columns, one sentence each
    sample: str | None = None  # which of its utterances a limit selects, in words; None if all are used


def smallest(*counts: int | None) -> int | None:
    """The smallest of some limits, where None means no limit."""
    return min((count for count in counts if count is not None), default=None)


@dataclass(frozen=True, slots=True)
class Key:
    """What determines whether an utterance is in a sample."""

    id: str  # as in `Utterance`, like the speaker
    speaker: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The utterances of a corpus that are used."""

    indices: tuple[int, ...]  # their positions in the corpus, in its order
    left_out: int  # number of utterances left out because they are too long
    sample: str | None  # as in `Count`

    def count(self) -> Count:
        """The choice as a count."""
        return Count(len(self.indices), self.left_out, sample=self.sample)


def choose(keys: Sequence[Key], limit: int | None, is_too_long: Callable[[int], bool]) -> Choice:
    """Choose the utterances to use: all that are short enough, or a sample of them, spread over the speakers.

    The speakers take turns in the order of a hash of their names, each with utterances in the order of a hash of their
    ids; if no speaker is known, the order is that of a hash of the ids. The choice therefore depends only on names, and
    a larger limit keeps what a smaller one chose.

    Args:
        keys: of all utterances of the corpus, in its order.
        limit: the maximum number of utterances; None for all.
        is_too_long: whether the utterance at an index is too long; called for no more than necessary.
    """
    drawn = limit is not None and limit < len(keys)
    chosen: list[int] = []
    left_out = 0
    for index in _round_robin(keys) if drawn else range(len(keys)):
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
    """Describe which utterances a limit selects.

    Args:
        limit: the maximum number of utterances.
        speakers: the speaker of each selected utterance; empty if unknown.
        total: the number of utterances in all.
    """
    known = len({*speakers} - {""})
    spread = f"spread over {counted(known, 'speaker')}" if known else "at random: no speaker is known"
    return f"limit {limit:,}: {len(speakers):,} of {total:,} utterances, {spread}"


def _round_robin(keys: Sequence[Key]) -> list[int]:
    # The indices of all utterances, in the order in which a sample selects them.
    turns: Counter[str] = Counter()
    ranks = {speaker: digest(speaker) for speaker in {key.speaker for key in keys}}
    order = []
    for index in sorted(range(len(keys)), key=lambda index: digest(keys[index].id)):
        speaker = keys[index].speaker
        order.append((turns[speaker], ranks[speaker], index))
        turns[speaker] += 1
    return [index for *_, index in sorted(order)]


def choose_of(utterances: Sequence[Utterance], max_seconds: float | None, limit: int | None) -> Choice:
    """Choose among given utterances; one whose header does not state its length counts as short enough."""
    keys = [Key(one.id, one.speaker) for one in utterances]
    return choose(keys, limit, lambda index: is_too_long(utterances[index], max_seconds))


def is_too_long(utterance: Utterance, max_seconds: float | None) -> bool:
    """Whether an utterance is longer than the limit."""
    if max_seconds is None:
        return False
    seconds = utterance.seconds()
    return seconds is not None and seconds > max_seconds


class Distinct:
    """Makes ids distinct: a repeated one gets its count appended, or the next free number."""

    def __init__(self) -> None:
        """Start without any ids."""
        self._counts: Counter[str] = Counter()
        self._used: set[str] = set()

    def __call__(self, name: str) -> str:
        """Return the id of the next utterance, whose name is `name`."""
        self._counts[name] += 1
        number = self._counts[name]
        distinct = name if number == 1 else f"{name}-{number}"
        while distinct in self._used:
            number += 1
            distinct = f"{name}-{number}"
        self._used.add(distinct)
        return distinct


State = Literal["here", "to fetch", "missing"]
"""On this machine; available on the hub; or neither, so that the user has to act."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that has to be downloaded manually."""

    holds: str = ""  # what it contains, shown with its size
    size: int | None = None  # bytes; None if unknown
    source: str = ""  # the source of the size


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether something that a suite needs is available, and where."""

    what: str  # its name, with the requested part
    state: State  # whether it is on this machine
    where: str  # its folder, or where to get it
    licence: str  # the licence for its use
    size: int | None = None  # bytes that would be fetched; None if nothing, or unknown
    error: str | None = None  # why it is not available
    subject: str = ""  # the start of the error, if errors for the same reason differ only in that
    archive: Archive | None = None  # if it is missing, what to download manually; None if that would not help
