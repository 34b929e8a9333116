"""Noises of single events: clicks, bites, slams, pages; each over a quiet room, so that none is ever silent.

Each recipe returns `samples` samples of any overall level, shape `(samples,)`.
"""

import numpy as np

from emtta_core.audio.noise.parts import burst, clock, drift, placed, ring, spread_levels, times, tone
from emtta_core.audio.spectrum import (
    Samples,
    band_pass,
    coloured_noise,
    filtered,
    high_pass,
    low_pass,
    reverberated,
)
from emtta_core.audio.waveform import SAMPLE_RATE


def typing(samples: int, rng: np.random.Generator) -> Samples:
    """Somebody types: strokes of random level 70 to 260 ms apart, with a pause now and then.

    A stroke is a click (noise above 2 kHz, 3 ms), the thock of the key on its plate (noise at 300 to 1,200
    Hz, 12 ms), and, 60 to 110 ms later, the lighter click of the key as it comes back. A tenth of the strokes
    are left out, and a quarter of them sound deeper: the space bar.
    """
    strokes = times(samples / SAMPLE_RATE, rng, 0.07, 0.26)
    strokes = strokes[rng.random(strokes.size) > 0.1]
    loudness = spread_levels(strokes.size, rng, 4.0)
    space = rng.random(strokes.size) < 0.25
    click = burst(0.02, rng, high_pass(2000), 0.003)
    thock = burst(0.06, rng, band_pass(300, 1200), 0.012)
    bar = burst(0.08, rng, band_pass(150, 600), 0.02)
    back = strokes + rng.uniform(0.06, 0.11, strokes.size)
    dry = (
        placed(samples, strokes, loudness, click)
        + placed(samples, strokes[~space], loudness[~space], thock)
        + placed(samples, strokes[space], loudness[space], bar)
        + placed(samples, back, 0.35 * loudness, click)
    )
    return reverberated(dry, rng, 0.25, 0.2) + 0.01 * _room(samples, rng)


def shutting_door(samples: int, rng: np.random.Generator) -> Samples:
    """Doors are slammed along a corridor, one every 0.7 to 1.4 s, near and far.

    A slam is the snap of the latch, the blow of the leaf on its frame (noise below 900 Hz, 25 ms), and the
    boom of the panel (two damped modes between 60 and 160 Hz); the corridor answers for 0.8 s.
    """
    slams = times(samples / SAMPLE_RATE, rng, 0.7, 1.4)
    loudness = spread_levels(slams.size, rng, 4.0)
    latch = burst(0.04, rng, band_pass(1200, 5000), 0.006)
    blow = burst(0.2, rng, low_pass(900, order=1), 0.025)
    low, high = rng.uniform(60, 90), rng.uniform(110, 160)
    boom = ring(0.6, low, 0.12) + 0.6 * ring(0.6, high, 0.07)
    dry = (
        placed(samples, slams - rng.uniform(0.02, 0.06), 0.5 * loudness, latch)
        + placed(samples, slams, loudness, blow)
        + placed(samples, slams, 0.8 * loudness, boom)
    )
    return reverberated(dry, rng, 0.8, 0.5) + 0.01 * _room(samples, rng)


def munching(samples: int, rng: np.random.Generator) -> Samples:
    """Somebody eats crisps close by: a crunch every 0.3 to 0.65 s, and softer chewing between.

    A crunch is a shower of tiny fractures, 800 to 2,000 a second at first, that dies away in about 90 ms;
    each is a click coloured by the mouth (700 Hz to 5 kHz). Chewing is muffled noise that follows the jaw.
    """
    bites = times(samples / SAMPLE_RATE, rng, 0.3, 0.65)
    jaw = _bite(0.35, rng.uniform(0.07, 0.11))
    crunching = placed(samples, bites, spread_levels(bites.size, rng, 3.0), jaw)
    fractures = rng.random(samples) < rng.uniform(800, 2000) / SAMPLE_RATE * np.minimum(crunching, 2)
    clicks = fractures * np.sqrt(crunching) * rng.standard_normal(samples)
    crunch = filtered(clicks, band_pass(700, 5000, order=1))
    chewing = coloured_noise(samples, rng, band_pass(150, 900)) * (0.2 + crunching) * 0.05
    return crunch + chewing + 0.003 * _room(samples, rng)


def copy_machine(samples: int, rng: np.random.Generator) -> Samples:
    """A copier makes copies, one every 1.1 to 1.5 s, without end.

    In each the lamp's carriage whines up from 180 to 420 Hz and, faster, back; rollers pull a sheet through
    (a rush of noise at 800 Hz to 5 kHz); and the tray is struck twice. The fan and the drum go on throughout.
    """
    cycle = rng.uniform(1.1, 1.5)
    phase = (clock(samples) / cycle + rng.random()) % 1
    pitch = np.interp(phase, [0, 0.08, 0.55, 0.62, 0.9, 1], [180, 200, 420, 430, 190, 180])
    loudness = np.interp(phase, [0, 0.04, 0.55, 0.6, 0.64, 0.9, 0.95, 1], [0, 1, 1, 0.1, 0.8, 0.8, 0, 0])
    carriage = loudness * tone(pitch, rng, 0.75 ** np.arange(12.0))
    sheet = np.interp(phase, [0, 0.3, 0.36, 0.52, 0.6, 1], [0, 0, 1, 1, 0, 0])
    paper = sheet * coloured_noise(samples, rng, band_pass(800, 5000)) * (1 + 0.4 * drift(samples, rng, 30.0))
    strikes = np.flatnonzero(np.diff(np.floor(2 * phase + 0.1) % 2, prepend=0.0)) / SAMPLE_RATE
    clunk = burst(0.12, rng, band_pass(200, 2500, order=1), 0.015) + ring(0.12, 130, 0.03)
    clunks = placed(samples, strikes, 2.5 * spread_levels(strikes.size, rng, 1.5), clunk)
    return carriage + 0.9 * paper + clunks + 0.3 * _room(samples, rng)


def _bite(seconds: float, decay: float) -> Samples:
    """Return the envelope of a bite: up in 15 ms, down by 1/e in `decay` seconds, cut after `seconds`."""
    time = clock(int(seconds * SAMPLE_RATE))
    return np.minimum(time / 0.015, 1) * np.exp(-time / decay)


def _room(samples: int, rng: np.random.Generator) -> Samples:
    """Return a quiet room with a fan somewhere: noise low-passed at 300 Hz, 6 dB an octave, of unit RMS."""
    return coloured_noise(samples, rng, low_pass(300, order=1))
