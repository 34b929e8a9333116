"""The ten noises of the paper's noise domains, each synthesised by a short recipe."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from emtta_core.audio.mix import rms
from emtta_core.audio.spectrum import (
    Response,
    Samples,
    band_pass,
    coloured_noise,
    filtered,
    high_pass,
    low_pass,
    reverberated,
)
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform, checked, refuse_silence
from emtta_core.errors import UsageError, unknown


def clock(samples: int) -> Samples:
    """The time of each sample in seconds, shape `(samples,)`."""
    return np.arange(samples) / SAMPLE_RATE


def drift(samples: int, rng: np.random.Generator, hertz: float) -> Samples:
    """Draw a random curve, shape `(samples,)`, within -1 and 1, with about `hertz` turning points per second."""
    knots = rng.uniform(-1, 1, int(samples / SAMPLE_RATE * hertz) + 2)
    return np.interp(clock(samples) * hertz, np.arange(knots.size), knots)


def tone(hertz: Samples, rng: np.random.Generator, levels: Samples) -> Samples:
    """A periodic sound of unit RMS, shape `(N,)`, whose pitch may vary.

    Args:
        hertz: the pitch at each sample, shape `(N,)`.
        rng: draws the phases of the harmonics.
        levels: the amplitudes of harmonics 1, 2, …; those above half the sample rate are left out.
    """
    audible = levels[: max(1, int(SAMPLE_RATE / 2 / hertz.max()))]
    # One period from its harmonics; it is then read at the speed given by the pitch at each sample.
    spectrum = np.zeros(_PERIOD // 2 + 1, dtype=np.complex128)
    spectrum[1 : audible.size + 1] = audible * np.exp(2j * np.pi * rng.random(audible.size))
    period = np.fft.irfft(spectrum)
    period /= np.sqrt(np.mean(period**2))
    phase = rng.random() + np.cumsum(hertz) / SAMPLE_RATE
    sound: Samples = np.interp(phase % 1 * _PERIOD, np.arange(_PERIOD + 1), np.append(period, period[0]))
    return sound


_PERIOD = 2048
"""Samples in the table of one period of a `tone`."""


def times(seconds: float, rng: np.random.Generator, shortest: float, longest: float) -> Samples:
    """Draw the times of irregular events in seconds: intervals uniform between `shortest` and `longest`.

    The first comes within one `shortest`, so that no span of `longest` is without an event. Shape `(E,)`.
    """
    # As many as there would be if all were the shortest; those after the end are dropped.
    intervals = rng.uniform(shortest, longest, int(seconds / shortest) + 1)
    starts = rng.uniform(0, shortest) + np.cumsum(intervals) - intervals
    return starts[starts < seconds]


def burst(seconds: float, rng: np.random.Generator, response: Response, decay: float) -> Samples:
    """A burst of noise of colour `response` that decays to 1/e in `decay` seconds, cut after `seconds`."""
    samples = int(seconds * SAMPLE_RATE)
    return coloured_noise(samples, rng, response) * np.exp(-clock(samples) / decay)


def ring(seconds: float, hertz: float, decay: float) -> Samples:
    """A struck body: a sine at `hertz` that decays to 1/e in `decay` seconds, cut after `seconds`."""
    time = clock(int(seconds * SAMPLE_RATE))
    return np.sin(2 * np.pi * hertz * time) * np.exp(-time / decay)


def placed(samples: int, starts: Samples, levels: Samples, sound: Samples) -> Samples:
    """Sum copies of `sound` that begin at `starts` (seconds, shape `(E,)`) with the given levels: `(samples,)`."""
    total = np.zeros(samples + sound.size)
    for start, level in zip((starts * SAMPLE_RATE).astype(int), levels, strict=True):
        if 0 <= start < samples:
            total[start : start + sound.size] += level * sound
    return total[:samples]


def spread_levels(count: int, rng: np.random.Generator, spread_db: float) -> Samples:
    """Draw amplitudes, shape `(count,)`, around 1, normally distributed with a deviation of `spread_db` dB."""
    return 10 ** (rng.normal(0, spread_db, count) / 20)


def gaussian(samples: int, rng: np.random.Generator) -> Samples:
    """White noise: each sample is drawn independently from a normal distribution."""
    return rng.standard_normal(samples)


def air_conditioner(samples: int, rng: np.random.Generator) -> Samples:
    """A room air conditioner: rushing air, modulated by the fan's blades, over the hum of its motor.

    The air is noise low-passed at 350 to 600 Hz, 6 dB per octave, with a faint hiss above; the blades modulate it by a
    fifth, 18 to 28 times per second; the hum is the second harmonic of the mains and its multiples.
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

    The motor turns 250 to 340 times per second, and its speed varies by a few per cent as the nozzle is pushed and
    pulled; its harmonics fall by 3 dB each, except the seventh, which the fan's blades emphasise. The air is noise from
    250 Hz to 5 kHz whose level follows the nozzle.
    """
    strokes = drift(samples, rng, 1.5)
    speed = rng.uniform(250, 340) * (1 + 0.03 * strokes)
    harmonics = 10 ** (-3 * np.arange(24.0) / 20)
    harmonics[6] = 0.8
    motor = tone(speed, rng, harmonics)
    air = coloured_noise(samples, rng, band_pass(250, 5000, order=1))
    return 0.8 * motor + air * (1 - 0.25 * strokes)


def typing(samples: int, rng: np.random.Generator) -> Samples:
    """Typing: keystrokes of random level 70 to 260 ms apart, with occasional pauses.

    A stroke is a click (noise above 2 kHz, 3 ms), the thock of the key on its plate (noise at 300 to 1,200 Hz, 12 ms),
    and, 60 to 110 ms later, the softer click of the key being released. A tenth of the strokes are left out, and a
    quarter of them sound deeper: the space bar.
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
    """Doors being slammed along a corridor, near and far, one every 0.7 to 1.4 s.

    A slam is the snap of the latch, the blow of the door on its frame (noise below 900 Hz, 25 ms), and the boom of the
    panel (two damped modes between 60 and 160 Hz); the corridor reverberates for 0.8 s.
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
    """Someone eating crisps close by: a crunch every 0.3 to 0.65 s, and softer chewing in between.

    A crunch is a shower of tiny fractures, 800 to 2,000 per second at first, that dies away in about 90 ms; each is a
    click coloured by the mouth (700 Hz to 5 kHz). Chewing is muffled noise that follows the jaw.
    """
    bites = times(samples / SAMPLE_RATE, rng, 0.3, 0.65)
    jaw = _bite(0.35, rng.uniform(0.07, 0.11))
    crunching = placed(samples, bites, spread_levels(bites.size, rng, 3.0), jaw)
    # A Poisson process whose rate and click level both follow the bite.
    fractures = rng.random(samples) < rng.uniform(800, 2000) / SAMPLE_RATE * np.minimum(crunching, 2)
    clicks = fractures * np.sqrt(crunching) * rng.standard_normal(samples)
    crunch = filtered(clicks, band_pass(700, 5000, order=1))
    chewing = coloured_noise(samples, rng, band_pass(150, 900)) * (0.2 + crunching) * 0.05
    return crunch + chewing + 0.003 * _room(samples, rng)


def copy_machine(samples: int, rng: np.random.Generator) -> Samples:
    """A copier that continuously makes copies, one every 1.1 to 1.5 s.

    In each, the lamp's carriage whines up from 180 to 420 Hz and, faster, back; rollers pull a sheet through (a rush of
    noise at 800 Hz to 5 kHz); and the tray is struck twice. The fan and the drum run throughout.
    """
    cycle = rng.uniform(1.1, 1.5)
    phase = (clock(samples) / cycle + rng.random()) % 1
    pitch = np.interp(phase, [0, 0.08, 0.55, 0.62, 0.9, 1], [180, 200, 420, 430, 190, 180])
    loudness = np.interp(phase, [0, 0.04, 0.55, 0.6, 0.64, 0.9, 0.95, 1], [0, 1, 1, 0.1, 0.8, 0.8, 0, 0])
    carriage = loudness * tone(pitch, rng, 0.75 ** np.arange(12.0))
    sheet = np.interp(phase, [0, 0.3, 0.36, 0.52, 0.6, 1], [0, 0, 1, 1, 0, 0])
    paper = sheet * coloured_noise(samples, rng, band_pass(800, 5000)) * (1 + 0.4 * drift(samples, rng, 30.0))
    # Where the phase, a tenth early, enters each half of the cycle: two strikes per copy.
    strikes = np.flatnonzero(np.diff(np.floor(2 * phase + 0.1) % 2, prepend=0.0)) / SAMPLE_RATE
    clunk = burst(0.12, rng, band_pass(200, 2500, order=1), 0.015) + ring(0.12, 130, 0.03)
    clunks = placed(samples, strikes, 2.5 * spread_levels(strikes.size, rng, 1.5), clunk)
    return carriage + 0.9 * paper + clunks + 0.3 * _room(samples, rng)


def _bite(seconds: float, decay: float) -> Samples:
    # The envelope of a bite: up in 15 ms, down to 1/e in `decay` seconds, cut after `seconds`.
    time = clock(int(seconds * SAMPLE_RATE))
    return np.minimum(time / 0.015, 1) * np.exp(-time / decay)


def _room(samples: int, rng: np.random.Generator) -> Samples:
    # A quiet room with a distant fan: noise low-passed at 300 Hz, 6 dB per octave, of unit RMS.
    return coloured_noise(samples, rng, low_pass(300, order=1))


def babble(samples: int, rng: np.random.Generator, voices: Sequence[Samples]) -> Samples:
    """A cafeteria: six to eight people talking at once, near and far, in a room that reverberates for 0.5 s."""
    talkers = int(rng.integers(6, 9))
    near = spread_levels(talkers, rng, 2.5)
    order = [voices[talker % len(voices)] for talker in rng.permutation(max(talkers, len(voices)))[:talkers]]
    crowd = sum((near[i] * _talk(samples, rng, [voice], 0.3) for i, voice in enumerate(order)), np.zeros(samples))
    return reverberated(crowd, rng, 0.5, 0.5) + 0.05 * coloured_noise(samples, rng, low_pass(500, order=1))


def airport_announcements(samples: int, rng: np.random.Generator, voices: Sequence[Samples]) -> Samples:
    """A departure hall: a chime, then an announcement, from loudspeakers, over the murmur of the hall.

    The chime is three falling notes. The loudspeakers pass 350 Hz to 4 kHz; the hall reverberates for 1.8 s. The murmur
    is everyone's speech, distant and blurred beyond recognition, and the air of the ventilation.
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
    """People next door talking in turn and walking about, behind a wall.

    The wall passes little above 350 to 500 Hz (18 dB per octave); steps and bumps come through it as thumps between 45
    and 80 Hz, one every 0.4 to 1.6 s; the listener's own room has faint noise.
    """
    talk = filtered(_talk(samples, rng, voices, 0.25), low_pass(rng.uniform(350, 500), order=3))
    thumps = times(samples / SAMPLE_RATE, rng, 0.4, 1.6)
    body = ring(0.3, rng.uniform(45, 80), 0.05) + burst(0.3, rng, low_pass(150), 0.03)
    dry = talk + placed(samples, thumps, 0.8 * spread_levels(thumps.size, rng, 4.0), body)
    return reverberated(dry, rng, 0.4, 0.4) + 0.02 * coloured_noise(samples, rng, low_pass(300, order=1))


