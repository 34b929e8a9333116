"""Each of the ten noises has the character that its name says, and is the same for the same seed."""

import numpy as np
import pytest
from numpy.typing import NDArray

from emtta_core.audio.noise import NOISES, PEAK, VOICES, synthesise
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform
from emtta_core.corpora.synthetic import voices_for_noise
from emtta_core.errors import AudioError, UsageError

SPOKEN = voices_for_noise(8, seed=0)
SEEDS = range(5)


def noise(kind: str, seconds: float = 5.0, seed: int = 0) -> Waveform:
    return synthesise(kind, seconds, np.random.default_rng(seed), voices=SPOKEN)


def share(waveform: Waveform, low: float, high: float) -> float:
    """Return the share of the energy between two frequencies in Hz."""
    power = np.abs(np.fft.rfft(waveform)) ** 2
    frequencies = np.fft.rfftfreq(waveform.size, 1 / SAMPLE_RATE)
    return float(power[(frequencies >= low) & (frequencies < high)].sum() / power.sum())


def levels(waveform: Waveform, seconds: float = 0.02) -> NDArray[np.float64]:
    """Return the RMS level of each short frame, in dB relative to the whole."""
    size = int(seconds * SAMPLE_RATE)
    frames = waveform[: waveform.size // size * size].reshape(-1, size).astype(np.float64)
    return 10 * np.log10(np.maximum(np.mean(frames**2, axis=1) / np.mean(frames**2), 1e-10))


def onsets(waveform: Waveform, rise: float = 9.0) -> int:
    """Count how often the level jumps by `rise` dB from one frame to the next, at most once in 60 ms."""
    level = levels(waveform)
    jumps = np.flatnonzero(np.diff(level) > rise)
    return int(np.sum(np.diff(jumps, prepend=-10) > 3))


def test_ten_kinds_match_paper() -> None:
    assert len(NOISES) == 10
    assert set(VOICES) < set(NOISES)


@pytest.mark.parametrize("kind", NOISES)
def test_same_seed_gives_same_bits(kind: str) -> None:
    assert noise(kind, 1.0).tobytes() == noise(kind, 1.0).tobytes()
    assert not np.array_equal(noise(kind, 1.0), noise(kind, 1.0, seed=1))


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("seconds", [1 / SAMPLE_RATE, 0.01, 0.5, 3.14159, 31.0])
def test_any_length_is_exact(kind: str, seconds: float) -> None:
    waveform = noise(kind, seconds)
    assert waveform.dtype == np.float32
    assert waveform.shape == (round(seconds * SAMPLE_RATE),)
    assert np.abs(waveform).max() == pytest.approx(PEAK)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("seed", SEEDS)
def test_noise_is_continuous(kind: str, seed: int) -> None:
    """Every tenth of a second contains sound, and every 3 s more than the background."""
    waveform = noise(kind, 6.0, seed)
    assert levels(waveform, 0.1).min() > -60
    assert levels(waveform, 3.0).min() > -6
    assert abs(float(waveform.mean())) < 0.01, "no direct current"


@pytest.mark.parametrize("seed", SEEDS)
def test_gaussian_is_white_and_steady(seed: int) -> None:
    waveform = noise("gaussian", seed=seed)
    for octave in (500, 1_000, 2_000, 4_000):
        assert share(waveform, octave, octave * 2) == pytest.approx(octave / 8_000, rel=0.1)
    assert np.ptp(levels(waveform, 0.1)) < 2


@pytest.mark.parametrize("seed", SEEDS)
def test_air_conditioner_hums_low(seed: int) -> None:
    waveform = noise("air-conditioner", seed=seed)
    assert share(waveform, 0, 1_000) > 0.6
    assert np.ptp(levels(waveform, 0.25)) < 6
    hum = max(share(waveform, mains - 1, mains + 1) for mains in (100, 120))
    assert hum > 10 * share(waveform, 109, 111), "a line at twice the mains' frequency"


@pytest.mark.parametrize("seed", SEEDS)
def test_vacuum_cleaner_has_harmonics(seed: int) -> None:
    waveform = noise("vacuum-cleaner", seed=seed)
    assert share(waveform, 1_000, 6_000) > 0.35
    assert np.ptp(levels(waveform, 0.25)) < 8
    frame = waveform[:8_192] * np.hanning(8_192)
    spectrum = np.abs(np.fft.rfft(frame))[20:1_000]
    assert spectrum.max() > 8 * np.median(spectrum)


@pytest.mark.parametrize("seed", SEEDS)
def test_babble_is_speech_without_pauses(seed: int) -> None:
    waveform = noise("babble", seed=seed)
    assert share(waveform, 100, 4_000) > 0.9
    alone = levels(SPOKEN[seed])
    assert np.percentile(alone, 90) - np.percentile(alone, 10) > 18
    assert np.percentile(levels(waveform), 90) - np.percentile(levels(waveform), 10) < 9


@pytest.mark.parametrize("seed", SEEDS)
def test_airport_hall_never_falls_quiet(seed: int) -> None:
    waveform = noise("airport-announcements", seed=seed)
    assert share(waveform, 200, 4_000) > 0.9
    assert levels(waveform, 0.1).min() > -25


@pytest.mark.parametrize("seed", SEEDS)
def test_airport_begins_with_chime(seed: int) -> None:
    """In some half second, one line has nearly all the energy from 400 to 900 Hz; without the chime, at most 0.73."""
    frames = np.lib.stride_tricks.sliding_window_view(noise("airport-announcements", 8.0, seed), 8_000)[::800]
    spectra = np.abs(np.fft.rfft(frames * np.hanning(8_000), axis=1))[:, 200:450] ** 2
    lines = [
        spectrum[max(0, top - 2) : top + 3].sum() for spectrum, top in zip(spectra, spectra.argmax(1), strict=True)
    ]
    assert np.max(lines / spectra.sum(axis=1)) > 0.8


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbour_is_muffled_by_wall(seed: int) -> None:
    waveform = noise("neighbour", seed=seed)
    assert share(waveform, 0, 600) > 0.9
    assert share(waveform, 2_000, 8_001) < 0.005
    assert share(waveform, 30, 100) > 0.003, "thumps"


@pytest.mark.parametrize("seed", SEEDS)
def test_typing_is_many_clicks_per_second(seed: int) -> None:
    waveform = noise("typing", seed=seed)
    assert 10 <= onsets(waveform) <= 60
    assert np.abs(waveform).max() > 8 * np.sqrt(np.mean(waveform**2))


@pytest.mark.parametrize("seed", SEEDS)
def test_doors_slam_within_three_seconds(seed: int) -> None:
    waveform = noise("shutting-door", 3.0, seed)
    assert onsets(waveform, 12.0) >= 2
    assert share(waveform, 0, 500) > 0.4
    assert np.ptp(levels(waveform)) > 20


@pytest.mark.parametrize("seed", SEEDS)
def test_munching_crackles_irregularly(seed: int) -> None:
    waveform = noise("munching", seed=seed)
    assert 5 <= onsets(waveform, 5.0) <= 60
    assert share(waveform, 700, 8_001) > 0.6
    assert np.percentile(levels(waveform), 95) - np.percentile(levels(waveform), 5) > 15


@pytest.mark.parametrize("seed", SEEDS)
def test_copy_machine_is_cyclic(seed: int) -> None:
    """The level repeats with the period of a page, between 1.1 and 1.5 s."""
    level = levels(noise("copy-machine", 12.0, seed), 0.02)
    level = level - level.mean()
    likeness = [float(np.corrcoef(level[:-lag], level[lag:])[0, 1]) for lag in range(50, 80)]
    assert max(likeness) > 0.5


@pytest.mark.parametrize("kind", VOICES)
def test_speech_kinds_require_voices(kind: str) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(
        UsageError, match=rf"'{kind}' is made of speech: pass it voices \({VOICES[kind]}, for example\)"
    ):
        synthesise(kind, 1.0, rng)
    with pytest.raises(AudioError, match="voice 1 is silent"):
        synthesise(kind, 1.0, rng, voices=[SPOKEN[0], np.zeros(100, np.float32)])
    one = synthesise(kind, 1.0, rng, voices=[SPOKEN[0][:8_000]])
    assert one.shape == (16_000,), "one short voice is enough"


def test_unknown_kind_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match=r"unknown noise 'rain'; choose from: air-conditioner, .*vacuum-cleaner"):
        synthesise("rain", 1.0, rng)
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=f"length is {seconds} s"):
            synthesise("gaussian", seconds, rng)
