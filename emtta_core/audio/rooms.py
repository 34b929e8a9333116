"""Rooms, by the image-source method of pyroomacoustics: each wall reflection is a source behind the wall.

There are sixteen rooms and sixteen halls; an utterance is in one of them, the same at any severity. The direct sound
keeps its position in the dry recording, so that nothing shifts in time.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from emtta_core.audio.corrupted import Corrupted, Voices, levelled, load
from emtta_core.audio.mix import rms
from emtta_core.audio.spectrum import Samples, coloured_noise, low_pass
from emtta_core.audio.waveform import SAMPLE_RATE

_ROOMS = 16
"""The number of rooms, each computed once, so that thousands of utterances cost no more than these."""

_ORDER = 80
"""The maximum order of reflections: enough for the 35 dB of `_rt60`; more would take seconds."""

_ROUNDS = 3
"""Corrections of a response, after which the reverberation time of any room is within 3% of the target."""

_DIRECT = 40
"""Samples of a response before the direct sound, which arrives between two samples and so rings on both sides."""

_HALL_RT60 = 0.6
"""The reverberation time of the halls of `far_field`, in seconds."""

_NOISE_DB = 25.0
"""How many dB the direct sound at one metre is above the noise of the halls of `far_field`."""


def reverberation(speech: Samples, rt60: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Put the speaker into a room of 12 to 60 m² with reverberation time `rt60`, 1 to 2 m from the microphone.

    The reflections fall by 60 dB in that time (T30 of ISO 3382).
    """
    return levelled(_in_room(speech, _response(int(rng.integers(_ROOMS)), "room", rt60, None)))


def far_field(speech: Samples, metres: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Move the microphone away from the speaker, in a hall of about 100 m² with a reverberation of 0.6 s.

    The ventilation is equally loud wherever the microphone is, 25 dB below the direct sound at 1 m, so the
    signal-to-noise ratio falls with the distance.
    """
    room = int(rng.integers(_ROOMS))
    air = coloured_noise(speech.size, rng, low_pass(500, order=1))
    reverberant = _in_room(speech, _response(room, "hall", _HALL_RT60, metres))
    air *= rms(speech) * 10 ** (-_NOISE_DB / 20) / rms(air)  # pyroomacoustics does not scale the sound at one metre
    return levelled(reverberant + air, 20 * np.log10(rms(reverberant) / rms(air)))


def _in_room(speech: Samples, response: Samples) -> Samples:
    # The speech in a room, of unchanged shape; the reverberation after its end is cut off.
    # Room for both, so that the end of the sound does not wrap around to its beginning.
    size = 1 << (speech.size + response.size).bit_length()
    reverberant = np.fft.irfft(np.fft.rfft(speech, size) * np.fft.rfft(response, size), size)
    return reverberant[_DIRECT : _DIRECT + speech.size]


@lru_cache(maxsize=4 * _ROOMS)
def _response(room: int, kind: str, rt60: float, metres: float | None) -> Samples:
    # The impulse response of a room, with the direct sound at `_DIRECT`; without `metres`, speaker and microphone are 1
    # to 2 m apart. By Sabine's formula most rooms would reverberate too long; an exponential decay corrects them.
    acoustics = load("pyroomacoustics", "reverberation" if kind == "room" else "far-field")
    acoustics.constants.set("num_threads", 1)  # with more, the order of the sums and so the last bits may change
    # Depends only on the room: at every severity it is the same one, with the speaker in the same place.
    rng = np.random.default_rng([len(kind), ord(kind[0]), room])
    lowest, highest = ((3.5, 3.5, 2.5), (9.0, 6.5, 3.2)) if kind == "room" else ((12.0, 8.0, 3.0), (14.0, 9.0, 4.0))
    size = rng.uniform(lowest, highest)
    speaker, microphone = _positions(size, rng, metres)
    absorption, order = acoustics.inverse_sabine(rt60, size)
    shoe_box = acoustics.ShoeBox(
        size, fs=SAMPLE_RATE, materials=acoustics.Material(absorption), max_order=min(order, _ORDER)
    )
    shoe_box.add_source(speaker)
    shoe_box.add_microphone(microphone)
    shoe_box.compute_rir()
    response = np.asarray(shoe_box.rir[0][0], dtype=np.float64)
    distance = float(np.linalg.norm(speaker - microphone))
    arrival = round(distance / acoustics.constants.get("c") * SAMPLE_RATE)
    # Remove the travel time of the direct sound, and the delay of the fractional-delay filter.
    response = response[arrival + acoustics.constants.get("frac_delay_length") // 2 - _DIRECT :]
    for _ in range(_ROUNDS):
        # A fall by 60 dB is a factor of 1/1000: multiply by what the response lacks of it per second.
        per_second = 1 / rt60 - 1 / _rt60(response)
        response *= 10 ** (-3 * per_second * np.arange(response.size) / SAMPLE_RATE)
    return response


def _rt60(response: Samples) -> float:
    # The seconds in which a response falls by 60 dB, from its fall between 5 and 35 dB: T30 of ISO 3382.
    # Schroeder's backward integration: at each moment the energy still to come, which falls smoothly.
    energy = np.cumsum(response[::-1] ** 2)[::-1]
    energy /= energy[0]
    falling = np.flatnonzero((energy <= 10**-0.5) & (energy >= 10**-3.5))
    per_sample, _ = np.polyfit(falling, 10 * np.log10(energy[falling]), 1)
    return float(-60 / (per_sample * SAMPLE_RATE))


def _positions(
    size: NDArray[np.float64], rng: np.random.Generator, metres: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # Where speaker and microphone are, in metres: at most 8 m apart in a hall, along its longer side.
    near = rng.uniform(1.0, 2.0)
    apart = near if metres is None else metres
    start = rng.uniform((0.6, 1.0, 1.4), (1.2, size[1] - 1.0, 1.8))
    across = rng.uniform(-0.15, 0.15)
    direction = np.array([np.cos(across), np.sin(across), 0.0])
    return start, start + apart * direction
