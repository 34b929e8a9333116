"""The table of corruptions by name and severity.

Each effect takes speech at -25 dB FS RMS, shape `(N,)` in double precision, and how much of it is wanted; draws from
the generator that it is given, always as much, so that a severity adds to the one before; and knows no other chance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from emtta_core.audio.corrupted import Corrupted, Voices
from emtta_core.audio.effects import additive, channel, codecs, rooms, tempo
from emtta_core.audio.spectrum import Samples

EffectName = Literal[
    "gaussian",
    "environment",
    "babble",
    "music",
    "crosstalk",
    "reverberation",
    "far-field",
    "echo",
    "telephone",
    "g711",
    "gsm",
    "mp3",
    "opus",
    "packet-loss",
    "clipping",
    "low-pass",
    "gain",
    "speed",
    "pitch",
]
"""The names of the table."""

CORRUPTIONS: tuple[EffectName, ...] = get_args(EffectName)
"""The names in the order in which they are shown."""

Make = Callable[[Samples, float, np.random.Generator, Voices], Corrupted]


@dataclass(frozen=True, slots=True)
class Effect:
    """A row of the table.

    Attributes:
        make: corrupts.
        unit: what the amounts are; `{}` stands for the number.
        amounts: how much, at severity 1 to 5.
        version: raised whenever the same severity would give other samples.
        spoken: whether it asks for foreign voices.
        libraries: whose release settles the samples too.
    """

    make: Make
    unit: str
    amounts: tuple[float, float, float, float, float]
    version: int = 1
    spoken: bool = False
    libraries: tuple[str, ...] = ()

    def said(self, severity: int) -> str:
        """Return how much a severity of 1 to 5 is, in words."""
        return self.unit.format(f"{self.amounts[severity - 1]:g}")


_SNR = "{} dB SNR"
_ROOM, _STRETCH, _SNDFILE, _RESAMPLE = "pyroomacoustics", "python-stretch", "libsndfile", "soxr"

EFFECTS: Mapping[EffectName, Effect] = {
    "gaussian": Effect(additive.gaussian, _SNR, (20, 15, 10, 5, 0)),
    "environment": Effect(additive.environment, _SNR, (20, 15, 10, 5, 0)),
    "babble": Effect(additive.babble, _SNR, (20, 15, 10, 5, 0), spoken=True),
    "music": Effect(additive.music, _SNR, (20, 15, 10, 5, 0)),
    "crosstalk": Effect(additive.crosstalk, _SNR, (20, 16, 12, 8, 4), spoken=True),
    "reverberation": Effect(rooms.reverberation, "RT60 {} s", (0.3, 0.5, 0.7, 0.9, 1.2), version=2, libraries=(_ROOM,)),
    "far-field": Effect(rooms.far_field, "{} m away", (0.5, 1, 2, 4, 7), version=2, libraries=(_ROOM,)),
    "echo": Effect(channel.echo, "echoes at {} dB", (-15, -10, -6, -3, -1)),
    "telephone": Effect(
        channel.telephone, "300 to {} Hz", (3400, 2800, 2200, 1700, 1300), libraries=(_SNDFILE, _RESAMPLE)
    ),
    "g711": Effect(codecs.g711, "bit error rate {}", (0, 3e-4, 1e-3, 3e-3, 1e-2), libraries=(_SNDFILE, _RESAMPLE)),
    "gsm": Effect(codecs.gsm, "coded {} times", (1, 2, 4, 7, 11), libraries=(_SNDFILE, _RESAMPLE)),
    "mp3": Effect(codecs.mp3, "{} kbit/s", (48, 32, 24, 16, 8), libraries=(_SNDFILE,)),
    "opus": Effect(codecs.opus, "{} kbit/s", (24, 16, 12, 8, 6), libraries=(_SNDFILE,)),
    "packet-loss": Effect(channel.packet_loss, "{} of the packets lost", (0.05, 0.1, 0.2, 0.3, 0.4), version=2),
    "clipping": Effect(channel.clipping, "{} of the samples clipped", (0.02, 0.05, 0.1, 0.2, 0.4)),
    "low-pass": Effect(channel.low_pass, "{} Hz", (4000, 3000, 2000, 1500, 1000)),
    "gain": Effect(channel.gain, "level {} dB FS", (-35, -45, -55, -65, -75)),
    "speed": Effect(tempo.speed, "{} times as fast", (1.15, 1.3, 1.5, 1.75, 2), libraries=(_STRETCH,)),
    "pitch": Effect(tempo.pitch, "{} semitones", (2, 3.5, 5, 7, 9), libraries=(_STRETCH,)),
}
"""The corruptions by name. Never change the amounts of a name without raising its version."""
