"""Time and pitch, each changed without the other, by Signalsmith Stretch (python-stretch)."""

from typing import Any

import numpy as np

from emtta_core.audio.corrupted import Corrupted, Voices
from emtta_core.audio.effects.libraries import load
from emtta_core.audio.effects.parts import fitted, levelled
from emtta_core.audio.spectrum import Samples
from emtta_core.audio.waveform import SAMPLE_RATE

_MARGIN = SAMPLE_RATE // 4
"""Samples of silence on either side while it is stretched, so that no edge is lost."""


def speed(speech: Samples, factor: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Speak so many times as fast; the length is divided by it, and the pitch stays."""
    stretch = _stretch(rng, "speed")
    stretch.setTimeFactor(factor)
    whole = _processed(stretch, speech)
    return levelled(fitted(whole[round(_MARGIN / factor) :], max(1, round(speech.size / factor))))


def pitch(speech: Samples, semitones: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Raise or lower the pitch, by utterance, by so many semitones; the length stays."""
    upwards = bool(rng.integers(2))
    stretch = _stretch(rng, "pitch")
    stretch.setTransposeSemitones(semitones if upwards else -semitones)
    return levelled(fitted(_processed(stretch, speech)[_MARGIN:], speech.size))


def _stretch(rng: np.random.Generator, wanted_by: str) -> Any:
    """Return a stretcher for mono at 16 kHz, its chance drawn from `rng`; the library has no types."""
    stretch = load("python-stretch", wanted_by).Signalsmith.Stretch(int(rng.integers(2**31)))
    stretch.preset(1, SAMPLE_RATE)
    return stretch


def _processed(stretch: Any, speech: Samples) -> Samples:
    """Return what becomes of the speech, with the margins on both sides."""
    padded = np.pad(speech, _MARGIN).astype(np.float32)
    processed: Samples = np.asarray(stretch.process(padded[None])[0], dtype=np.float64)
    return processed
