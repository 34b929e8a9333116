"""A long waveform is cut at pauses, and no sample is lost or duplicated."""

import itertools

import numpy as np
import pytest
from conftest import RATE, tone
from hypothesis import given, settings
from hypothesis import strategies as st

from emtta_core.audio.waveform import windows_of

LONGEST = 4 * RATE


def speech(*parts: tuple[float, float]) -> np.ndarray:
    """Return tones of the first durations, each followed by silence of the second, in seconds."""
    rng = np.random.default_rng(0)
    pieces = [np.concatenate([tone(spoken), np.zeros(round(silent * RATE), np.float32)]) for spoken, silent in parts]
    whole = np.concatenate(pieces)
    return whole + 1e-5 * rng.standard_normal(len(whole)).astype(np.float32)


def test_short_audio_is_one_window() -> None:
    assert windows_of(np.ones(LONGEST, np.float32), LONGEST) == [slice(0, LONGEST)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 25 * RATE), st.integers(40 * RATE // 50, 5 * RATE), st.integers(0, 1000))
def test_windows_are_gapless_and_fit(samples: int, longest: int, seed: int) -> None:
    waveform = np.random.default_rng(seed).standard_normal(samples).astype(np.float32)
    found = windows_of(waveform, longest)
    assert found[0].start == 0
    assert found[-1].stop == samples
    assert all(before.stop == after.start for before, after in itertools.pairwise(found))
    assert all(0 < window.stop - window.start <= longest for window in found)
    np.testing.assert_array_equal(np.concatenate([waveform[window] for window in found]), waveform)


def test_cuts_fall_in_longest_pause() -> None:
    waveform = speech((2.4, 0.3), (0.4, 0.8), (1.5, 0.6), (0.2, 0.6), (3.0, 0.0))
    cuts = [window.stop / RATE for window in windows_of(waveform, LONGEST)][:-1]
    assert len(cuts) == 2
    assert 3.1 < cuts[0] < 3.9  # the longer of the two pauses between 2 and 4 s
    assert 5.4 < cuts[1] < 6.8
    for cut in cuts:
        around = waveform[round((cut - 0.05) * RATE) : round((cut + 0.05) * RATE)]
        assert np.abs(around).max() < 1e-3


def test_cuts_at_quietest_without_pause() -> None:
    waveform = tone(6.0)
    waveform[3 * RATE : 3 * RATE + RATE // 4] *= 0.3  # 10 dB quieter, which is no pause
    first, _ = windows_of(waveform, LONGEST)
    assert first.stop / RATE == pytest.approx(3.125, abs=0.06)


def test_last_window_is_never_tiny() -> None:
    waveform = speech((3.95, 0.06))
    assert min(window.stop - window.start for window in windows_of(waveform, LONGEST)) >= 0.1 * LONGEST - 320


def test_silent_recording_is_cut() -> None:
    assert len(windows_of(np.zeros(9 * RATE, np.float32), LONGEST)) == 3
