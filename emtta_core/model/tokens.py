"""How many tokens per second of speech are allowed in a language with Whisper's vocabulary.

The vocabulary of the multilingual models was built from mostly English text: it has few words of other scripts, and for
some not even the letters, which then take two or three byte tokens each.

Measured on the Universal Declaration of Human Rights, whose translations have the same content and so take about the
same time to read (Pellegrino et al., Science Advances 5, 2019): the English text has 1,361 words, which is 340 s of
fast read speech at 4 words per second. A language needs the tokens of its text divided by those 340 s.
`TOKENS_PER_SECOND` is enough for all of Whisper's languages except those in `_HIGHER_LIMITS`
(`benchmarks/spelling.py`; figures in docs/models.md).
"""

from collections.abc import Mapping

TOKENS_PER_SECOND = 12.0
"""Sequences are cut at this many tokens per second of audio, plus a margin, unless the language needs more."""

_HIGHER_LIMITS: Mapping[float, str] = {
    15.0: "az be el fa ha haw hu mi mt oc sd sq tg ur",
    21.0: "ba kk mn ps th tt vi yo",
    30.0: "hi hy mr ne sa ta yi",
    50.0: "am as bn kn pa si te",
    70.0: "gu ka km lo ml",
    105.0: "bo my",
}
"""The languages that need more, by their limit. Sindhi, Assamese and Bashkir, for which there was no text, have the
limits of Persian, Bengali and Tatar, whose scripts they share. A change here changes the identity of cells whose corpus
has one language; for folders with several, and for detected ones, also increment `ALGORITHM_VERSION`."""

_LIMITS = {language: limit for limit, languages in _HIGHER_LIMITS.items() for language in languages.split()}


def tokens_per_second(language: str) -> float:
    """The maximum number of tokens per second for a language, given by Whisper's code."""
    return _LIMITS.get(language, TOKENS_PER_SECOND)
