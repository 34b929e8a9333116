"""The one record that every corpus yields."""

from collections.abc import Callable
from dataclasses import dataclass

from emtta_core.audio.waveform import Waveform


def _unknown() -> float | None:
    """Return that nothing is known of a length."""
    return None


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of speech with its transcript.

    Attributes:
        id: unique within its corpus and the same on every machine; letters, digits, `.`, `_` and `-`.
        text: the transcript as the corpus gives it, not normalised.
        language: ISO 639-1 code.
        speaker: who speaks; utterances of one speaker are not independent.
        read: returns the waveform; raises `emtta_core.errors.AudioError` where there is none to be had.
        seconds: returns its length as the audio's header tells it; None where it does not.
    """

    id: str
    text: str
    language: str
    speaker: str
    read: Callable[[], Waveform]
    seconds: Callable[[], float | None] = _unknown
