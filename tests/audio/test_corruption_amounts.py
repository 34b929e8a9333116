"""Each corruption has the effect that its table row declares, measured in its output."""

import io
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from pyroomacoustics.experimental import measure_rt60
from soxr import resample

from emtta_core.audio import effects, rooms
from emtta_core.audio.corruption import Graded
from emtta_core.audio.effects import EFFECTS
from emtta_core.audio.mix import rms_dbfs
from emtta_core.audio.spectrum import signal_to_distortion_db
from emtta_core.audio.waveform import Waveform
from emtta_core.corpora.synthetic import voices_for_noise

Signal = NDArray[np.float64]

SPEECH, SECOND, *OTHERS = voices_for_noise(10, seed=2)
SEVERITIES = range(1, 6)
RATE = 16_000
TIME = np.arange(10 * RATE) / RATE
WHITE = np.random.default_rng(0).standard_normal(TIME.size)
TONE = np.sin(2 * np.pi * 440 * TIME)
CLICK_AT = 1_000
CLICK = (np.arange(3 * RATE) == CLICK_AT).astype(np.float64)


def others(count: int) -> Sequence[Waveform]:
    return OTHERS[:count]


def corrupted(name: str, severity: int, speech: Signal | Waveform, utterance: str = "a-1") -> Signal:
    return Graded(name=name, severity=severity).apply(speech, utterance, others).waveform.astype(np.float64)


def declared(name: str) -> Iterator[tuple[int, float]]:
    """Yield each severity with its amount."""
    return zip(SEVERITIES, EFFECTS[name].amounts, strict=True)


def passed(name: str, severity: int, middle: float, *hertz: float) -> list[float]:
    """Return the levels of filtered white noise at some frequencies, in dB relative to `middle`."""
    size = 4_096
    frames = [
        signal.reshape(-1, size) * np.hanning(size)
        for signal in (corrupted(name, severity, WHITE)[: 39 * size], WHITE[: 39 * size])
    ]
    after, before = (np.mean(np.abs(np.fft.rfft(frame, axis=1)) ** 2, axis=0) for frame in frames)
    scale = np.fft.rfftfreq(size, 1 / RATE)
    levels = [10 * np.log10(np.mean((after / before)[np.abs(scale - one) < 0.015 * one])) for one in (middle, *hertz)]
    return [float(level - levels[0]) for level in levels[1:]]


def pitch_of(sound: Signal) -> float:
    """Return the frequency of the spectrum's peak, in semitones above 440 Hz."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(sound.size), 1 << 19))
    return float(12 * np.log2(spectrum.argmax() * RATE / (1 << 19) / 440))


BEEPS_AT = np.array([0.4, 0.9, 1.6, 2.1, 2.7])
BEEPS = TONE[: 3 * RATE] * sum(np.exp(-((TIME[: 3 * RATE] - at) ** 2) / 0.0005) for at in BEEPS_AT)


def beeps_of(sound: Signal, expected: Signal) -> Signal:
    """Return the time of each beep in seconds: the centre of the energy within 0.1 s of the expected time."""
    time = np.arange(sound.size) / RATE
    near = [np.where(np.abs(time - at) < 0.1, sound**2, 0) for at in expected]
    return np.array([(time * power).sum() / power.sum() for power in near])


@pytest.mark.parametrize("name", ["gaussian", "environment", "babble", "music", "crosstalk"])
def test_added_sound_has_declared_ratio(name: str) -> None:
    for severity, snr_db in declared(name):
        made = Graded(name=name, severity=severity).apply(SPEECH[:40_000], "a-1", others)
        speech = SPEECH[:40_000] * (made.gain * 10 ** ((-25 - rms_dbfs(SPEECH[:40_000])) / 20))
        assert rms_dbfs(speech) - rms_dbfs(made.waveform - speech) == pytest.approx(snr_db, abs=0.01)
        assert made.snr_db == snr_db


def test_room_has_declared_decay() -> None:
    for severity, rt60 in declared("reverberation"):
        for utterance in ("a-1", "a-3"):
            response = corrupted("reverberation", severity, CLICK, utterance)[CLICK_AT:]
            assert measure_rt60(response, RATE, decay_db=30) == pytest.approx(rt60, rel=0.05)


def test_far_field_has_declared_distance() -> None:
    """The hall's noise is 25 dB below the direct sound at 1 m, at any distance of the microphone."""
    for severity, metres in declared("far-field"):
        sound = corrupted("far-field", severity, CLICK)
        direct = np.sum(sound[CLICK_AT - 12 : CLICK_AT + 12] ** 2)
        air = np.mean(sound[-RATE:] ** 2) * sound.size
        assert 10 * np.log10(direct / air) == pytest.approx(25 - 20 * np.log10(metres), abs=0.7)