def _talk(samples: int, rng: np.random.Generator, voices: Sequence[Samples], pause: float) -> Samples:
    # `voices` in turn, in random order, starting at a random moment, about `pause` seconds apart.
    turns: list[Samples] = []
    for voice in rng.permutation(len(voices)):
        turns += [voices[voice], np.zeros(int(rng.uniform(0.5, 1.5) * pause * SAMPLE_RATE))]
    return _repeated(samples, rng, np.concatenate(turns))


def _repeated(samples: int, rng: np.random.Generator, cycle: Samples) -> Samples:
    # `samples` samples of `cycle`, repeated, starting at a random moment.
    return cycle[(int(rng.integers(cycle.size)) + np.arange(samples)) % cycle.size]


def _chime(rng: np.random.Generator) -> Samples:
    # Three falling notes of a vibraphone, 0.25 s apart, the last with time to fade; 1.1 s in all.
    root = rng.uniform(420, 560)
    length = int(1.1 * SAMPLE_RATE)
    chime = np.zeros(length)
    for note, ratio in enumerate((1.5, 1.25, 1.0)):
        time = clock(length) - 0.25 * note
        struck = np.where(time > 0, np.minimum(time / 0.005, 1) * np.exp(-np.maximum(time, 0) / 0.35), 0)
        chime += struck * (np.sin(2 * np.pi * root * ratio * time) + 0.2 * np.sin(8 * np.pi * root * ratio * time))
    return 1.2 * chime


