"""What a corruption gives, and the voices that it may ask for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from emtta_core.audio.waveform import Waveform

Voices = Callable[[int], Sequence[Waveform]]
"""Gives so many stretches of clean speech, each shape `(N,)`, of voices foreign to the utterance; always the same."""


@dataclass(frozen=True, slots=True)
class Corrupted:
    """Corrupted speech.

    Attributes:
        waveform: shape `(N,)`, the clean speech's but where its speed was changed; within full scale.
        gain: the factor that scaled it back because it passed full scale; 1.0 where it did not.
        snr_db: the signal-to-noise ratio in dB that the mixture has; None where there is no noise.
    """

    waveform: Waveform
    gain: float
    snr_db: float | None
