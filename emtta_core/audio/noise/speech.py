"""Noises made of other people's speech, which the caller gives.

Each recipe returns `samples` samples of any overall level, shape `(samples,)`, from one or more voices, each
a stretch of clean speech of unit RMS, shape `(N,)`. A voice shorter than the noise is repeated, with pauses.
"""

from collections.abc import Sequence

import numpy as np

from emtta_core.audio.level import rms
from emtta_core.audio.noise.parts import burst, clock, placed, ring, spread_levels, times
from emtta_core.audio.spectrum import Samples, band_pass, coloured_noise, filtered, low_pass, reverberated
from emtta_core.audio.waveform import SAMPLE_RATE


def babble(samples: int, rng: np.random.Generator, voices: Sequence[Samples]) -> Samples:
    """A cafeteria: six to eight people talk at once, near and far, in a room that answers for 0.5 s."""
    talkers = int(rng.integers(6, 9))
    near = spread_levels(talkers, rng, 2.5)
    order = [voices[talker % len(voices)] for talker in rng.permutation(max(talkers, len(voices)))[:talkers]]
    crowd = sum((near[i] * _talk(samples, rng, [voice], 0.3) for i, voice in enumerate(order)), np.zeros(samples))
    return reverberated(crowd, rng, 0.5, 0.5) + 0.05 * coloured_noise(samples, rng, low_pass(500, order=1))


def airport_announcements(samples: int, rng: np.random.Generator, voices: Sequence[Samples]) -> Samples:
    """A departure hall: a chime, then an announcement, from loudspeakers, over the murmur of the hall.

    The chime is three falling notes. Loudspeakers pass 350 Hz to 4 kHz, the hall answers for 1.8 s. The
    murmur is everyone's speech, far off and blurred until no word is left, and the air of the ventilation.
    """
    announcer = voices[int(rng.integers(len(voices)))]
    chime = _chime(rng)
    cycle = np.concatenate([chime, announcer, np.zeros(int(rng.uniform(0.3, 0.8) * SAMPLE_RATE))])
    calls = filtered(_repeated(samples, rng, cycle), band_pass(350, 4000))
    crowd = sum((_talk(samples, rng, [voice], 0.2) for voice in voices), np.zeros(samples))
    murmur = reverberated(filtered(crowd, low_pass(1200)), rng, 2.0, 3.0)
    murmur += coloured_noise(samples, rng, low_pass(400, order=1))
    return reverberated(calls, rng, 1.8, 0.9) + murmur * (0.25 / rms(murmur))


def neighbour(samples: int, rng: np.random.Generator, voices: Sequence[Samples]) -> Samples:
    """People next door talk in turn and walk about, heard through a wall.

    The wall passes little above 350 to 500 Hz (18 dB an octave); steps and bumps come through it as thumps
    between 45 and 80 Hz, one every 0.4 to 1.6 s; the listener's own room has a faint tone.
    """
    talk = filtered(_talk(samples, rng, voices, 0.25), low_pass(rng.uniform(350, 500), order=3))
    thumps = times(samples / SAMPLE_RATE, rng, 0.4, 1.6)
    body = ring(0.3, rng.uniform(45, 80), 0.05) + burst(0.3, rng, low_pass(150), 0.03)
    dry = talk + placed(samples, thumps, 0.8 * spread_levels(thumps.size, rng, 4.0), body)
    return reverberated(dry, rng, 0.4, 0.4) + 0.02 * coloured_noise(samples, rng, low_pass(300, order=1))


def _talk(samples: int, rng: np.random.Generator, voices: Sequence[Samples], pause: float) -> Samples:
    """Return `voices` in turn, in random order from a random moment on, about `pause` seconds apart."""
    turns: list[Samples] = []
    for voice in rng.permutation(len(voices)):
        turns += [voices[voice], np.zeros(int(rng.uniform(0.5, 1.5) * pause * SAMPLE_RATE))]
    return _repeated(samples, rng, np.concatenate(turns))


def _repeated(samples: int, rng: np.random.Generator, cycle: Samples) -> Samples:
    """Return `samples` samples of `cycle`, over and over, from a random moment of it on."""
    return cycle[(int(rng.integers(cycle.size)) + np.arange(samples)) % cycle.size]


def _chime(rng: np.random.Generator) -> Samples:
    """Return three falling notes of a vibraphone, 0.25 s apart, the last with time to fade; 1.1 s."""
    root = rng.uniform(420, 560)
    length = int(1.1 * SAMPLE_RATE)
    chime = np.zeros(length)
    for note, ratio in enumerate((1.5, 1.25, 1.0)):
        time = clock(length) - 0.25 * note
        struck = np.where(time > 0, np.minimum(time / 0.005, 1) * np.exp(-np.maximum(time, 0) / 0.35), 0)
        chime += struck * (np.sin(2 * np.pi * root * ratio * time) + 0.2 * np.sin(8 * np.pi * root * ratio * time))
    return 1.2 * chime