def test_distance_adds_reverb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_NOISE_DB", 200.0)  # no noise, which would mask the end of the reverberation
    ratios = []
    for severity in SEVERITIES:
        response = corrupted("far-field", severity, CLICK)[CLICK_AT - 12 :]
        assert measure_rt60(response[12:], RATE, decay_db=30) == pytest.approx(0.6, rel=0.05)
        ratios.append(10 * np.log10(np.sum(response[:24] ** 2) / np.sum(response[24:] ** 2)))
    assert np.diff(ratios) == pytest.approx(-20 * np.diff(np.log10(EFFECTS["far-field"].amounts)), abs=1.5)


def test_echoes_decay_as_declared() -> None:
    delays = set()
    for severity, decibels in declared("echo"):
        sound = corrupted("echo", severity, CLICK)
        echoes = np.flatnonzero(np.abs(sound) > 1e-6)
        delays |= set(np.diff(echoes))
        assert np.diff(20 * np.log10(sound[echoes])) == pytest.approx(decibels, abs=0.01)
    assert len(delays) == 1, "the same at each severity"
    assert 0.15 * RATE <= delays.pop() <= 0.35 * RATE


def test_telephone_passes_declared_band() -> None:
    for severity, hertz in declared("telephone"):
        below, low, high, above = passed("telephone", severity, 900, 150, 300, hertz, min(2 * hertz, 5_000))
        assert [low, high] == pytest.approx([-3, -3], abs=0.3)
        assert below == pytest.approx(-24, abs=0.8), "24 dB an octave"
        assert above < -60 if 2 * hertz > 4_000 else above == pytest.approx(-24, abs=0.8)


def test_low_pass_keeps_declared_band() -> None:
    for severity, hertz in declared("low-pass"):
        edge, above = passed("low-pass", severity, 300, hertz, 1.5 * hertz)
        assert edge == pytest.approx(-3, abs=0.1)
        assert above == pytest.approx(-10 * np.log10(1 + 1.5**16), abs=0.3), "48 dB an octave"


def test_g711_has_step_noise_and_flips() -> None:
    """The expected error power is the share times the power of flipping each bit of a tone, by G.711's table."""
    tone = 10 ** (-25 / 20) * np.sqrt(2) * np.sin(2 * np.pi * 440 * np.arange(200) / 8_000)
    code = np.arange(256) ^ 0xFF
    size = (((code & 15) << 3) + 132 << (code >> 4 & 7)) - 132
    table = np.where(code & 128, -size, size) / 32_768
    nearest = np.abs(table[:, None] - tone).argmin(axis=0)
    per_bit = sum(np.mean((table[nearest ^ 1 << bit] - table[nearest]) ** 2) for bit in range(8))
    long = np.tile(TONE, 4)
    clean = corrupted("g711", 1, long)
    assert signal_to_distortion_db(long, clean) == pytest.approx(37, abs=1)
    clean *= 10 ** (-25 / 20) / np.sqrt(np.mean(clean**2))
    for severity, share in list(declared("g711"))[1:]:
        sound = corrupted("g711", severity, long)
        errors = sound * (clean @ clean) / (clean @ sound) - clean
        assert np.mean(errors**2) / per_bit == pytest.approx(share, rel=0.2)


