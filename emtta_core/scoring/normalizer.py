"""The text normalizers, which determine what counts as the same word.

English text goes through Whisper's English normalizer (contractions, spellings, numbers, fillers), text in any other
language through its basic one, as in the evaluation of the Whisper paper (arXiv:2212.04356, appendix C). As there, each
letter counts as a word in languages written without spaces. This is the rule `whisper`; `basic` uses the basic
normalizer for English too, and `none` leaves texts unchanged.

The basic normalizer replaces each combining mark with a space. The vowel signs of Devanagari, Bengali, Thai and others
are such marks, so it splits their words into pieces and compares no vowels. The rule `marks` keeps them.

The rule `jiwer` follows earlier code of the paper's authors (arXiv:2605.08186): punctuation is removed, including
apostrophes, then jiwer's standard transform is applied; in English references, some abbreviations are first spelled
out, and all but letters, spaces and apostrophes removed (hhhaaahhhaa/Dynamic-SUTA, src/utils/tool.py,
src/corpus/corpus.py at a85802e).

Before Whisper's rules, `unified` maps equivalent characters from keyboards, editors or decoders to the same one. This
step is specific to this project, so its version is part of the name that is stored with a score.
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
"""Incremented whenever `unified` would return a different text."""

DOTLESS = frozenset({"az", "tr"})
"""The languages in which I is the capital of the dotless i, according to Unicode's SpecialCasing."""

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u02bb\u02bc\uff07\ua78c", "'"))
"""The right single quotation mark, the letters turned comma and apostrophe, the fullwidth one, and saltillo."""

_QUOTE_IN_WORD = re.compile(r"(?<=\w)[\u2018\u201b\u2032`\u00b4](?=\w)")
"""Opening quotation marks, prime, grave and acute accent, where they can only be an apostrophe."""

_INVISIBLE = re.compile(r"[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufe00-\ufe0f\ufeff]")
"""Soft hyphen, zero-width space, direction marks, word joiner, variation selectors, byte order mark: not letters, but
the library's rules keep them within words or replace them with a space. The joiners of Persian and Indic scripts, which
affect spelling, are kept."""

WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""The languages that are split into letters, by Whisper's codes: those of the Whisper paper, and Cantonese, which later
models support."""

MARKED = frozenset(
    {"as", "bn", "bo", "gu", "hi", "km", "kn", "lo", "ml", "mr", "my", "ne", "pa", "sa", "si", "ta", "te", "th", "yo"}
)
"""The languages with combining marks in nearly every sentence: vowel signs, and the tones of Yoruba, whose letters with
both dot and tone have no precomposed character."""


def unified(text: str, *, dotless: bool = False) -> str:
    """Map equivalent characters of Unicode to the same one.

    Characters and their marks are composed (NFC), typographic apostrophes become plain ones, invisible characters are
    removed, and the dotted capital İ becomes i: Python lower-cases it to an i with a combining dot, which would split
    words.

    Args:
        text: the original text.
        dotless: whether it is Turkish or Azerbaijani, where I is the capital of the dotless i.
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
    """Clean an English reference as the paper's authors do before the rule `jiwer`; hypotheses are not cleaned."""
    for written, spoken in _SPELLED_OUT.items():
        text = text.replace(written, spoken)
    return " ".join(re.sub("[^ A-Z']", "", text.upper()).split())


def _standardized() -> Callable[[str], str]:
    # Removes punctuation, then applies jiwer's standard transform without its last step, which splits into words.
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
    """A normalizer with its name, which is stored with each score."""

    name: str  # which one, the release of its package, and the version of `unified` applied before it
    function: Callable[[str], str]  # text to text
    by_letter: bool = False  # whether it separates letters, so that each counts as a word
    cleanup: Callable[[str], str] = str  # applied to a reference first

    def __call__(self, text: str) -> str:
        """Normalize a text to words separated by single spaces."""
        return " ".join(self.function(text).split())

    def reference(self, text: str) -> str:
        """Normalize a reference, which some rules clean first."""
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
    if rule == "marks":  # Khmer has no spaces either, but is not split in the Whisper paper
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
