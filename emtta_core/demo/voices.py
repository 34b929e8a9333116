"""Which espeak-ng voices the demo model hears in training; every other voice is held out."""

LANGUAGES = ("en", "de", "nl", "fr", "es", "it", "pt", "pl")
"""ISO 639-1 codes of the languages that the demo model knows."""

ENGLISH_SHARE = 0.3
"""Share of the training utterances that is English; the other languages share the rest equally."""

_BASE = {"en": "en-us"}
_VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")


def trained_voices(language: str) -> tuple[str, ...]:
    """Return the voices of a language that the model hears in training: the plain voice and its common variants."""
    base = _BASE.get(language, language)
    return (base, *(f"{base}+{variant}" for variant in _VARIANTS))