NoiseKind = Literal[
    "gaussian",
    "air-conditioner",
    "airport-announcements",
    "babble",
    "copy-machine",
    "munching",
    "neighbour",
    "shutting-door",
    "typing",
    "vacuum-cleaner",
]
"""The names of the noises; the paper calls them GS, AC, AA, BA, CM, MU, NB, SD, TP and VC."""

NOISES: tuple[NoiseKind, ...] = get_args(NoiseKind)
"""The names in the paper's order."""

PEAK = 0.5
"""The peak of a synthesised noise, as a fraction of full scale."""

VOICES: Mapping[NoiseKind, int] = {"airport-announcements": 4, "babble": 8, "neighbour": 3}
"""How many voices a noise should be given; those not listed need none."""

_SOUNDS: Mapping[str, Callable[[int, np.random.Generator], Samples]] = {
    "gaussian": gaussian,
    "air-conditioner": air_conditioner,
    "copy-machine": copy_machine,
    "munching": munching,
    "shutting-door": shutting_door,
    "typing": typing,
    "vacuum-cleaner": vacuum_cleaner,
}

_SPOKEN: Mapping[str, Callable[[int, np.random.Generator, Sequence[Samples]], Samples]] = {
    "airport-announcements": airport_announcements,
    "babble": babble,
    "neighbour": neighbour,
}