def test_gsm_is_coded_declared_times() -> None:
    speech = SPEECH[:40_000] * 10 ** ((-25 - rms_dbfs(SPEECH[:40_000])) / 20)
    coded, passes = resample(speech.astype(np.float64), RATE, 8_000), []
    for _ in range(12):
        file = io.BytesIO()
        soundfile.write(file, coded, 8_000, format="WAV", subtype="GSM610")
        file.seek(0)
        coded = soundfile.read(file)[0][: coded.size]
        passes.append(resample(coded, 8_000, RATE))
    for severity, times in declared("gsm"):
        sound = corrupted("gsm", severity, speech)
        likeness = [signal_to_distortion_db(one, sound) or 0 for one in passes]
        assert np.argmax(likeness) + 1 == times
        assert max(likeness) > 60


@pytest.mark.parametrize("name", ["mp3", "opus"])
def test_codec_has_declared_bit_rate(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = effects._written
    monkeypatch.setattr(effects, "_written", lambda *a, **k: written.append(write(*a, **k)) or written[-1])
    speech = np.concatenate([SPEECH, SECOND, *OTHERS])[: 10 * RATE]
    for severity, kbits in declared(name):
        corrupted(name, severity, speech)
        size = len(written[-1]) if name == "mp3" else sum(pages(written[-1])[2:])
        assert 8 * size / 10 / 1_000 == pytest.approx(kbits, rel=0.05)


def pages(file: bytes) -> list[int]:
    """Return the payload sizes of an Ogg file's pages in bytes; the first two are headers."""
    held, at = [], 0
    while at < len(file):
        lengths = file[at + 27 : at + 27 + file[at + 26]]
        held.append(sum(lengths))
        at += 27 + len(lengths) + held[-1]
    return held


def lost(severity: int, speech: Signal | Waveform, utterance: str) -> tuple[set[int], set[int]]:
    """Return the packets of 20 ms with sound, and those of them that are lost."""
    sounding, silent = (
        {i for i in range(-(-signal.size // 320)) if bool(signal[i * 320 : (i + 1) * 320].any()) is sound}
        for signal, sound in ((speech, True), (corrupted("packet-loss", severity, speech, utterance), False))
    )
    return sounding, sounding & silent


def test_declared_share_of_packets_is_lost() -> None:
    for severity, share in declared("packet-loss"):
        sounding, gone = lost(severity, WHITE[:40_100], "a-1")
        assert len(gone) == pytest.approx(share * len(sounding), abs=0.5)


@pytest.mark.parametrize("samples", [321, 640, 1_600, 3_199, 6_000])
def test_short_speech_is_not_lost_whole(samples: int) -> None:
    for severity in SEVERITIES:
        sounding, gone = lost(severity, WHITE[:samples], "a-1")
        assert 1 <= len(gone) < len(sounding)
    assert not lost(5, WHITE[:320], "a-1")[1], "a single packet is heard"


def test_declared_share_is_clipped() -> None:
    for severity, share in declared("clipping"):
        sound = np.abs(corrupted("clipping", severity, WHITE))
        assert np.mean(sound > sound.max() * (1 - 1e-6)) == pytest.approx(share, abs=1e-4)


def test_level_is_as_declared() -> None:
    for severity, dbfs in declared("gain"):
        sound = corrupted("gain", severity, SPEECH)
        assert rms_dbfs(sound) == pytest.approx(dbfs, abs=0.1)
        assert np.array_equal(sound * 32_768, np.rint(sound * 32_768))


def test_tempo_changes_without_pitch() -> None:
    for severity, factor in declared("speed"):
        sound = corrupted("speed", severity, BEEPS)
        assert sound.size == round(BEEPS.size / factor)
        assert beeps_of(sound, BEEPS_AT / factor) == pytest.approx(BEEPS_AT / factor, abs=0.005)
        assert pitch_of(corrupted("speed", severity, TONE[: 3 * RATE])) == pytest.approx(0, abs=0.1)


def test_pitch_changes_without_tempo() -> None:
    for severity, semitones in declared("pitch"):
        moved = [pitch_of(corrupted("pitch", severity, TONE[: 2 * RATE], utterance)) for utterance in "ab"]
        assert moved == pytest.approx([-semitones, semitones], abs=0.1)
        assert beeps_of(corrupted("pitch", severity, BEEPS), BEEPS_AT) == pytest.approx(BEEPS_AT, abs=0.005)
