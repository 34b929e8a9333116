"""Noises that go on and on: their character is in the spectrum, and time hardly changes it.

Each recipe returns `samples` samples of any overall level, shape `(samples,)`.
"""

import numpy as np

from emtta_core.audio.noise.parts import clock, drift, tone
from emtta_core.audio.spectrum import Samples, band_pass, coloured_noise, low_pass


def gaussian(samples: int, rng: np.random.Generator) -> Samples:
    """White noise: each sample is drawn from a normal distribution, on its own."""
    return rng.standard_normal(samples)


def air_conditioner(samples: int, rng: np.random.Generator) -> Samples:
    """A room unit: rush of air, beaten by the fan's blades, over the hum of its motor.

    The air is noise low-passed at 350 to 600 Hz, 6 dB an octave, with a faint hiss above; the blades modulate
    it by a fifth, 18 to 28 times a second; the hum is the second harmonic of the mains and its multiples.
    """
    blades = rng.uniform(18, 28) * clock(samples) + rng.random()
    air = coloured_noise(samples, rng, low_pass(rng.uniform(350, 600), order=1))
    hiss = 0.08 * coloured_noise(samples, rng, band_pass(1500, 6000))
    mains = rng.choice([50.0, 60.0])
    hum = tone(np.full(samples, 2 * mains), rng, 0.6 ** np.arange(8.0))
    beaten = (air + hiss) * (1 + 0.2 * np.sin(2 * np.pi * blades)) * (1 + 0.1 * drift(samples, rng, 1.0))
    return beaten + 0.35 * hum


def vacuum_cleaner(samples: int, rng: np.random.Generator) -> Samples:
    """A vacuum cleaner being pushed over a carpet: a whining motor and a roar of air.

    The motor turns 250 to 340 times a second and its speed sags by a few per cent as the nozzle is pushed and
    pulled; its harmonics fall by 3 dB each, and the blades of its fan bring the seventh out. The air is noise
    from 250 Hz to 5 kHz, whose level moves with the nozzle.
    """
    strokes = drift(samples, rng, 1.5)
    speed = rng.uniform(250, 340) * (1 + 0.03 * strokes)
    harmonics = 10 ** (-3 * np.arange(24.0) / 20)
    harmonics[6] = 0.8
    motor = tone(speed, rng, harmonics)
    air = coloured_noise(samples, rng, band_pass(250, 5000, order=1))
    return 0.8 * motor + air * (1 - 0.25 * strokes)