def synthesise(kind: str, seconds: float, rng: np.random.Generator, *, voices: Sequence[ArrayLike] = ()) -> Waveform:
    """Synthesise `seconds` of the noise `kind`, shape `(seconds · 16000,)`, with a peak of `PEAK`.

    Args:
        kind: one of `NOISES`.
        seconds: the length, rounded to a sample.
        rng: the only source of randomness: the same state gives the same bits.
        voices: clean speech of several speakers, each of shape `(N,)`; required by the kinds in `VOICES`.

    Raises:
        UsageError: for an unknown kind, missing voices, or an invalid length.
        AudioError: when a voice is not a waveform, is empty or silent, or contains NaN or infinity.
    """
    if kind not in NOISES:
        raise unknown("noise", kind, NOISES)
    if not 0.5 / SAMPLE_RATE < seconds < float("inf"):
        raise UsageError(f"the noise's length is {seconds} s; it must be finite and at least one sample")
    samples = round(seconds * SAMPLE_RATE)
    if kind in _SPOKEN:
        if not voices:
            raise UsageError(f"the noise {kind!r} is made of speech: pass it voices ({VOICES[kind]}, for example)")
        noise = _SPOKEN[kind](samples, rng, [_levelled(voice, i) for i, voice in enumerate(voices)])
    else:
        noise = _SOUNDS[kind](samples, rng)
    waveform: Waveform = (noise * (PEAK / np.abs(noise).max())).astype(np.float32)
    return waveform


def _levelled(voice: ArrayLike, index: int) -> Samples:
    # A voice at unit RMS, shape `(N,)`, so that no speaker outweighs the others.
    samples = checked(voice, f"voice {index}")
    refuse_silence(samples, f"voice {index}")
    return samples / rms(samples)
