"""Audio files: reading any format that libsndfile reads, and writing 16-bit FLAC."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from os import PathLike
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike, NDArray

from emtta_core.audio.containers import refuse_partial
from emtta_core.audio.mp3 import counted
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform, checked
from emtta_core.errors import AudioError
from emtta_core.input_files import MAX_AUDIO_HOURS, check_plain, limit, pointer_at, pointer_in, read_plain

_UNKNOWN = 2**63 - 1
"""The length that libsndfile reports if a FLAC header does not state one; it cannot read such a file."""

_BLOCK = 1 << 20
"""Frames read at a time, so that memory depends on the content of a file, not on what its header states."""

_MP3 = ("MP3", "MPEG_LAYER_III")
"""libsndfile's names for the format and subtype of an MP3 file."""

_ROUNDING = 0.02
"""Seconds by which a segment may end after its file, due to rounding."""

_RATES = range(1_000, 768_001)
"""Accepted sample rates in Hz: lower ones hold no speech, and a wrong number would turn a second into hours."""

_BYTES_PER_SECOND = 48_000 * 2 * 4
"""For the largest files in use: 48 kHz, two channels, 32 bits."""


def read_audio(source: str | PathLike[str] | bytes, *, name: str | None = None) -> Waveform:
    """Read an audio file as mono samples at 16 kHz, shape `(N,)`.

    Supports WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF and every other format of libsndfile, at any sample rate; the
    format is detected from the content, not the file name. Channels are averaged. Samples of floating-point files, and
    resampled ones, can exceed full scale and are not changed (see `emtta_core.audio.mix.scale_back`).

    Args:
        source: a path, or the file's bytes.
        name: the name of the source in messages; by default its path.

    Raises:
        AudioError: when the file cannot be read, is not a regular file, is not audio, is empty, or contains NaN or
            infinity; when it is cut off, or continues after the end stated in its headers (not detected for some
            formats, nor for an MP3 without a frame count that is cut between two frames); or when its length exceeds
            `EMTTA_MAX_AUDIO_HOURS`, or its sample rate is out of range.
    """
    name = name or ("the audio bytes" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else _read_bytes(Path(source), name)
    if not data:
        raise AudioError(f"{name}: the file is empty (0 bytes)")
    pointer = pointer_in(data, None if isinstance(source, bytes) else str(source))
    if pointer is not None:
        raise AudioError(f"{name}: {pointer}")
    refuse_partial(data, name)
    return _resampled(*_decode(data, name), name)


def _resampled(mono: NDArray[np.float64], rate: int, name: str) -> Waveform:
    # Samples at 16 kHz; AudioError if there are none, or one is not finite.
    samples = checked(mono, name)
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, rate, SAMPLE_RATE)
        if samples.size == 0:
            raise AudioError(f"{name}: its {len(mono)} samples at {rate} Hz are less than one at {SAMPLE_RATE} Hz")
    return samples.astype(np.float32)


def read_segment(path: Path, begin: float, seconds: float | None, *, name: str) -> Waveform:
    """Read a segment of an audio file as mono samples at 16 kHz, shape `(N,)`, without decoding the rest.

    An MP3 is decoded as a whole and cached, since libsndfile cannot seek in it exactly.

    Args:
        path: the file.
        begin: the start of the segment, in seconds.
        seconds: its length; None: to the end of the file.
        name: its name in messages.

    Raises:
        AudioError: when the file cannot be read or is not audio, as in `read_audio`, or ends before the segment does;
            or when the segment contains NaN or infinity, or exceeds `EMTTA_MAX_AUDIO_HOURS`.
    """
    try:
        check_plain(path)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise AudioError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    pointer = pointer_at(path)
    if pointer is not None:
        raise AudioError(f"{name}: {pointer}")
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = int(file.samplerate)
            if file.subtype not in _MP3:
                first, last = _bounds(begin, seconds, int(file.frames), rate, name)
                file.seek(first)
                frames = file.read(last - first, dtype="float32", always_2d=True)
                if len(frames) < last - first:
                    raise AudioError(
                        f"{name}: is cut off: {len(frames)} of the segment's {last - first} samples can be read"
                    )
                return _resampled(frames.mean(axis=1, dtype=np.float64), rate, name)
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")
        raise AudioError(f"{name}: is not audio that can be read, or is damaged: {reason}") from error
    recording = _last_file(path)
    first, last = _bounds(begin, seconds, len(recording), SAMPLE_RATE, name)
    return recording[first:last].copy()


def _bounds(begin: float, seconds: float | None, frames: int, rate: int, name: str) -> tuple[int, int]:
    # The first frame of a segment, and the one after its last; AudioError if they are not in the file.
    first = round(begin * rate)
    last = frames if seconds is None else round((begin + seconds) * rate)
    if last > frames + _ROUNDING * rate or first >= min(last, frames):
        end = "the end" if seconds is None else f"{last / rate:g} s"
        raise AudioError(
            f"{name}: the segment from {begin:g} s to {end} is not in the file, which is {frames / rate:.2f} s long; "
            "correct it, or get the file again"
        )
    _check_length(min(last, frames) - first, rate, name)
    return first, min(last, frames)


