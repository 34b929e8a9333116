"""The effects by name: added sounds, channels and codecs, rooms, tempo and pitch; each with its five severities."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import soundfile

from emtta_core.audio import rooms
from emtta_core.audio.corrupted import (
    TELEPHONE_RATE,
    Corrupted,
    Voices,
    fitted,
    from_telephone,
    levelled,
    load,
    to_telephone,
)
from emtta_core.audio.mix import mix, scale_to_dbfs
from emtta_core.audio.noise import VOICES, NoiseKind, burst, clock, placed, ring, spread_levels, synthesise
from emtta_core.audio.spectrum import Samples, band_pass, filtered, high_pass, reverberated
from emtta_core.audio.spectrum import low_pass as low_pass_response
from emtta_core.audio.waveform import SAMPLE_RATE, SILENCE_PEAK, Waveform
from emtta_core.errors import UsageError

_PROGRESSIONS = ((0, 7, 9, 5), (9, 5, 0, 7), (0, 9, 5, 7), (0, 5, 9, 7))
"""Roots of the chords, in semitones above the key; 9 is minor."""


def tune(samples: int, rng: np.random.Generator) -> Samples:
    """A tune of 84 to 132 beats per minute, shape `(samples,)`, at an arbitrary level.

    A chord lasts two beats. The bass and a kick (a damped sine at 55 Hz) play on each beat, a hi-hat (noise above 5
    kHz) between the beats, and a plucked note of the chord on each half beat; the room reverberates for 0.4 s.
    """
    beat = 60 / float(rng.uniform(84, 132))
    key = 55 * 2 ** (rng.integers(12) / 12)
    roots = _PROGRESSIONS[int(rng.integers(len(_PROGRESSIONS)))]
    # The tune has been playing for a while: the speech starts anywhere in its four chords.
    start = -float(rng.uniform(0, 8 * beat))
    halves: Samples = start + 0.5 * beat * np.arange(int((samples / SAMPLE_RATE - start) / (0.5 * beat)) + 2.0)
    steps = rng.integers(3, size=halves.size)
    loudness = spread_levels(halves.size, rng, 2.0)
    hat = burst(0.06, rng, high_pass(5000), 0.015)
    total = placed(samples, halves[1::2], 0.25 * loudness[1::2], hat)
    total += placed(samples, halves[::2], 0.8 * loudness[::2], ring(0.25, 55, 0.08))
    for index, root in enumerate(roots):
        third = 3 if root == 9 else 4
        sounding = np.arange(halves.size) // 4 % 4 == index
        bass = sounding & (np.arange(halves.size) % 2 == 0)
        total += placed(samples, halves[bass], 0.7 * loudness[bass], _pluck(key * 2 ** (root / 12), beat, 0.4))
        for step, tone in enumerate((root, root + third, root + 7)):
            plucked = sounding & (steps == step)
            note = _pluck(4 * key * 2 ** (tone / 12), beat, 0.35)
            total += placed(samples, halves[plucked], 0.5 * loudness[plucked], note)
            sustained = sounding & (np.arange(halves.size) % 4 == 0)
            total += placed(
                samples, halves[sustained], 0.2 * loudness[sustained], _sustained(2 * key * 2 ** (tone / 12), 2 * beat)
            )
    hiss = 1e-4 * rng.standard_normal(samples)  # a tune may begin with a rest; this is never silent
    return reverberated(total, rng, 0.4, 0.3) + hiss


def _pluck(hertz: float, seconds: float, decay: float) -> Samples:
    # A plucked string: eight harmonics that decay to 1/e in `decay` seconds, higher ones faster.
    return sum((ring(2 * seconds, n * hertz, decay / n) / n for n in range(1, 9)), np.zeros(1))


def _sustained(hertz: float, seconds: float) -> Samples:
    time = clock(int(seconds * SAMPLE_RATE))
    swell = np.sin(np.pi * time / seconds)
    return swell * sum((np.sin(2 * np.pi * n * hertz * time) / n for n in (1, 2, 3)), np.zeros(1))


ENVIRONMENTS: Sequence[NoiseKind] = (
    "air-conditioner",
    "copy-machine",
    "munching",
    "shutting-door",
    "typing",
    "vacuum-cleaner",
)
"""The noises without speech; each utterance gets one of them."""

_TALKERS = 8
"""The number of voices that the interfering speaker is drawn from."""


def gaussian(speech: Samples, snr_db: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Add white noise."""
    return _added(speech, synthesise("gaussian", speech.size / SAMPLE_RATE, rng), snr_db)


