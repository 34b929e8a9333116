"""The text normalisers of Whisper, which decide what counts as the same word.

English text goes through Whisper's English normaliser (contractions, spellings, numbers, fillers), text in
any other language through its basic one, as in the evaluation of the Whisper paper (arXiv:2212.04356,
appendix C). Of a language that is written without spaces each letter counts as a word there, and so here.
That is the rule `whisper`; `basic` takes the basic normaliser for English too, and `none` leaves texts as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from types import MappingProxyType
from typing import Literal

from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

Rule = Literal["whisper", "basic", "none"]

WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""The languages whose letters are set apart, by Whisper's codes: those of the Whisper paper, and Cantonese, which later
models know."""

_FUNCTIONS: Mapping[str, Callable[[], Callable[[str], str]]] = MappingProxyType(
    {
        "whisper-english": EnglishTextNormalizer,
        "whisper-basic": BasicTextNormalizer,
        "whisper-basic-by-letter": partial(BasicTextNormalizer, split_letters=True),
        "none": lambda: str,
    }
)


@dataclass(frozen=True, slots=True)
class Normaliser:
    """A normaliser with its name, which is stored beside each score.

    Attributes:
        name: which one, and the release of the package that holds it.
        function: text to text.
        by_letter: whether it sets the letters apart, so that each counts as a word.
    """

    name: str
    function: Callable[[str], str]
    by_letter: bool = False

    def __call__(self, text: str) -> str:
        """Return `text` normalised, with single spaces between its words and none around them."""
        return " ".join(self.function(text).split())


def normaliser(language: str, rule: Rule = "whisper") -> Normaliser:
    """Return the normaliser for an ISO 639-1 language code."""
    if rule == "none":
        return _load("none")
    if language == "en" and rule == "whisper":
        return _load("whisper-english")
    return _load("whisper-basic-by-letter" if language in WITHOUT_SPACES else "whisper-basic")


def normaliser_named(name: str) -> Normaliser:
    """Return the normaliser of a name that is stored beside a score, in the release that is installed.

    One that this release does not know, as of a score from another one, leaves texts as they are.
    """
    kind = name.split("/")[0]
    return _load(kind if kind in _FUNCTIONS else "none")


def normaliser_names() -> tuple[str, ...]:
    """Return the names of Whisper's normalisers, with their release: results scored by others cannot be compared."""
    return tuple(_full_name(kind) for kind in _FUNCTIONS if kind != "none")


@cache
def _load(kind: str) -> Normaliser:
    return Normaliser(_full_name(kind), _FUNCTIONS[kind](), by_letter=kind.endswith("by-letter"))


def _full_name(kind: str) -> str:
    return kind if kind == "none" else f"{kind}/{version('whisper-normalizer')}"