def max_file_bytes() -> float:
    """The size limit of audio files in bytes: that of the longest recording allowed, at 48 kHz, stereo, 32 bits."""
    return limit(MAX_AUDIO_HOURS) * 3600 * _BYTES_PER_SECOND


def length_in_seconds(source: str | PathLike[str] | bytes) -> float | None:
    """The length in seconds stated in the header of an audio file or its bytes; None if it cannot be read as audio."""
    try:
        if not isinstance(source, bytes):
            check_plain(source, max_bytes=max_file_bytes())
        with _opened(source if isinstance(source, bytes) else Path(source), "the file") as file:
            frames, rate = int(file.frames), int(file.samplerate)
    except Exception:  # reading it will report why
        return None
    return None if frames in (0, _UNKNOWN) else frames / rate


def encode_flac(waveform: ArrayLike) -> bytes:
    """Encode `waveform`, shape `(N,)`, as a 16-bit FLAC file at 16 kHz.

    Samples are rounded to the nearest multiple of 1/32768, which `read_audio` restores exactly; 1.0 itself becomes
    32767/32768, the largest value.

    Raises:
        AudioError: when it is not a waveform, is empty, contains NaN or infinity, or exceeds full scale.
    """
    samples = checked(waveform, "the waveform")
    peak = float(np.abs(samples).max())
    if peak > 1:
        raise AudioError(
            f"the waveform has a peak of {peak:.6g}, above full scale (1.0), which 16-bit FLAC cannot hold; "
            "scale it back first"
        )
    # 16 bits range from -32768 to 32767: the lower end is full scale, the upper one step less.
    integers = np.minimum(np.rint(samples * 32768), 32767).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, integers, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        check_plain(path)
        _refuse_long(path, name)
        return read_plain(path, max_bytes=max_file_bytes())
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise AudioError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _refuse_long(path: Path, name: str) -> None:
    # Checks the header, so that the rest of a file that is too long is not read.
    with suppress(soundfile.SoundFileError), soundfile.SoundFile(str(path)) as file:
        _check_length(int(file.frames), int(file.samplerate), name)


def _check_length(frames: int, rate: int, name: str) -> None:
    if rate not in _RATES:
        raise AudioError(
            f"{name}: its sample rate is {rate} Hz; it must be {_RATES.start:,} to {_RATES.stop - 1:,}: correct the "
            "header, or record it again"
        )
    hours, maximum = frames / rate / 3600, limit(MAX_AUDIO_HOURS)
    if frames != _UNKNOWN and hours > maximum:
        raise AudioError(
            f"{name}: its header states {hours:,.1f} hours, and the limit is {maximum:g}; cut it into utterances, "
            f"or set {MAX_AUDIO_HOURS} to more"
        )


def _decode(data: bytes, name: str) -> tuple[NDArray[np.float64], int]:
    # The samples of an audio file, averaged over its channels, `(N,)`, N > 0, and its sample rate in Hz.
    declared = 0
    try:
        with _opened(data, name) as file:
            declared, rate = int(file.frames), int(file.samplerate)
            if declared == _UNKNOWN:
                raise AudioError(f"{name}: its header does not state its length; write the file again")
            _check_length(declared, rate, name)
            blocks: list[NDArray[np.float64]] = []
            while not blocks or len(blocks[-1]) == _BLOCK:
                frames = file.read(_BLOCK, dtype="float32", always_2d=True)
                blocks.append(frames.mean(axis=1, dtype=np.float64))
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")
        if declared:
            raise AudioError(f"{name}: is cut off or damaged ({len(data)} bytes): {reason}") from error
        raise AudioError(
            f"{name}: is not audio that can be read ({len(data)} bytes): {reason}; if it is audio all the same, "
            "convert it to FLAC or WAV, for example with `ffmpeg -i OLD NEW.flac`"
        ) from error
    samples = np.concatenate(blocks)
    if len(samples) < declared:
        raise AudioError(
            f"{name}: is cut off: {len(samples)} of the {declared} samples stated in its header can be read"
        )
    if len(samples) == 0:
        raise AudioError(f"{name}: contains no audio (0 samples)")
    return samples, rate


@contextmanager
def _opened(source: Path | bytes, name: str) -> Iterator[soundfile.SoundFile]:
    # Open an audio file with libsndfile; an MP3 file without a frame count has its frames counted first.
    with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as file:
        if (file.format, file.subtype) != _MP3:
            yield file
            return
    data = source if isinstance(source, bytes) else source.read_bytes()
    with soundfile.SoundFile(io.BytesIO(counted(data, name))) as file:
        yield file


def caching(files: int) -> Callable[[Path], Waveform]:
    """Make a `read_audio` that caches the last `files` files in memory, each until it changes.

    The returned arrays are shared and must not be modified.
    """

    @lru_cache(maxsize=files)
    def read(path: Path, _stamp: tuple[int, int] | None) -> Waveform:
        return read_audio(path)

    return lambda path: read(path, _stamp(path))


def _stamp(path: Path) -> tuple[int, int] | None:
    # (mtime_ns, size); None if there is no such file, which reading it will report.
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


_last_file = caching(files=1)
"""Reads a whole file; its segments are usually read in succession."""
