"""Noise is mixed into speech at exactly the requested SNR, without clipping."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emtta_core.audio.mix import MAX_SNR_DB, mix, mix_at_snr, rms_dbfs, scale_back, scale_to_dbfs
from emtta_core.audio.noise import NOISES, synthesise
from emtta_core.corpora.synthetic import voices_for_noise
from emtta_core.errors import AudioError

RNG = np.random.default_rng(0)
TONE = np.sin(np.arange(16_000) * 0.2).astype(np.float32)
WHITE = RNG.standard_normal(24_000).astype(np.float32)


def snr_db(speech: NDArray[np.float32], mixture: NDArray[np.float32]) -> float:
    """Return the ratio of the speech to the rest of the mixture."""
    return rms_dbfs(speech) - rms_dbfs(mixture.astype(np.float64) - speech)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("wanted", [-10.0, 0.0, 10.0, 25.0])
def test_measured_ratio_is_requested(kind: str, wanted: float) -> None:
    speech, *voices = voices_for_noise(4, seed=1)
    noise = synthesise(kind, 2.0, np.random.default_rng(3), voices=voices)
    mixture = mix(speech, noise, wanted)
    assert snr_db(mixture.speech, mixture.waveform) == pytest.approx(wanted, abs=1e-3)
    assert rms_dbfs(mixture.speech) - rms_dbfs(mixture.noise) == pytest.approx(wanted, abs=1e-3)


@given(
    wanted=st.floats(-MAX_SNR_DB, MAX_SNR_DB),
    speech_samples=st.integers(2, 3_000),
    noise_samples=st.integers(2, 3_000),
    offset=st.integers(0, 10_000),
    speech_level=st.floats(1e-4, 100),
    noise_level=st.floats(1e-4, 100),
)
@settings(max_examples=150, deadline=None)
def test_ratio_holds_at_any_length(
    wanted: float, speech_samples: int, noise_samples: int, offset: int, speech_level: float, noise_level: float
) -> None:
    mixture = mix(
        TONE[1 : speech_samples + 1] * speech_level, WHITE[:noise_samples] * noise_level, wanted, offset=offset
    )
    assert snr_db(mixture.speech, mixture.waveform) == pytest.approx(wanted, abs=1e-3)
    assert np.abs(mixture.waveform).max() <= 1
    assert 0 < mixture.gain <= 1


def test_10_db_is_10_db_not_5() -> None:
    """A widely copied mixer takes the square root of the noise's factor, and so makes 5 dB of 10 dB."""
    mixture = mix(TONE, WHITE, 10)
    assert rms_dbfs(mixture.speech) == pytest.approx(-25, abs=1e-4)
    assert rms_dbfs(mixture.noise) == pytest.approx(-35, abs=1e-4)
    power = np.mean(np.square(mixture.speech, dtype=np.float64)) / np.mean(np.square(mixture.noise, dtype=np.float64))
    assert power == pytest.approx(10, rel=1e-4)


def test_public_function_returns_float32() -> None:
    mixture = mix(TONE, WHITE, 5, offset=7)
    noisy = mix_at_snr(TONE, WHITE, snr_db=5, offset=7)
    assert noisy.dtype == np.float32
    assert noisy.shape == TONE.shape
    assert np.array_equal(noisy, mixture.waveform)


def test_clipping_sum_is_rescaled() -> None:
    clicks = np.zeros(16_000, dtype=np.float32)
    clicks[100::4_000] = 1.0
    loud = mix(TONE, clicks, 0)
    assert loud.gain < 1
    assert np.abs(loud.waveform).max() == pytest.approx(1, abs=1e-6)
    assert snr_db(loud.speech, loud.waveform) == pytest.approx(0, abs=1e-3)
    assert rms_dbfs(loud.speech) == pytest.approx(-25 + 20 * math.log10(loud.gain), abs=1e-3)
    clipped = np.flatnonzero(np.abs(loud.waveform) > 0.999)
    assert clipped.size < 5, "only the peak itself reaches full scale"
    assert mix(TONE, WHITE, 10).gain == 1


