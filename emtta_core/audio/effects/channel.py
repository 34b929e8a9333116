"""What a line, a microphone or a recorder does: echo, narrow bands, lost packets, clipping, a low level."""

import numpy as np

from emtta_core.audio.corrupted import Corrupted, Voices
from emtta_core.audio.effects.codecs import mu_law
from emtta_core.audio.effects.parts import from_telephone, levelled, to_telephone
from emtta_core.audio.level import scale_to_dbfs
from emtta_core.audio.spectrum import Samples, band_pass, filtered
from emtta_core.audio.spectrum import low_pass as low_pass_response
from emtta_core.audio.waveform import SAMPLE_RATE, SILENCE_PEAK

_PACKET = SAMPLE_RATE // 50
"""Samples of a packet: 20 ms."""

_STEPS = 32_768
"""Steps of 16 bits between 0 and full scale."""


def echo(speech: Samples, decibels: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Repeat the sound 150 to 350 ms later, quieter by so many decibels, and that again, and so on."""
    delay = int(rng.uniform(0.15, 0.35) * SAMPLE_RATE)
    heard = speech.copy()
    for start in range(delay, heard.size, delay):
        piece = heard[start : start + delay]
        piece += 10 ** (decibels / 20) * heard[start - delay : start - delay + piece.size]
    return levelled(heard)


def telephone(speech: Samples, hertz: float, _rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Pass 300 Hz to `hertz` (24 dB an octave), at 8 kHz and in G.711's µ-law."""
    narrow = filtered(speech, band_pass(300, hertz, order=4))
    return levelled(from_telephone(mu_law(to_telephone(narrow)), speech.size))


def packet_loss(speech: Samples, share: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Lose a share of the packets of 20 ms in which there is sound, in bursts; silence is heard in their place.

    However short the speech, one packet at least is lost, and one is heard. A packet that is lost at one share is lost
    at any larger one.
    """
    packets = -(-speech.size // _PACKET)
    sound = np.pad(np.abs(speech), (0, packets * _PACKET - speech.size)).reshape(packets, _PACKET).max(axis=1)
    risk = np.convolve(rng.random(packets + 2), np.ones(3), "valid")  # neighbours share two of three draws: bursts
    risk[sound < SILENCE_PEAK] = -1
    sounding = int(np.count_nonzero(risk >= 0))
    lost = np.argsort(-risk, kind="stable")[: min(max(1, round(share * sounding)), sounding - 1)]
    kept = np.ones(packets)
    kept[lost] = 0
    return levelled(speech * np.repeat(kept, _PACKET)[: speech.size])


def clipping(speech: Samples, share: float, _rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Cut the loudest samples, a share of those that are not silence, to one amplitude."""
    amplitude = np.abs(speech)
    limit = float(np.quantile(amplitude[amplitude > SILENCE_PEAK], 1 - share))
    return levelled(np.clip(speech, -limit, limit))


def low_pass(speech: Samples, hertz: float, _rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Pass what is below `hertz` (48 dB an octave)."""
    return levelled(filtered(speech, low_pass_response(hertz, order=8)))


def gain(speech: Samples, dbfs: float, _rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Record the speech too quietly: at a level of `dbfs` dB FS RMS, in steps of 16 bits."""
    quiet = np.rint(scale_to_dbfs(speech, dbfs).astype(np.float64) * _STEPS) / _STEPS
    return Corrupted(quiet.astype(np.float32), 1.0, None)
