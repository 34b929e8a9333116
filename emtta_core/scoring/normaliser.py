"""The text normalisers of Whisper, which decide what counts as the same word.

English text goes through Whisper's English normaliser (contractions, spellings, numbers, fillers), text in
any other language through its basic one, as in the evaluation of the Whisper paper (arXiv:2212.04356,
appendix C).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer


@dataclass(frozen=True, slots=True)
class Normaliser:
    """A normaliser with its name, which is stored beside each score.

    Attributes:
        name: which one, and the release of the package that holds it.
        function: text to text.
    """

    name: str
    function: Callable[[str], str]

    def __call__(self, text: str) -> str:
        """Return `text` normalised, with single spaces between its words and none around them."""
        return " ".join(self.function(text).split())


def normaliser(language: str) -> Normaliser:
    """Return the normaliser for an ISO 639-1 language code."""
    return _load("english" if language == "en" else "basic")


@cache
def _load(kind: str) -> Normaliser:
    function = EnglishTextNormalizer() if kind == "english" else BasicTextNormalizer()
    return Normaliser(f"whisper-{kind}/{version('whisper-normalizer')}", function)
