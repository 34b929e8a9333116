"""The synthetic corpus: sentences of a small context-free grammar, spoken by espeak-ng. It needs no download.

The sentences of the suites that come with emtta are prerecorded; others need the extra `synthetic`.
"""

import hashlib
import random
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import Annotated, Literal, Self

from pydantic import Field

from emtta_core.audio.waveform import SAMPLE_RATE, Waveform
from emtta_core.corpora.base import Availability, Count, Utterance, describe_sample, smallest
from emtta_core.corpora.espeak import Sentence, release, synthesise
from emtta_core.errors import AudioError, unknown
from emtta_core.identity import IDENTITY, Record, digest

Split = Literal["train", "test"]

_SLOT = re.compile(r"\{(\w+)\}")
_TEST_SHARE = 8
"""One sentence of this many belongs to the test split."""


@dataclass(frozen=True)
class Grammar:
    """The sentences of one language.

    Example:
        >>> grammar = load_grammar("en")
        >>> split_of(grammar.sentence(random.Random(0), "test"))
        'test'
    """

    language: str
    templates: tuple[str, ...]
    symbols: Mapping[str, tuple[str, ...]]

    def sentence(self, rng: random.Random, split: Split) -> str:
        """Draw a sentence of `split`: lower-case words separated by single spaces."""
        while True:
            text = self._expand(rng.choice(self.templates), rng)
            if split_of(text) == split:
                return text

    def words(self) -> frozenset[str]:
        """Every word that a sentence may contain."""
        phrases = [*self.templates, *(phrase for phrases in self.symbols.values() for phrase in phrases)]
        return frozenset(word for phrase in phrases for word in _SLOT.sub(" ", phrase).split())

    def _expand(self, phrase: str, rng: random.Random) -> str:
        return _SLOT.sub(lambda slot: self._expand(rng.choice(self.symbols[slot[1]]), rng), phrase)


def split_of(text: str) -> Split:
    """The split to which a sentence belongs, by a hash of its text: no sentence is in both."""
    return "test" if hashlib.sha256(text.encode()).digest()[0] % _TEST_SHARE == 0 else "train"


def languages() -> tuple[str, ...]:
    """The codes of the languages that have a grammar, sorted."""
    folder = files("emtta_core.corpora") / "grammars"
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


@cache
def load_grammar(language: str) -> Grammar:
    """Load the grammar of a language by its ISO 639-1 code.

    Raises:
        UsageError: there is none; the message lists those that exist.
    """
    if language not in languages():
        raise unknown("language of the synthetic corpus", language, languages())
    text = (files("emtta_core.corpora") / "grammars" / f"{language}.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    symbols = {name: tuple(alternatives) for name, alternatives in table["symbols"].items()}
    return Grammar(language, tuple(table["sentence"]), symbols)


SYNTHETIC_VERSION = 1
"""Incremented whenever the same settings would give different samples."""

_NOISE_VOICES = (
    "en-us+m4",
    "en-us+f2",
    "en-us+m2",
    "en-us+f4",
    "en-us+m6",
    "en-us+f5",
    "en-us+m1",
    "en-us+f1",
)


class Synthetic(Record):
    """A corpus of synthetic speech."""

    name: Annotated[Literal["synthetic"], IDENTITY] = "synthetic"
    language: Annotated[str, IDENTITY] = "en"  # ISO 639-1 code of a grammar
    # Espeak-ng voices, each optionally with a variant after `+`; they take turns.
    voices: Annotated[tuple[str, ...], IDENTITY, Field(min_length=1)] = ("en-us",)
    utterances: Annotated[int, IDENTITY, Field(ge=1)] = 12  # the number of utterances
    split: Annotated[Split, IDENTITY] = "test"  # `test` sentences never occur in training
    rate: Annotated[int, IDENTITY, Field(ge=80, le=450)] = 175  # speaking rate in words per minute
    seed: Annotated[int, IDENTITY] = 0  # another seed gives different sentences

    def located(self) -> Self:
        """Return the corpus unchanged, as it is generated on demand."""
        return self

    def availability(self) -> Availability:
        """Always available, as it is generated on demand."""
        return Availability(f"synthetic {self.language}", "here", "made by espeak-ng", "none needed: made here")

    def count(self, limit: int | None = None) -> Count:
        """Count what `read_all` would yield."""
        if limit is None or limit >= self.utterances:
            return Count(self.utterances)
        speakers = [self._voice(index) for index in range(limit)]
        return Count(limit, sample=describe_sample(limit, speakers, self.utterances))

    def read_all(self, limit: int | None = None) -> Iterator[Utterance]:
        """Yield the utterances, or the first `limit` of them; each is spoken when it is read.

        Each sentence is drawn at random, and the voices take turns, so the first are as good a sample as any.

        Raises:
            UsageError: the language has no grammar, or (on reading) there is no such voice, or espeak-ng is not
                installed and the sentence is not prerecorded.
        """
        for index, sentence in enumerate(self.sentences(limit)):
            yield Utterance(
                id=f"{self.language}-{self.split}-{self.seed}-{index:05d}",
                text=sentence.text,
                language=self.language,
                speaker=sentence.voice,
                read=partial(_read, sentence),
            )

    def sentences(self, limit: int | None = None) -> Iterator[Sentence]:
        """Yield what the first `limit` utterances say."""
        grammar = load_grammar(self.language)
        for index in range(smallest(self.utterances, limit) or 0):
            text = grammar.sentence(_rng(self.language, self.split, self.seed, index), self.split)
            yield Sentence(text, self._voice(index), self.rate)

    def _voice(self, index: int) -> str:
        return self.voices[index % len(self.voices)]

    def content_digest(self) -> str:
        """A digest of everything besides the settings of this record that can change sentences or speech."""
        grammar = load_grammar(self.language)
        symbols = {name: list(alternatives) for name, alternatives in grammar.symbols.items()}
        return digest([SYNTHETIC_VERSION, release(), list(grammar.templates), symbols])


def voices_for_noise(count: int, seed: int) -> list[Waveform]:
    """Clean English speech by `count` speakers, a few seconds each, for babble, announcements and neighbours."""
    return [synthesise(sentence).waveform for sentence in sentences_for_noise(count, seed)]


def sentences_for_noise(count: int, seed: int) -> Iterator[Sentence]:
    """Yield the sentences of the voices for noise, from the training split, so that none is a test utterance."""
    grammar = load_grammar("en")
    for index in range(count):
        rng = _rng("murmur", seed, index)
        text = " ".join(grammar.sentence(rng, "train") for _ in range(2))
        voice = _NOISE_VOICES[index % len(_NOISE_VOICES)]
        yield Sentence(text, voice, rng.randint(150, 200), rng.randint(30, 70))


def _read(sentence: Sentence) -> Waveform:
    waveform = synthesise(sentence).waveform
    if len(waveform) < SAMPLE_RATE // 10:
        raise AudioError(
            f"{sentence.voice!r} spoke {sentence.text!r} in {len(waveform) / SAMPLE_RATE:.3f} s; use another voice"
        )
    return waveform


def _rng(*key: object) -> random.Random:
    # A generator that depends only on `key`: Python seeds it with a SHA-512 of the text.
    return random.Random("|".join(map(str, key)))
