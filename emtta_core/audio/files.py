"""Audio files: any that libsndfile reads, in; 16-bit FLAC, out."""

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
"""The length that libsndfile reports where a FLAC header does not say; it cannot read such a file."""

_BLOCK = 1 << 20
"""Frames read at a time, so that memory follows what is in a file, not what its header promises."""

_MP3 = ("MP3", "MPEG_LAYER_III")
"""What libsndfile calls the format and the coding of an MP3 file."""

_ROUNDING = 0.02
"""Seconds by which the end of a segment may lie beyond that of its file, as where it was rounded."""

_RATES = range(1_000, 768_001)
"""Hz, of files that are read: at less there is no speech, and a number that is no rate makes hours of a second."""

_BYTES_PER_SECOND = 48_000 * 2 * 4
"""Of the largest files in use: 48 kHz, two channels, 32 bits."""


def read_audio(source: str | PathLike[str] | bytes, *, name: str | None = None) -> Waveform:
    """Read the sound in a file as mono samples at 16 kHz, shape `(N,)`.

    WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF and whatever else libsndfile knows, at any rate; the content
    tells the format, not the file's name. Channels are averaged. Samples of a floating-point file, and those
    between the samples of the original rate, can pass full scale and are left as they are
    (see `emtta_core.audio.mix.scale_back`).

    Args:
        source: a path, or the file's bytes.
        name: how a message calls the source; by default its path.

    Raises:
        AudioError: when the file cannot be read, is no plain file, is not audio, is empty, or holds NaN or infinity;
            when it is cut off, or goes on where its headers end the sound (some formats do not tell, and give what is
            there; nor does an MP3 that does not say how long it is, when it is cut between two frames); or when it is
            longer than `EMTTA_MAX_AUDIO_HOURS` allows, or no sample rate is.
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
    # Samples at 16 kHz; AudioError where there are none, or one is no number.
    samples = checked(mono, name)
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, rate, SAMPLE_RATE)
        if samples.size == 0:
            raise AudioError(f"{name}: its {len(mono)} samples at {rate} Hz are less than one at {SAMPLE_RATE} Hz")
    return samples.astype(np.float32)


def read_segment(path: Path, begin: float, seconds: float | None, *, name: str) -> Waveform:
    """Read a segment of the sound in a file as mono samples at 16 kHz, shape `(N,)`; the rest is not decoded.

    An MP3 is decoded whole, and cached, for libsndfile does not find a place in it exactly.

    Args:
        path: the file.
        begin: where the segment begins, in seconds.
        seconds: how long it is; None: to the end of the file.
        name: how a message calls it.

    Raises:
        AudioError: when the file cannot be read or is not audio, as of `read_audio`, or ends before the segment does;
            or when the segment holds NaN or infinity, or is longer than `EMTTA_MAX_AUDIO_HOURS` allows.
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
    whole = _last_file(path)
    first, last = _bounds(begin, seconds, len(whole), SAMPLE_RATE, name)
    return whole[first:last].copy()


def _bounds(begin: float, seconds: float | None, frames: int, rate: int, name: str) -> tuple[int, int]:
    # The first frame of a segment, and the one behind its last; AudioError where they are not in the file.
    first = round(begin * rate)
    last = frames if seconds is None else round((begin + seconds) * rate)
    if last > frames + _ROUNDING * rate or first >= min(last, frames):
        end = "the end" if seconds is None else f"{last / rate:g} s"
        raise AudioError(
            f"{name}: the segment from {begin:g} s to {end} is not in the file, which is {frames / rate:.2f} s long; "
            "correct it, or get the file anew"
        )
    _check_length(min(last, frames) - first, rate, name)
    return first, min(last, frames)


def most_bytes() -> float:
    """Bytes of the largest file that is opened: that of the longest recording allowed, at 48 kHz, stereo, 32 bits."""
    return limit(MAX_AUDIO_HOURS) * 3600 * _BYTES_PER_SECOND


