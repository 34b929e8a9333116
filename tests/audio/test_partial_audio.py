"""A recording is read completely or refused: data after the last frame is never dropped silently."""

import io
import struct

import numpy as np
import pytest
import soundfile

from emtta_core.audio.files import read_audio
from emtta_core.errors import AudioError

FRAMES = 24_000


def whole(form: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    sound = np.random.default_rng(0).normal(0, 0.1, FRAMES)
    soundfile.write(file, sound, 16_000, format=form, subtype=subtype)
    return file.getvalue()


FILES = {
    "flac": whole("FLAC"),
    "wav": whole("WAV"),
    "rf64": whole("RF64"),
    "aiff": whole("AIFF"),
    "au": whole("AU"),
    "w64": whole("W64"),
    "caf": whole("CAF"),
    "sphere": whole("NIST"),
    "vorbis": whole("OGG"),
    "opus": whole("OGG", "OPUS"),
    "mp3": whole("MP3"),
}


@pytest.mark.parametrize("form", FILES)
def test_whole_file_is_read_whole(form: str) -> None:
    assert abs(read_audio(FILES[form]).size - FRAMES) <= 1


@pytest.mark.parametrize("form", FILES)
def test_truncated_file_is_refused(form: str) -> None:
    with pytest.raises(AudioError, match="is cut off"):
        read_audio(FILES[form][: len(FILES[form]) * 2 // 3])


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("rest", [b"junk" * 1000, None], ids=["junk", "another file"])
def test_trailing_data_is_refused(form: str, rest: bytes | None) -> None:
    with pytest.raises(AudioError, match=r"would not be read|is damaged"):
        read_audio(FILES[form] + (FILES[form] if rest is None else rest))


@pytest.mark.parametrize("form", ["flac", "wav", "mp3", "vorbis"])
def test_trailing_tag_is_ignored(form: str) -> None:
    for rest in (b"TAG" + b"a title".ljust(125, b"\0"), bytes(64)):
        assert abs(read_audio(FILES[form] + rest).size - FRAMES) <= 1


def wav(riff: int, data: int) -> bytes:
    file = bytearray(FILES["wav"])
    file[4:8], file[40:44] = struct.pack("<I", riff), struct.pack("<I", data)
    return bytes(file)


SIZE = 2 * FRAMES


@pytest.mark.parametrize(
    ("riff", "data", "words"),
    [
        (36 + SIZE, 8_000, "would not be read"),
        (36 + 8_000, 8_000, "would not be read"),
        (0, 0, "would not be read"),
        (36, 0, "would not be read"),
        (36 + SIZE, SIZE + 1_000, "is cut off"),
        (36 + SIZE + 1_000, SIZE + 1_000, "is cut off"),
    ],
)
def test_wav_length_mismatch_is_refused(riff: int, data: int, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        read_audio(wav(riff, data))


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_F000])
def test_piped_wav_is_read(size: int) -> None:
    assert read_audio(wav(size, size)).size == FRAMES


def test_short_flac_header_is_refused() -> None:
    file = bytearray(FILES["flac"])
    fields = int.from_bytes(file[18:26], "big")
    file[18:26] = (fields >> 36 << 36 | 8_000).to_bytes(8, "big")
    with pytest.raises(AudioError, match="would not be read"):
        read_audio(bytes(file))
