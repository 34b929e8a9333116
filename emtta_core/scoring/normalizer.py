"""The text normalizers of Whisper, which decide what counts as the same word.

English text goes through Whisper's English normalizer (contractions, spellings, numbers, fillers), text in
any other language through its basic one, as in the evaluation of the Whisper paper (arXiv:2212.04356,
appendix C). Of a language that is written without spaces each letter counts as a word there, and so here.
That is the rule `whisper`; `basic` takes the basic normalizer for English too, and `none` leaves texts as they are.

The basic normalizer puts a space in the place of each combining mark. The vowel signs of Devanagari, Bengali, Thai and
others are such marks, so that it cuts their words into pieces and compares no vowel. The rule `marks` keeps them.

The rule `jiwer` is what the authors of the paper (arXiv:2605.08186) do in earlier code: punctuation goes, apostrophes
too, then comes jiwer's standard transform; English references first have some abbreviations spelled out, and lose all
but letters, spaces and apostrophes (hhhaaahhhaa/Dynamic-SUTA, src/utils/tool.py, src/corpus/corpus.py at a85802e).

Before Whisper's rules, `unified` writes the same text with the same characters, whatever a keyboard, an editor or a
decoder made of it. It is this project's own step, and so it has a number in the name that is stored beside a score.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from types import MappingProxyType
from typing import Literal

import jiwer
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

Rule = Literal["whisper", "basic", "marks", "jiwer", "none"]

UNICODE_VERSION = 1
"""Raised whenever `unified` would give another text."""

DOTLESS = frozenset({"az", "tr"})
"""The languages in which I is the capital of the dotless small i, by Unicode's SpecialCasing."""

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u02bb\u02bc\uff07\ua78c", "'"))
"""The right single quotation mark, the letters turned comma and apostrophe, the fullwidth one, and saltillo."""

_QUOTE_IN_WORD = re.compile(r"(?<=\w)[\u2018\u201b\u2032`\u00b4](?=\w)")
"""Opening quotation marks, prime, grave and acute accent, where they can be nothing but an apostrophe."""

_INVISIBLE = re.compile(r"[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufe00-\ufe0f\ufeff]")
"""Soft hyphen, zero-width space, direction marks, word joiner, variation selectors, byte order mark: no letters, but
the library's rules keep them within words, or put a space there. The joiners of Persian and Indic scripts, which do
change a spelling, are left."""

WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""The languages whose letters are set apart, by Whisper's codes: those of the Whisper paper, and Cantonese, which later
models know."""

MARKED = frozenset(
    {"as", "bn", "bo", "gu", "hi", "km", "kn", "lo", "ml", "mr", "my", "ne", "pa", "sa", "si", "ta", "te", "th", "yo"}
)
"""The languages that write combining marks in nearly every sentence: vowel signs, and the tones of Yoruba, for which
letters with both dot and tone have no character of their own."""


def unified(text: str, *, dotless: bool = False) -> str:
    """Write a text with one character for each thing that Unicode has several for.

    Characters and their marks are composed (NFC), typographic apostrophes become plain ones, invisible characters go,
    and the dotted capital İ becomes i: Python's small letter of it is an i with a second dot, a mark that cuts words.

    Args:
        text: as it came.
        dotless: whether it is Turkish or Azerbaijani, where the capital I is that of the dotless small i.
    """
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text)).translate(_APOSTROPHES)
    text = _QUOTE_IN_WORD.sub("'", text).replace("\u0130", "i")
    if dotless:
        text = text.replace("I", "\u0131")
    return unicodedata.normalize("NFC", text.replace("i\u0307", "i"))


_SPELLED_OUT: Mapping[str, str] = {
    "i.e.": "that is",
    "e.g.": "for example",
    "Mr.": "Mister",
    "Mrs.": "Mistress",
    "Dr.": "Doctor",
    "-": " ",
}


def english_reference(text: str) -> str:
    """An English transcript as the paper's authors clean it, before the rule `jiwer`; no hypothesis is cleaned so."""
    for written, spoken in _SPELLED_OUT.items():
        text = text.replace(written, spoken)
    return " ".join(re.sub("[^ A-Z']", "", text.upper()).split())


def _standardized() -> Callable[[str], str]:
    # Punctuation removed, then jiwer's standard transform but for its last step, which cuts the text into words.
    transform = jiwer.Compose([jiwer.RemovePunctuation(), *jiwer.wer_standardize.transforms[:-1]])
    return lambda text: str(transform(text))


_FUNCTIONS: Mapping[str, Callable[[], Callable[[str], str]]] = MappingProxyType(
    {
        "whisper-english": EnglishTextNormalizer,
        "whisper-basic": BasicTextNormalizer,
        "whisper-basic-dotless": BasicTextNormalizer,
        "whisper-basic-by-letter": partial(BasicTextNormalizer, split_letters=True),
        "whisper-marks": partial(BasicTextNormalizer, preserve_marks=True),
        "whisper-marks-dotless": partial(BasicTextNormalizer, preserve_marks=True),
        "whisper-marks-by-letter": partial(BasicTextNormalizer, split_letters=True, preserve_marks=True),
        "jiwer": _standardized,
        "jiwer-english": _standardized,
        "none": lambda: str,
    }
)


@dataclass(frozen=True, slots=True)
class Normalizer:
    """A normalizer with its name, which is stored beside each score."""

    name: str  # which one, the release of the package that holds it, and the version of `unified` before it
    function: Callable[[str], str]  # text to text
    by_letter: bool = False  # whether it sets the letters apart, so that each counts as a word
    cleanup: Callable[[str], str] = str  # what is done to a reference before

    def __call__(self, text: str) -> str:
        """Normalize a text: single spaces between its words and none around them."""
        return " ".join(self.function(text).split())

    def reference(self, text: str) -> str:
        """Normalize a transcript, which some rules clean first."""
        return self(self.cleanup(text))


def normalizer(language: str, rule: Rule = "whisper") -> Normalizer:
    """The normalizer for an ISO 639-1 language code."""
    if rule == "none":
        return _load("none")
    if rule == "jiwer":
        return _load("jiwer-english" if language == "en" else "jiwer")
    if language == "en" and rule != "basic":
        return _load("whisper-english")
    if language in DOTLESS:
        return _load("whisper-marks-dotless" if rule == "marks" else "whisper-basic-dotless")
    if rule == "marks":  # Khmer has no spaces either, which Whisper's authors let be
        return _load("whisper-marks-by-letter" if language in {*WITHOUT_SPACES, "km"} else "whisper-marks")
    return _load("whisper-basic-by-letter" if language in WITHOUT_SPACES else "whisper-basic")


@cache
def _load(kind: str) -> Normalizer:
    function = _FUNCTIONS[kind]()
    if kind == "none":
        return Normalizer(kind, function)
    if kind.startswith("jiwer"):
        return Normalizer(_full_name(kind), function, cleanup=english_reference if kind == "jiwer-english" else str)
    dotless = kind.endswith("dotless")
    return Normalizer(
        _full_name(kind),
        lambda text: function(unified(text, dotless=dotless)),
        by_letter=kind.endswith("by-letter"),
    )


def _full_name(kind: str) -> str:
    if kind.startswith("jiwer"):
        return f"{kind}/{version('jiwer')}"
    return f"{kind}/{version('whisper-normalizer')}+unicode-{UNICODE_VERSION}"
