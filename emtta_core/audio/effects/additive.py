"""Sounds beside the speech: noise, music, other people. The amount is the signal-to-noise ratio in dB."""

from collections.abc import Sequence

import numpy as np

from emtta_core.audio.corrupted import Corrupted, Voices
from emtta_core.audio.effects.tune import tune
from emtta_core.audio.mix import mix
from emtta_core.audio.noise import VOICES, NoiseKind, synthesise
from emtta_core.audio.spectrum import Samples
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform

ENVIRONMENTS: Sequence[NoiseKind] = (
    "air-conditioner",
    "copy-machine",
    "munching",
    "shutting-door",
    "typing",
    "vacuum-cleaner",
)
"""The noises that are made of no speech; an utterance hears one of them."""

_TALKERS = 8
"""Voices of which one talks across the speech."""


def gaussian(speech: Samples, snr_db: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Add white noise."""
    return _added(speech, synthesise("gaussian", speech.size / SAMPLE_RATE, rng), snr_db)


def environment(speech: Samples, snr_db: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Add one of the noises of `ENVIRONMENTS`."""
    kind = ENVIRONMENTS[int(rng.integers(len(ENVIRONMENTS)))]
    return _added(speech, synthesise(kind, speech.size / SAMPLE_RATE, rng), snr_db)


def babble(speech: Samples, snr_db: float, rng: np.random.Generator, voices: Voices) -> Corrupted:
    """Add six to eight people who talk at once."""
    noise = synthesise("babble", speech.size / SAMPLE_RATE, rng, voices=voices(VOICES["babble"]))
    return _added(speech, noise, snr_db)


def music(speech: Samples, snr_db: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Add a tune: chords, bass and drums."""
    return _added(speech, tune(speech.size, rng).astype(np.float32), snr_db)


def crosstalk(speech: Samples, snr_db: float, rng: np.random.Generator, voices: Voices) -> Corrupted:
    """Add one other speaker, who talks all the time and is always the quieter one."""
    talkers = voices(_TALKERS)
    talker = talkers[int(rng.integers(len(talkers)))]
    return _added(speech, np.roll(talker, -int(rng.integers(talker.size))), snr_db)


def _added(speech: Samples, noise: Waveform, snr_db: float) -> Corrupted:
    mixture = mix(speech, noise, snr_db)
    return Corrupted(mixture.waveform, mixture.gain, snr_db)