def environment(speech: Samples, snr_db: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Add one of the noises of `ENVIRONMENTS`."""
    kind = ENVIRONMENTS[int(rng.integers(len(ENVIRONMENTS)))]
    return _added(speech, synthesise(kind, speech.size / SAMPLE_RATE, rng), snr_db)


def babble(speech: Samples, snr_db: float, rng: np.random.Generator, voices: Voices) -> Corrupted:
    """Add six to eight people talking at once."""
    noise = synthesise("babble", speech.size / SAMPLE_RATE, rng, voices=voices(VOICES["babble"]))
    return _added(speech, noise, snr_db)


def music(speech: Samples, snr_db: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Add a tune: chords, bass and drums."""
    return _added(speech, tune(speech.size, rng).astype(np.float32), snr_db)


def crosstalk(speech: Samples, snr_db: float, rng: np.random.Generator, voices: Voices) -> Corrupted:
    """Add one other speaker, who talks all the time and is always quieter."""
    talkers = voices(_TALKERS)
    talker = talkers[int(rng.integers(len(talkers)))]
    return _added(speech, np.roll(talker, -int(rng.integers(talker.size))), snr_db)


def _added(speech: Samples, noise: Waveform, snr_db: float) -> Corrupted:
    mixture = mix(speech, noise, snr_db)
    return Corrupted(mixture.waveform, mixture.gain, snr_db)


_PACKET = SAMPLE_RATE // 50
"""Samples of a packet: 20 ms."""

_STEPS = 32_768
"""Quantisation steps of 16 bits between 0 and full scale."""


def echo(speech: Samples, decibels: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Add an echo 150 to 350 ms later at a level of `decibels`, an echo of that, and so on."""
    delay = int(rng.uniform(0.15, 0.35) * SAMPLE_RATE)
    echoed = speech.copy()
    # In pieces of one delay: to each is added the previous piece, which already has its own echoes.
    for start in range(delay, echoed.size, delay):
        piece = echoed[start : start + delay]
        piece += 10 ** (decibels / 20) * echoed[start - delay : start - delay + piece.size]
    return levelled(echoed)


def telephone(speech: Samples, hertz: float, _rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Pass 300 Hz to `hertz` (24 dB per octave), at 8 kHz and in G.711 µ-law."""
    narrow = filtered(speech, band_pass(300, hertz, order=4))
    return levelled(from_telephone(mu_law(to_telephone(narrow)), speech.size))


def packet_loss(speech: Samples, share: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Replace a share of the non-silent 20 ms packets by silence, in bursts.

    However short the speech, at least one packet is lost and one is kept. A packet lost at one share is also lost at
    any larger one.
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
    """Clip the loudest samples, a share of those that are not silence, to one amplitude."""
    amplitude = np.abs(speech)
    # Silence does not count; otherwise a recording with long pauses would hardly be clipped.
    limit = float(np.quantile(amplitude[amplitude > SILENCE_PEAK], 1 - share))
    return levelled(np.clip(speech, -limit, limit))


def low_pass(speech: Samples, hertz: float, _rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Pass what is below `hertz` (48 dB per octave)."""
    return levelled(filtered(speech, low_pass_response(hertz, order=8)))


def gain(speech: Samples, dbfs: float, _rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Record the speech too quietly: at a level of `dbfs` dB FS RMS, quantised to 16 bits."""
    quiet = np.rint(scale_to_dbfs(speech, dbfs).astype(np.float64) * _STEPS) / _STEPS
    return Corrupted(quiet.astype(np.float32), 1.0, None)


_MARGIN = SAMPLE_RATE // 4
"""Samples of silence added on either side before stretching, so that no edge is lost."""


def speed(speech: Samples, factor: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Speed the speech up by `factor`, dividing its length by it; the pitch stays the same."""
    stretch = _stretch(rng, "speed")
    stretch.setTimeFactor(factor)
    stretched = _processed(stretch, speech)
    return levelled(fitted(stretched[round(_MARGIN / factor) :], max(1, round(speech.size / factor))))


def pitch(speech: Samples, semitones: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Raise or lower the pitch, chosen per utterance, by `semitones`; the length stays the same."""
    upwards = bool(rng.integers(2))
    stretch = _stretch(rng, "pitch")
    stretch.setTransposeSemitones(semitones if upwards else -semitones)
    return levelled(fitted(_processed(stretch, speech)[_MARGIN:], speech.size))


def _stretch(rng: np.random.Generator, needed_by: str) -> Any:
    # A stretcher for mono at 16 kHz, seeded from `rng`; the library has no types.
    stretch = load("python-stretch", needed_by).Signalsmith.Stretch(int(rng.integers(2**31)))
    stretch.preset(1, SAMPLE_RATE)
    return stretch


def _processed(stretch: Any, speech: Samples) -> Samples:
    padded = np.pad(speech, _MARGIN).astype(np.float32)
    processed: Samples = np.asarray(stretch.process(padded[None])[0], dtype=np.float64)
    return processed


_MP3_KBITS = (8.0, 160.0)
"""The lowest and the highest bit rate of MPEG-2 layer III at 16 kHz."""

_OPUS_KBITS = (6.0, 256.0)
"""The lowest and the highest bit rate that libsndfile sets for Opus."""

_LATEST = 3000
"""The maximum delay of MP3 in samples: the decoder's and the encoder's are 1,105, plus a few frames."""


def g711(speech: Samples, errors: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Send G.711 µ-law at 8 kHz (64 kbit/s) over a line that flips a share `errors` of the bits."""
    coded = np.frombuffer(_written(to_telephone(speech), "RAW", "ULAW", TELEPHONE_RATE), np.uint8)
    # One byte per sample, each of whose eight bits may be flipped.
    flipped = np.packbits(rng.random((coded.size, 8)) < errors, axis=1)[:, 0]
    decoded = _read((coded ^ flipped).tobytes(), raw=True)
    return levelled(from_telephone(decoded, speech.size))


def mu_law(samples: Samples) -> Samples:
    """Encode samples at 8 kHz as G.711 µ-law and decode them; the shape is unchanged."""
    return _read(_written(samples, "RAW", "ULAW", TELEPHONE_RATE), raw=True)


def gsm(speech: Samples, times: float, _rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Encode as GSM 06.10 full rate (13 kbit/s at 8 kHz) this many times in a row, as in calls across networks."""
    decoded = to_telephone(speech)
    for _ in range(int(times)):
        decoded = fitted(_read(_written(decoded, "WAV", "GSM610", TELEPHONE_RATE)), decoded.size)
    return levelled(from_telephone(decoded, speech.size))


def mp3(speech: Samples, kbits: float, _rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Encode as MP3 at a constant bit rate; the delay that remains at low rates is removed."""
    lowest, highest = _MP3_KBITS
    level = min(0.999, (highest - kbits) / (highest - lowest))
    padded = np.pad(speech, (0, _LATEST))  # so that the delay does not cut off the end
    decoded = _read(
        _written(padded, "MP3", "MPEG_LAYER_III", SAMPLE_RATE, compression_level=level, bitrate_mode="CONSTANT")
    )
    return levelled(fitted(decoded[_delay(speech, decoded) :], speech.size))


def opus(speech: Samples, kbits: float, _rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Encode as Opus."""
    lowest, highest = _OPUS_KBITS
    level = (highest - kbits) / (highest - lowest)
    decoded = _read(_written(speech, "OGG", "OPUS", SAMPLE_RATE, compression_level=level))
    return levelled(fitted(decoded, speech.size))


def _written(samples: Samples, form: str, codec: str, rate: int, **options: float | str) -> bytes:
    # The bytes of an audio file; UsageError if this libsndfile lacks the codec.
    if codec not in soundfile.available_subtypes(form):
        raise UsageError(
            f"the installed libsndfile {soundfile.__libsndfile_version__} cannot write {codec} ({form}); "
            "install the wheel of soundfile (pip install --force-reinstall soundfile), which includes one that can"
        )
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), rate, format=form, subtype=codec, **options)
    return file.getvalue()


def _read(data: bytes, *, raw: bool = False) -> Samples:
    form = {"format": "RAW", "subtype": "ULAW", "channels": 1, "samplerate": TELEPHONE_RATE} if raw else {}
    samples, _ = soundfile.read(io.BytesIO(data), dtype="float64", **form)
    return np.asarray(samples, dtype=np.float64)


def _delay(clean: Samples, decoded: Samples) -> int:
    # How many samples, 0 to `_LATEST`, `decoded` lags behind `clean`: where their correlation is highest.
    size = 1 << (clean.size + decoded.size).bit_length()
    # The cross-correlation at each delay by FFT, padded so that nothing wraps around.
    likeness = np.fft.irfft(np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(clean, size)), size)[: _LATEST + 1]
    return int(likeness.argmax())


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
"""The names in display order."""

Make = Callable[[Samples, float, np.random.Generator, Voices], Corrupted]


@dataclass(frozen=True, slots=True)
class Effect:
    """A row of the table."""

    make: Make  # the function that corrupts
    unit: str  # describes the amounts; `{}` stands for the number
    amounts: tuple[float, float, float, float, float]  # the amounts at severity 1 to 5
    version: int = 1  # incremented whenever the same severity would give different samples
    spoken: bool = False  # whether it needs voices of other speakers
    libraries: tuple[str, ...] = ()  # libraries whose release affects the samples

    def describe(self, severity: int) -> str:
        """The amount at a severity of 1 to 5, with its unit."""
        return self.unit.format(f"{self.amounts[severity - 1]:g}")


_SNR = "{} dB SNR"
_ROOM, _STRETCH, _SNDFILE, _RESAMPLE = "pyroomacoustics", "python-stretch", "libsndfile", "soxr"

EFFECTS: Mapping[EffectName, Effect] = {
    "gaussian": Effect(gaussian, _SNR, (20, 15, 10, 5, 0)),
    "environment": Effect(environment, _SNR, (20, 15, 10, 5, 0)),
    "babble": Effect(babble, _SNR, (20, 15, 10, 5, 0), spoken=True),
    "music": Effect(music, _SNR, (20, 15, 10, 5, 0)),
    "crosstalk": Effect(crosstalk, _SNR, (20, 16, 12, 8, 4), spoken=True),
    "reverberation": Effect(rooms.reverberation, "RT60 {} s", (0.3, 0.5, 0.7, 0.9, 1.2), version=2, libraries=(_ROOM,)),
    "far-field": Effect(rooms.far_field, "{} m away", (0.5, 1, 2, 4, 7), version=2, libraries=(_ROOM,)),
    "echo": Effect(echo, "echoes at {} dB", (-15, -10, -6, -3, -1)),
    "telephone": Effect(telephone, "300 to {} Hz", (3400, 2800, 2200, 1700, 1300), libraries=(_SNDFILE, _RESAMPLE)),
    "g711": Effect(g711, "bit error rate {}", (0, 3e-4, 1e-3, 3e-3, 1e-2), libraries=(_SNDFILE, _RESAMPLE)),
    "gsm": Effect(gsm, "coded {} times", (1, 2, 4, 7, 11), libraries=(_SNDFILE, _RESAMPLE)),
    "mp3": Effect(mp3, "{} kbit/s", (48, 32, 24, 16, 8), libraries=(_SNDFILE,)),
    "opus": Effect(opus, "{} kbit/s", (24, 16, 12, 8, 6), libraries=(_SNDFILE,)),
    "packet-loss": Effect(packet_loss, "{} of the packets lost", (0.05, 0.1, 0.2, 0.3, 0.4), version=2),
    "clipping": Effect(clipping, "{} of the samples clipped", (0.02, 0.05, 0.1, 0.2, 0.4)),
    "low-pass": Effect(low_pass, "{} Hz", (4000, 3000, 2000, 1500, 1000)),
    "gain": Effect(gain, "level {} dB FS", (-35, -45, -55, -65, -75)),
    "speed": Effect(speed, "{} times as fast", (1.15, 1.3, 1.5, 1.75, 2), libraries=(_STRETCH,)),
    "pitch": Effect(pitch, "{} semitones", (2, 3.5, 5, 7, 9), libraries=(_STRETCH,)),
}
"""The corruptions by name. Never change amounts without incrementing the version."""