def length_in_seconds(source: str | PathLike[str] | bytes) -> float | None:
    """The length in seconds by the header of an audio file, or of its bytes; None where it cannot be read as audio."""
    try:
        if not isinstance(source, bytes):
            check_plain(source, most=most_bytes())
        with _opened(source if isinstance(source, bytes) else Path(source), "the file") as file:
            frames, rate = int(file.frames), int(file.samplerate)
    except Exception:  # whoever reads it will say why
        return None
    return None if frames in (0, _UNKNOWN) else frames / rate


def encode_flac(waveform: ArrayLike) -> bytes:
    """Encode `waveform`, shape `(N,)`, as a FLAC file of 16 bits at 16 kHz.

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
    # 16 bits reach from -32768 to 32767, so that the lower end has full scale and the upper one step less.
    integers = np.minimum(np.rint(samples * 32768), 32767).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, integers, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        check_plain(path)
        _refuse_long(path, name)
        return read_plain(path, most=most_bytes())
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise AudioError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _refuse_long(path: Path, name: str) -> None:
    # By its header, so that nothing else of a file that is too long is read.
    with suppress(soundfile.SoundFileError), soundfile.SoundFile(str(path)) as file:
        _check_length(int(file.frames), int(file.samplerate), name)


def _check_length(frames: int, rate: int, name: str) -> None:
    if rate not in _RATES:
        raise AudioError(
            f"{name}: its sample rate is {rate} Hz; it must be {_RATES.start:,} to {_RATES.stop - 1:,}: correct the "
            "header, or record anew"
        )
    hours, most = frames / rate / 3600, limit(MAX_AUDIO_HOURS)
    if frames != _UNKNOWN and hours > most:
        raise AudioError(
            f"{name}: its header says {hours:,.1f} hours, and a recording may have {most:g}; cut it into utterances, "
            f"or set {MAX_AUDIO_HOURS} to more"
        )


def _decode(data: bytes, name: str) -> tuple[NDArray[np.float64], int]:
    # The samples of an audio file, averaged over its channels, `(N,)`, N > 0, and its rate in Hz.
    promised = 0
    try:
        with _opened(data, name) as file:
            promised, rate = int(file.frames), int(file.samplerate)
            if promised == _UNKNOWN:
                raise AudioError(f"{name}: its header does not say how long it is; write the file anew")
            _check_length(promised, rate, name)
            blocks: list[NDArray[np.float64]] = []
            while not blocks or len(blocks[-1]) == _BLOCK:
                frames = file.read(_BLOCK, dtype="float32", always_2d=True)
                blocks.append(frames.mean(axis=1, dtype=np.float64))
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")
        if promised:
            raise AudioError(f"{name}: is cut off or damaged ({len(data)} bytes): {reason}") from error
        raise AudioError(
            f"{name}: is not audio that can be read ({len(data)} bytes): {reason}; where it is sound all the same, "
            "convert it to FLAC or WAV, as by `ffmpeg -i OLD NEW.flac`"
        ) from error
    samples = np.concatenate(blocks)
    if len(samples) < promised:
        raise AudioError(
            f"{name}: is cut off: {len(samples)} of the {promised} samples promised by its header can be read"
        )
    if len(samples) == 0:
        raise AudioError(f"{name}: holds no sound (0 samples)")
    return samples, rate


@contextmanager
def _opened(source: Path | bytes, name: str) -> Iterator[soundfile.SoundFile]:
    # Open an audio file with libsndfile; an MP3 file that does not say how long it is has its frames counted first.
    with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as file:
        if (file.format, file.subtype) != _MP3:
            yield file
            return
    data = source if isinstance(source, bytes) else source.read_bytes()
    with soundfile.SoundFile(io.BytesIO(counted(data, name))) as file:
        yield file


def caching(files: int) -> Callable[[Path], Waveform]:
    """Make a `read_audio` that caches the last `files` files in memory, each until it changes.

    What it returns is shared: nobody may write into it.
    """

    @lru_cache(maxsize=files)
    def read(path: Path, _stamp: tuple[int, int] | None) -> Waveform:
        return read_audio(path)

    return lambda path: read(path, _stamp(path))


def _stamp(path: Path) -> tuple[int, int] | None:
    # (mtime_ns, size); None where there is no such file, which reading it will say.
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


_last_file = caching(files=1)
"""Reads a whole file; the segments of one come one after another."""
