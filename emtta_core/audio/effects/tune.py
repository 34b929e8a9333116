"""Music by a recipe: four chords round and round, with a bass, broken chords and drums."""

import numpy as np

from emtta_core.audio.noise.parts import burst, clock, placed, ring, spread_levels
from emtta_core.audio.spectrum import Samples, high_pass, reverberated
from emtta_core.audio.waveform import SAMPLE_RATE

_PROGRESSIONS = ((0, 7, 9, 5), (9, 5, 0, 7), (0, 9, 5, 7), (0, 5, 9, 7))
"""Roots of the chords, in semitones above the key; 9 is minor."""


def tune(samples: int, rng: np.random.Generator) -> Samples:
    """Return a tune of 84 to 132 beats a minute, shape `(samples,)`, of any level.

    A chord lasts two beats. On each beat there are the bass and a kick (a damped sine at 55 Hz), between them a
    hi-hat (noise above 5 kHz), and on each half of a beat a note of the chord, plucked; a room answers for 0.4 s.
    """
    beat = 60 / float(rng.uniform(84, 132))
    key = 55 * 2 ** (rng.integers(12) / 12)
    roots = _PROGRESSIONS[int(rng.integers(len(_PROGRESSIONS)))]
    begun = -float(rng.uniform(0, 8 * beat))
    halves: Samples = begun + 0.5 * beat * np.arange(int((samples / SAMPLE_RATE - begun) / (0.5 * beat)) + 2.0)
    steps = rng.integers(3, size=halves.size)
    loudness = spread_levels(halves.size, rng, 2.0)
    hat = burst(0.06, rng, high_pass(5000), 0.015)
    total = placed(samples, halves[1::2], 0.25 * loudness[1::2], hat)
    total += placed(samples, halves[::2], 0.8 * loudness[::2], ring(0.25, 55, 0.08))
    for place, root in enumerate(roots):
        third = 3 if root == 9 else 4
        sounding = np.arange(halves.size) // 4 % 4 == place
        bass = sounding & (np.arange(halves.size) % 2 == 0)
        total += placed(samples, halves[bass], 0.7 * loudness[bass], _pluck(key * 2 ** (root / 12), beat, 0.4))
        for step, tone in enumerate((root, root + third, root + 7)):
            plucked = sounding & (steps == step)
            note = _pluck(4 * key * 2 ** (tone / 12), beat, 0.35)
            total += placed(samples, halves[plucked], 0.5 * loudness[plucked], note)
            held = sounding & (np.arange(halves.size) % 4 == 0)
            total += placed(samples, halves[held], 0.2 * loudness[held], _held(2 * key * 2 ** (tone / 12), 2 * beat))
    hiss = 1e-4 * rng.standard_normal(samples)  # a tune may begin with a rest; this is never silent
    return reverberated(total, rng, 0.4, 0.3) + hiss


def _pluck(hertz: float, seconds: float, decay: float) -> Samples:
    """Return a plucked string: eight harmonics that fall by 1/e in `decay` seconds, the higher the sooner."""
    return sum((ring(2 * seconds, n * hertz, decay / n) / n for n in range(1, 9)), np.zeros(1))


def _held(hertz: float, seconds: float) -> Samples:
    """Return a held note: three harmonics that swell and fade."""
    time = clock(int(seconds * SAMPLE_RATE))
    swell = np.sin(np.pi * time / seconds)
    return swell * sum((np.sin(2 * np.pi * n * hertz * time) / n for n in (1, 2, 3)), np.zeros(1))
