"""How many tokens a second of speech may have in a language, as Whisper's vocabulary spells it.

The vocabulary of the multilingual models is made of text that is mostly English: of other scripts it has few words, and
of some not even the letters, which are then spelt in two or three tokens of bytes each.

Measured on the Universal Declaration of Human Rights, whose translations say the same and so take about the same time
to read (Pellegrino and others, Science Advances 5, 2019): English has 1,361 words, which are 340 s of fast read speech
of 4 words a second. What a language needs are the tokens of its text a second of those 340. `TOKENS_PER_SECOND` is
enough for all of Whisper's languages but those in `_MORE` (`benchmarks/spelling.py`; figures in docs/models.md).
"""

from collections.abc import Mapping

TOKENS_PER_SECOND = 12.0
"""Sequences are cut at this many tokens a second of audio, plus a margin, where the language needs no more."""

_MORE: Mapping[float, str] = {
    15.0: "az be el fa ha haw hu mi mt oc sd sq tg ur",
    21.0: "ba kk mn ps th tt vi yo",
    30.0: "hi hy mr ne sa ta yi",
    50.0: "am as bn kn pa si te",
    70.0: "gu ka km lo ml",
    105.0: "bo my",
}
"""The languages that need more, by what they are given; Sindhi, Assamese and Bashkir, of which there was no text, as
much as Persian, Bengali and Tatar, whose scripts they share. A change here changes the identity of cells in the one
language of their corpus; for folders of several, and for detected ones, raise `ALGORITHM_VERSION` with it."""

_OF_LANGUAGE = {language: most for most, languages in _MORE.items() for language in languages.split()}


def tokens_per_second(language: str) -> float:
    """The most tokens a second of a language, by Whisper's code of it."""
    return _OF_LANGUAGE.get(language, TOKENS_PER_SECOND)
