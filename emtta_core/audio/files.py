"""Audio files: any that libsndfile reads, in; 16-bit FLAC, out."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike, NDArray

from emtta_core.audio.mp3 import counted
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform, checked
from emtta_core.errors import AudioError
from emtta_core.pointers import pointer_in

_STREAMED = 0x7FFF_0000
"""A RIFF size from here on says that the writer did not know the length (it wrote to a pipe)."""

_UNKNOWN = 2**63 - 1
"""The length that libsndfile reports where a FLAC header does not say; it cannot read such a file."""

_BLOCK = 1 << 20
"""Frames read at a time, so that memory follows what is in a file, not what its header promises."""

_MP3 = ("MP3", "MPEG_LAYER_III")
"""What libsndfile calls the format and the coding of an MP3 file."""

_RIFF_SLACK = 8
"""Bytes that a whole RIFF file may lack: some writers count the header too, or leave out the padding."""


def read_audio(source: str | PathLike[str] | bytes, *, name: str | None = None) -> Waveform:
    """Return the sound in a file as mono samples at 16 kHz, shape `(N,)`.

    WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF and whatever else libsndfile knows, at any rate; the content
    tells the format, not the file's name. Channels are averaged. Samples of a floating-point file, and those
    between the samples of the original rate, can pass full scale and are left as they are
    (see `emtta_core.audio.level.scale_back`).

    Args:
        source: a path, or the file's bytes.
        name: how a message calls the source; by default its path.

    Raises:
        AudioError: when the file cannot be read, is not audio, is empty, or holds NaN or infinity, or when a
            WAV, FLAC or MP3 is cut off (other formats do not tell, and give what is there; nor does an MP3 that
            does not say how long it is, when it is cut between two frames).
    """
    name = name or ("the audio bytes" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else _read_bytes(Path(source), name)
    if not data:
        raise AudioError(f"{name}: the file is empty (0 bytes)")
    pointer = pointer_in(data, None if isinstance(source, bytes) else str(source))
    if pointer is not None:
        raise AudioError(f"{name}: {pointer}")
    _refuse_cut_riff(data, name)
    frames, rate = _decode(data, name)
    samples = checked(frames.mean(axis=1, dtype=np.float64), name)
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, rate, SAMPLE_RATE)
        if samples.size == 0:
            raise AudioError(f"{name}: its {len(frames)} samples at {rate} Hz are less than one at {SAMPLE_RATE} Hz")
    return samples.astype(np.float32)


def length_in_seconds(source: str | PathLike[str] | bytes) -> float | None:
    """Return how long the sound in a file is, as its header tells it; None where it is no audio that can be read.

    Args:
        source: a path, or the file's bytes.
    """
    try:
        with _opened(source if isinstance(source, bytes) else Path(source), "the file") as file:
            frames, rate = int(file.frames), int(file.samplerate)
    except (AudioError, soundfile.SoundFileError, OSError, ValueError):
        return None
    return None if frames in (0, _UNKNOWN) else frames / rate


def encode_flac(waveform: ArrayLike) -> bytes:
    """Return `waveform`, shape `(N,)`, as a FLAC file of 16 bits at 16 kHz.

    A sample is rounded to the nearest multiple of 1/32768, which `read_audio` gives back exactly; 1.0 itself
    becomes 32767/32768, the largest that there is.

    Raises:
        AudioError: when it is no waveform, or is empty, or holds NaN or infinity, or passes full scale.
    """
    samples = checked(waveform, "the waveform")
    peak = float(np.abs(samples).max())
    if peak > 1:
        raise AudioError(
            f"the waveform has a peak of {peak:.6g}, above full scale (1.0), which 16-bit FLAC cannot hold; "
            "scale it back first"
        )
    integers = np.minimum(np.rint(samples * 32768), 32767).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, integers, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _read_bytes(path: Path, name: str) -> bytes:
    """Return the content of the file at `path`."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise AudioError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _decode(data: bytes, name: str) -> tuple[NDArray[np.float32], int]:
    """Return the frames of an audio file, shape `(N, channels)`, N > 0, and its rate in Hz."""
    promised = 0
    try:
        with _opened(data, name) as file:
            promised, rate = int(file.frames), int(file.samplerate)
            if promised == _UNKNOWN:
                raise AudioError(f"{name}: its header does not say how long it is; write the file anew")
            blocks: list[NDArray[np.float32]] = []
            while not blocks or len(blocks[-1]) == _BLOCK:
                blocks.append(file.read(_BLOCK, dtype="float32", always_2d=True))
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")
        what = "is cut off or damaged" if promised else "is not audio that can be read"
        raise AudioError(f"{name}: {what} ({len(data)} bytes): {reason}") from error
    frames = np.concatenate(blocks)
    if len(frames) < promised:
        raise AudioError(
            f"{name}: is cut off: {len(frames)} of the {promised} samples promised by its header can be read"
        )
    if len(frames) == 0:
        raise AudioError(f"{name}: holds no sound (0 samples)")
    return frames, rate


@contextmanager
def _opened(source: Path | bytes, name: str) -> Iterator[soundfile.SoundFile]:
    """Open an audio file with libsndfile; an MP3 file that does not say how long it is has its frames counted first."""
    with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as file:
        if (file.format, file.subtype) != _MP3:
            yield file
            return
    data = source if isinstance(source, bytes) else source.read_bytes()
    with soundfile.SoundFile(io.BytesIO(counted(data, name))) as file:
        yield file


def _refuse_cut_riff(data: bytes, name: str) -> None:
    """Refuse a WAV file that is shorter than its header says, of which libsndfile gives the beginning."""
    if data[:4] != b"RIFF" or len(data) < 8:
        return
    promised = int.from_bytes(data[4:8], "little")
    if promised < _STREAMED and promised + 8 - len(data) > _RIFF_SLACK:
        raise AudioError(
            f"{name}: is cut off: {len(data)} of the {promised + 8} bytes that its header promises are there"
        )
