"""Small context-free grammars that make the sentences of the synthetic corpus.

A grammar is a file `grammars/<language>.toml`: `sentence` lists the templates, `[symbols]` the alternatives of each
name that stands in braces. Every alternative is as likely as its sisters, so that neighbours tell nothing of a word.
"""

import hashlib
import random
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from emtta_core.errors import unknown

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
        """Draw a sentence of `split`: lower-case words with single spaces between."""
        while True:
            text = self._expand(rng.choice(self.templates), rng)
            if split_of(text) == split:
                return text

    def words(self) -> frozenset[str]:
        """Return every word that a sentence may hold."""
        phrases = [*self.templates, *(phrase for phrases in self.symbols.values() for phrase in phrases)]
        return frozenset(word for phrase in phrases for word in _SLOT.sub(" ", phrase).split())

    def _expand(self, phrase: str, rng: random.Random) -> str:
        return _SLOT.sub(lambda slot: self._expand(rng.choice(self.symbols[slot[1]]), rng), phrase)


def split_of(text: str) -> Split:
    """Return the split to which a sentence belongs, by a hash of its words: no sentence is in both."""
    return "test" if hashlib.sha256(text.encode()).digest()[0] % _TEST_SHARE == 0 else "train"


def languages() -> tuple[str, ...]:
    """Return the codes of the languages that have a grammar, sorted."""
    folder = files("emtta_core.corpora") / "grammars"
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


@cache
def load_grammar(language: str) -> Grammar:
    """Return the grammar of a language by its ISO 639-1 code.

    Raises:
        UsageError: when there is none; the message lists those there are.
    """
    if language not in languages():
        raise unknown("language of the synthetic corpus", language, languages())
    text = (files("emtta_core.corpora") / "grammars" / f"{language}.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    symbols = {name: tuple(alternatives) for name, alternatives in table["symbols"].items()}
    return Grammar(language, tuple(table["sentence"]), symbols)
