"""The text normalisers of Whisper, which decide what counts as the same word.

English text goes through Whisper's English normaliser (contractions, spellings, numbers, fillers), text in
any other language through its basic one, as in the evaluation of the Whisper paper (arXiv:2212.04356,
appendix C). Of a language that is written without spaces each letter counts as a word there, and so here.
That is the rule `whisper`; `basic` takes the basic normaliser for English too, and `none` leaves texts as they are.

The basic normaliser puts a space in the place of each combining mark. The vowel signs of Devanagari, Bengali, Thai and
others are such marks, so that it cuts their words into pieces and compares no vowel. The rule `marks` keeps them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from types import MappingProxyType
from typing import Literal

from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

Rule = Literal["whisper", "basic", "marks", "none"]

WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""The languages whose letters are set apart, by Whisper's codes: those of the Whisper paper, and Cantonese, which later
models know."""

MARKED = frozenset(
    {"as", "bn", "bo", "gu", "hi", "km", "kn", "lo", "ml", "mr", "my", "ne", "pa", "sa", "si", "ta", "te", "th", "yo"}
)
"""The languages that write combining marks in nearly every sentence: vowel signs, and the tones of Yoruba, for which
letters with both dot and tone have no character of their own."""

_FUNCTIONS: Mapping[str, Callable[[], Callable[[str], str]]] = MappingProxyType(
    {
        "whisper-english": EnglishTextNormalizer,
        "whisper-basic": BasicTextNormalizer,
        "whisper-basic-by-letter": partial(BasicTextNormalizer, split_letters=True),
        "whisper-marks": partial(BasicTextNormalizer, preserve_marks=True),
        "whisper-marks-by-letter": partial(BasicTextNormalizer, split_letters=True, preserve_marks=True),
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
    if language == "en" and rule != "basic":
        return _load("whisper-english")
    if rule == "marks":  # Khmer has no spaces either, which Whisper's authors let be
        return _load("whisper-marks-by-letter" if language in {*WITHOUT_SPACES, "km"} else "whisper-marks")
    return _load("whisper-basic-by-letter" if language in WITHOUT_SPACES else "whisper-basic")


def normaliser_named(name: str) -> Normaliser:
    """Return the normaliser of a name that is stored beside a score, in the release that is installed.

    One that this release does not know, as of a score from another one, leaves texts as they are.
    """
    kind = name.split("/")[0]
    return _load(kind if kind in _FUNCTIONS else "none")


def normaliser_names() -> tuple[str, ...]:
    """Return the names of the usual rule's normalisers, with their release: results scored by others differ."""
    return tuple(_full_name(kind) for kind in _FUNCTIONS if kind != "none" and "marks" not in kind)


@cache
def _load(kind: str) -> Normaliser:
    return Normaliser(_full_name(kind), _FUNCTIONS[kind](), by_letter=kind.endswith("by-letter"))


def _full_name(kind: str) -> str:
    return kind if kind == "none" else f"{kind}/{version('whisper-normalizer')}"
