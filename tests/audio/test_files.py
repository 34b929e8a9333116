"""Any audio file is read as 16 kHz mono, errors name the file, and FLAC preserves the samples."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emtta_core.audio.files import encode_flac, read_audio
from emtta_core.errors import AudioError


def sine(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


SPEECH = sine(16_000).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "PCM_24"), ("WAV", "ULAW"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16")],
)
def test_any_container_reads_alike(tmp_path: Path, rate: int, container: str, subtype: str) -> None:
    path = tmp_path / "speech.audio"
    soundfile.write(path, sine(rate), rate, format=container, subtype=subtype)
    waveform = read_audio(path)
    assert waveform.dtype == np.float32
    assert waveform.shape == (16_000,)
    middle = slice(500, -500)
    np.testing.assert_allclose(waveform[middle], SPEECH[middle], atol=0.02 if subtype == "ULAW" else 0.001)


@pytest.mark.parametrize(("container", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_compressed_audio_is_read(tmp_path: Path, container: str, subtype: str) -> None:
    path = tmp_path / "speech.audio"
    soundfile.write(path, sine(48_000, 2), 48_000, format=container, subtype=subtype)
    waveform = read_audio(path)
    assert abs(waveform.size - 32_000) < 1_000
    spectrum = np.abs(np.fft.rfft(waveform))
    assert spectrum.argmax() * 16_000 / waveform.size == pytest.approx(440, abs=2)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([sine(16_000), np.zeros(16_000)], axis=1), 16_000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path), SPEECH / 2, atol=1e-6)


def test_path_string_and_bytes_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "speech.flac"
    path.write_bytes(encode_flac(SPEECH))
    assert np.array_equal(read_audio(path), read_audio(str(path)))
    assert np.array_equal(read_audio(path), read_audio(path.read_bytes()))


def test_samples_over_full_scale_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "loud.wav"
    soundfile.write(path, 3 * SPEECH, 16_000, subtype="FLOAT")
    assert read_audio(path).max() == pytest.approx(1.5, abs=1e-3)


def test_many_blocks_are_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros((1 << 20) + 5), 16_000)
    assert read_audio(path).size == (1 << 20) + 5


def whole(container: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 48_000), 48_000, format=container)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the file is empty \(0 bytes\)"),
        (
            b"MISTER QUILTER IS THE APOSTLE OF THE MIDDLE CLASSES\n",
            r"is not audio that can be read \(52 bytes\): Format",
        ),
        (whole("FLAC")[:20_000], r"is cut off or damaged \(20000 bytes\): flac decoder"),
        (whole("WAV")[:20_000], r"is cut off: it has 20000 of the 96044 bytes"),
        (whole("WAV")[:44], r"is cut off: it has 44 of the 96044 bytes"),
        (whole("MP3")[:4_000], r"is cut off: its last MP3 frame has \d+ of \d+ bytes"),
        (b"RIFF", r"is not audio"),
        (b"fLaC" + bytes(100), r"is not audio"),
    ],
    ids=["empty", "transcript", "cut flac", "cut wav", "wav header", "cut mp3", "riff alone", "flac alone"],
)
def test_broken_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.flac"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=message) as refusal:
        read_audio(path)
    assert str(path) in str(refusal.value)


def test_empty_and_nan_audio_are_refused(tmp_path: Path) -> None:
    nothing, nan = tmp_path / "nothing.wav", tmp_path / "nan.wav"
    soundfile.write(nothing, np.zeros(0), 16_000)
    with pytest.raises(AudioError, match=r"nothing\.wav: contains no audio \(0 samples\)"):
        read_audio(nothing)
    samples = SPEECH.copy()
    samples[[7, 9]] = np.nan, np.inf
    soundfile.write(nan, samples, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"nan\.wav has 2 of 16000 samples that are not finite: sample 7 is nan"):
        read_audio(nan)


def test_unopenable_file_shows_os_error(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav: cannot be read: No such file"):
        read_audio(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match=r"cannot be read: it is a folder, not a plain file"):
        read_audio(tmp_path)
    with pytest.raises(AudioError, match=r"cannot be read: .*null"):
        read_audio("a\0b.wav")
    if os.geteuid() != 0:
        (tmp_path / "secret.wav").write_bytes(whole("WAV"))
        (tmp_path / "secret.wav").chmod(0)
        with pytest.raises(AudioError, match=r"cannot be read: Permission denied"):
            read_audio(tmp_path / "secret.wav")


def test_bytes_can_be_named_for_messages() -> None:
    with pytest.raises(AudioError, match=r"^row 3: the file is empty"):
        read_audio(b"", name="row 3")
    with pytest.raises(AudioError, match=r"^the audio bytes: the file is empty"):
        read_audio(b"")


def test_streamed_wav_is_read() -> None:
    data = bytearray(whole("WAV"))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert read_audio(bytes(data)).size == 16_000


def test_streamed_flac_is_refused() -> None:
    data = bytearray(encode_flac(SPEECH))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    with pytest.raises(AudioError, match="its header does not state its length"):
        read_audio(bytes(data))


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=200))
@settings(max_examples=100, deadline=None)
def test_flac_roundtrips_within_half_step(samples: list[float]) -> None:
    waveform = np.array(samples, dtype=np.float32)
    back = read_audio(encode_flac(waveform))
    step = 1 / 32_768
    inside = waveform <= 1 - step
    assert np.abs(back - waveform)[inside].max(initial=0) <= step / 2
    assert np.abs(back - waveform).max() <= step
    assert np.array_equal(read_audio(encode_flac(back)), back), "a second time, nothing is lost"


def test_flac_is_16_bit_mono_16_khz() -> None:
    info = soundfile.info(io.BytesIO(encode_flac(SPEECH)))
    assert (info.format, info.subtype, info.channels, info.samplerate) == ("FLAC", "PCM_16", 1, 16_000)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (SPEECH * 2.5, r"a peak of 1\.25, above full scale"),
        (SPEECH[:0], r"is empty"),
        (np.full(3, np.nan), r"not finite"),
        (np.zeros((2, 5)), r"has shape \(2, 5\)"),
        (np.zeros(5, dtype=np.int16), r"type int16"),
    ],
)
def test_unencodable_flac_is_refused(waveform: NDArray[np.float32], message: str) -> None:
    with pytest.raises(AudioError, match=message):
        encode_flac(waveform)