def test_noise_loops_from_offset() -> None:
    noise = WHITE[:1_000]
    mixture = mix(TONE, noise, 3, offset=400)
    expected = np.tile(noise, 18)[400 : 400 + TONE.size]
    scale = mixture.noise[0] / expected[0]
    np.testing.assert_allclose(mixture.noise, expected * scale, rtol=1e-5)
    assert np.array_equal(mix(TONE, noise, 3, offset=1_400).waveform, mixture.waveform)


def test_level_is_of_used_segment() -> None:
    noise = np.concatenate([0.001 * WHITE[:16_000], WHITE[:16_000]])
    quiet, loud = mix(TONE, noise, 10), mix(TONE, noise, 10, offset=16_000)
    np.testing.assert_allclose(quiet.noise, loud.noise, rtol=1e-4)


def test_input_arrays_are_unchanged() -> None:
    speech, noise = TONE.astype(np.float64), WHITE.astype(np.float64)
    mix(speech, noise, 0)
    assert np.array_equal(speech, TONE)
    assert np.array_equal(noise, WHITE)


NAN = TONE.copy()
NAN[5] = np.nan


@pytest.mark.parametrize(
    ("speech", "noise", "snr", "offset", "message"),
    [
        (np.zeros(100, np.float32), WHITE, 10, 0, r"the speech is silent: its peak is 0 .*1e-05"),
        (TONE, np.zeros(100, np.float32), 10, 0, r"the piece of the noise.* is silent: its peak is 0 "),
        (TONE[:0], WHITE, 10, 0, r"the speech is empty \(0 samples\)"),
        (TONE, WHITE[:0], 10, 0, r"the noise is empty \(0 samples\)"),
        (NAN, WHITE, 10, 0, r"the speech has 1 of 16000 samples that are not finite: sample 5 is nan"),
        (TONE, np.full(9, np.inf), 10, 0, r"the noise has 9 of 9 samples .* sample 0 is inf"),
        (np.stack([TONE, TONE]), WHITE, 10, 0, r"the speech has shape \(2, 16000\); it must be mono"),
        (TONE, WHITE.reshape(-1, 2), 10, 0, r"the noise has shape \(12000, 2\)"),
        ((TONE * 32767).astype(np.int16), WHITE, 10, 0, r"the speech has samples of type int16; .*32768"),
        (TONE, WHITE, math.nan, 0, r"the SNR is nan dB; .*-60 and 60 dB"),
        (TONE, WHITE, math.inf, 0, r"the SNR is inf dB"),
        (TONE, WHITE, 61, 0, r"the SNR is 61 dB"),
        (TONE, WHITE, 10, -1, r"offset is -1; it must be 0 or more"),
    ],
)
def test_unmixable_input_is_refused(
    speech: NDArray[np.float32], noise: NDArray[np.float32], snr: float, offset: int, message: str
) -> None:
    with pytest.raises(AudioError, match=message):
        mix_at_snr(speech, noise, snr, offset=offset)


def test_silent_noise_segment_is_refused() -> None:
    noise = np.concatenate([WHITE[:100], np.zeros(20_000, np.float32)])
    with pytest.raises(AudioError, match=r"16000 samples from sample 200 on\) is silent"):
        mix_at_snr(TONE, noise, 10, offset=200)
    assert mix(TONE, noise, 10).noise.any()


def test_levels_are_dbfs() -> None:
    assert rms_dbfs(np.ones(10, np.float32)) == 0
    assert rms_dbfs(np.sin(np.arange(16_000) * 2 * np.pi / 100)) == pytest.approx(-3.0103, abs=1e-4)
    assert rms_dbfs(np.zeros(10, np.float32)) == -math.inf
    assert rms_dbfs(scale_to_dbfs(WHITE, -31.5)) == pytest.approx(-31.5, abs=1e-4)
    with pytest.raises(AudioError, match="silent"):
        scale_to_dbfs(np.zeros(10, np.float32))
    with pytest.raises(AudioError, match="the level is nan dB FS"):
        scale_to_dbfs(WHITE, math.nan)


def test_loud_waveform_is_rescaled_whole() -> None:
    back = scale_back(WHITE)
    assert np.abs(back.waveform).max() == 1
    np.testing.assert_allclose(back.waveform, WHITE * back.gain, rtol=1e-6)
    assert scale_back(TONE).gain == 1
    assert np.array_equal(scale_back(TONE).waveform, TONE)
