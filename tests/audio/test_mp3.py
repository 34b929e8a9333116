"""An MP3 whose header lacks its length, as ffmpeg writes to a pipe, is read whole, and refused if truncated."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpora_factory import piped
from numpy.typing import NDArray

from emtta_core.audio.files import length_in_seconds, read_audio
from emtta_core.audio.waveform import Waveform
from emtta_core.errors import AudioError

ID3 = b"ID3\x04\x00\x00\x00\x00\x08\x00" + bytes(1024)
SECONDS = 4.0
LAME_DELAY = 576
"""Samples that the encoder adds before the sound."""


def with_length(rate: int = 32_000, channels: int = 1, mode: str = "CONSTANT") -> bytes:
    """Return an MP3 with its length in the header: 1 s of tone, then increasing noise, which needs more bits."""
    rng, time = np.random.default_rng(0), np.arange(round(SECONDS * rate)) / rate
    sound = np.where(time < 1, 0.3 * np.sin(2 * np.pi * 220 * time), 0.04 * time * rng.standard_normal(time.size))
    file = io.BytesIO()
    soundfile.write(
        file,
        np.stack([sound] * channels, axis=1),
        rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode=mode,
        compression_level=0.6,
    )
    return file.getvalue()


def without_length(rate: int = 32_000, channels: int = 1, mode: str = "CONSTANT") -> bytes:
    """Return the same sound as ffmpeg writes it to a pipe."""
    return piped(with_length(rate, channels, mode))


def levels(waveform: Waveform) -> NDArray[np.float64]:
    """Return the RMS of each twentieth of a second."""
    return np.sqrt(np.mean(np.square(waveform.reshape(-1, 800)), axis=1, dtype=np.float64))


WITHOUT_LENGTH = without_length()


@pytest.mark.parametrize("tag", [b"", ID3], ids=["a tag", "two tags"])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "rate", [8_000, *(pytest.param(rate, marks=pytest.mark.slow) for rate in (22_050, 32_000)), 48_000]
)
def test_whole_sound_is_read(rate: int, channels: int, mode: str, tag: bytes) -> None:
    waveform = read_audio(tag + without_length(rate, channels, mode))
    whole = read_audio(with_length(rate, channels, mode))
    first = round(LAME_DELAY / rate * 16_000)
    assert 0 <= waveform.size - first - whole.size < 0.25 * 16_000, "only what fills up the last frames"
    np.testing.assert_allclose(levels(waveform[first:][: whole.size]), levels(whole), atol=0.004)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_length_matches_decoded_sound(tmp_path: Path, mode: str) -> None:
    data = ID3 + without_length(mode=mode)
    (tmp_path / "clip.mp3").write_bytes(data)
    assert length_in_seconds(data) == pytest.approx(read_audio(data).size / 16_000, abs=1e-3)
    assert length_in_seconds(tmp_path / "clip.mp3") == length_in_seconds(data)


@pytest.mark.parametrize(
    "behind", [b"TAG" + bytes(125), b"APETAGEX" + bytes(90), bytes(300), bytes(30) + b"TAG" + bytes(125)]
)
def test_trailing_non_audio_is_ignored(behind: bytes) -> None:
    assert np.array_equal(read_audio(WITHOUT_LENGTH + behind), read_audio(WITHOUT_LENGTH))


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_truncated_mid_frame_is_refused(mode: str) -> None:
    data = without_length(mode=mode)[:-100]
    with pytest.raises(AudioError, match=r"^clip 7: is cut off: its last MP3 frame has \d+ of \d+ bytes"):
        read_audio(data, name="clip 7")
    assert length_in_seconds(data) is None


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_foreign_bytes_are_refused(mode: str) -> None:
    data = bytearray(without_length(mode=mode))
    middle = data.index(data[45:47], len(data) // 2)
    data[middle : middle + 4] = bytes(4)
    with pytest.raises(AudioError, match=r"^clip 7: is damaged: at byte \d+ of \d+ there should be an MP3 frame"):
        read_audio(bytes(data), name="clip 7")


def test_start_mid_frame_is_refused() -> None:
    with pytest.raises(AudioError, match=r"is damaged: at byte 0 of \d+|is not audio that can be read"):
        read_audio(WITHOUT_LENGTH[145:])


def test_declared_length_is_exact() -> None:
    assert read_audio(ID3 + with_length()).size == SECONDS * 16_000
    assert length_in_seconds(with_length()) == SECONDS
