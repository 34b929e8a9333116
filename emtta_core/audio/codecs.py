"""Speech through a codec and back, by libsndfile."""

import io

import numpy as np
import soundfile

from emtta_core.audio.corrupted import TELEPHONE_RATE, Corrupted, Voices, fitted, from_telephone, levelled, to_telephone
from emtta_core.audio.spectrum import Samples
from emtta_core.audio.waveform import SAMPLE_RATE
from emtta_core.errors import UsageError

_MP3_KBITS = (8.0, 160.0)
"""The lowest and the highest rate of MPEG-2 layer III at 16 kHz."""

_OPUS_KBITS = (6.0, 256.0)
"""The lowest and the highest rate that libsndfile asks of Opus."""

_LATEST = 3000
"""Samples by which an MP3 decoder may be late: its delay and the encoder's are 1,105, and some frames more."""


def g711(speech: Samples, errors: float, rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Send G.711's µ-law at 8 kHz (64 kbit/s) over a line that turns over a share `errors` of the bits."""
    coded = np.frombuffer(_written(to_telephone(speech), "RAW", "ULAW", TELEPHONE_RATE), np.uint8)
    # A byte a sample, of eight bits that may each be turned over on the way.
    turned = np.packbits(rng.random((coded.size, 8)) < errors, axis=1)[:, 0]
    decoded = _read((coded ^ turned).tobytes(), raw=True)
    return levelled(from_telephone(decoded, speech.size))


def mu_law(samples: Samples) -> Samples:
    """Code samples at 8 kHz by G.711's µ-law and decode them, shape as before."""
    return _read(_written(samples, "RAW", "ULAW", TELEPHONE_RATE), raw=True)


def gsm(speech: Samples, times: float, _rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Code by GSM 06.10 full rate (13 kbit/s at 8 kHz) so many times over: calls from network to network."""
    decoded = to_telephone(speech)
    for _ in range(int(times)):
        decoded = fitted(_read(_written(decoded, "WAV", "GSM610", TELEPHONE_RATE)), decoded.size)
    return levelled(from_telephone(decoded, speech.size))


def mp3(speech: Samples, kbits: float, _rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Code by MP3 at a constant rate; the delay that low rates leave is taken out."""
    lowest, highest = _MP3_KBITS
    level = min(0.999, (highest - kbits) / (highest - lowest))
    padded = np.pad(speech, (0, _LATEST))  # so that nothing is lost behind the delay
    decoded = _read(
        _written(padded, "MP3", "MPEG_LAYER_III", SAMPLE_RATE, compression_level=level, bitrate_mode="CONSTANT")
    )
    return levelled(fitted(decoded[_delay(speech, decoded) :], speech.size))


def opus(speech: Samples, kbits: float, _rng: np.random.Generator, _voices: Voices) -> Corrupted:
    """Code by Opus."""
    lowest, highest = _OPUS_KBITS
    level = (highest - kbits) / (highest - lowest)
    decoded = _read(_written(speech, "OGG", "OPUS", SAMPLE_RATE, compression_level=level))
    return levelled(fitted(decoded, speech.size))


def _written(samples: Samples, form: str, codec: str, rate: int, **options: float | str) -> bytes:
    # The bytes of an audio file; UsageError where this libsndfile does not know the codec.
    if codec not in soundfile.available_subtypes(form):
        raise UsageError(
            f"libsndfile {soundfile.__libsndfile_version__} here cannot write {codec} ({form}); "
            "install the wheel of soundfile (pip install --force-reinstall soundfile), which brings one that can"
        )
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), rate, format=form, subtype=codec, **options)
    return file.getvalue()


def _read(data: bytes, *, raw: bool = False) -> Samples:
    form = {"format": "RAW", "subtype": "ULAW", "channels": 1, "samplerate": TELEPHONE_RATE} if raw else {}
    samples, _ = soundfile.read(io.BytesIO(data), dtype="float64", **form)
    return np.asarray(samples, dtype=np.float64)


def _delay(clean: Samples, decoded: Samples) -> int:
    # By how many samples, 0 to `_LATEST`, `decoded` is behind `clean`: where they are most alike.
    size = 1 << (clean.size + decoded.size).bit_length()
    # The cross-correlation at each delay, by the transform, in room enough that nothing wraps round.
    likeness = np.fft.irfft(np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(clean, size)), size)[: _LATEST + 1]
    return int(likeness.argmax())
