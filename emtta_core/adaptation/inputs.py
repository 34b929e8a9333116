"""What an `Adapter` takes as speech: arrays, tensors and lists of samples, and audio files, made into mono float32."""

import hashlib
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from emtta_core.errors import AudioError, UsageError
from emtta_core.model.speech_model import Model

Recording = ArrayLike | torch.Tensor | str | PathLike[str]
"""One utterance: its samples at the model's rate, or the path of an audio file of any rate.

Samples are floating point of full scale 1.0, or integers of 8, 16 or 32 bits, which are scaled by their range. Of
several channels, `(N, C)` or `(C, N)`, the mean is taken.
"""

SILENCE = 1.0e-5
"""A waveform whose peak is below this, full scale being 1, is refused as silent."""

LOUDEST = 100.0
"""A waveform whose peak is above this is not of full scale 1."""

MOST_CHANNELS = 32
"""The longer axis of an array is its time, and must be longer than this; the shorter one, its channels, no longer."""

WANTED = "an array or a list of samples, or the path of an audio file"


def recordings_of(recordings: Iterable[Recording]) -> list[Recording]:
    """List the utterances that a caller has given.

    Raises:
        TypeError: it is one utterance, or no collection of them.
    """
    if isinstance(recordings, str | PathLike):
        raise TypeError(f"a list of utterances is wanted, not the path {str(recordings)!r}; give [{str(recordings)!r}]")
    if isinstance(recordings, bytes | bytearray | memoryview | dict | set | frozenset) or not isinstance(
        recordings, Iterable
    ):
        raise TypeError(f"a list of utterances is wanted, each {WANTED}, not {_kind(recordings)}")
    if hasattr(recordings, "ndim") and hasattr(recordings, "shape"):
        raise TypeError(
            f"a list of utterances is wanted, not one array of shape {tuple(recordings.shape)}; give [array] if it is "
            "one utterance, or list(array) if each row is one"
        )
    found = list(recordings)
    if found and isinstance(found[0], int | float | np.number):
        raise TypeError(f"a list of utterances is wanted, not the {len(found)} samples of one; give [samples]")
    return found


def one_each(what: str, given: Sequence[str], count: int) -> list[str]:
    """Check that there is a text for each of `count` utterances, and list them.

    Raises:
        TypeError: it is no list of texts.
        UsageError: it is of another length.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{what} is {given!r}; give a list with one for each utterance")
    found = list(given)
    for one in found:
        if not isinstance(one, str):
            raise TypeError(f"{what} has {one!r}, {_kind(one)}; each must be a text")
    if len(found) != count:
        raise UsageError(f"{what} has {len(found)} entries for {count} waveforms; give one for each")
    return found


def read_recording(recording: Recording, name: str, model: Model) -> NDArray[np.float32]:
    """Read an utterance's mono samples, `(N,)`, of full scale 1.0.

    Args:
        recording: what the caller gave.
        name: how a message calls it, as `waveforms[3]`.
        model: whose sample rate is wanted.

    Raises:
        TypeError: it is nothing that can be a waveform.
        AudioError: it is a file that cannot be read, or an array that is empty or not of one axis of time.
    """
    if isinstance(recording, str | PathLike):
        return _read_file(recording, model)
    return _mono(_full_scale(_array(recording, name), name)).astype(np.float32, copy=False)


def check_waveform(waveform: NDArray[np.floating[Any]], model: Model) -> NDArray[np.float32]:
    """Check a waveform, and take it as float32 samples `(N,)`.

    Raises:
        AudioError: if it is not 1-D floating point, is empty, has NaN or infinity, is silent, is not of full scale 1,
            or is longer than the model's window.
    """
    signal = np.asarray(waveform)
    if signal.ndim != 1:
        raise AudioError(f"the waveform has the shape {signal.shape}; give mono samples, of shape (N,)")
    if signal.size == 0:
        raise AudioError("the waveform is empty; it must have at least one sample")
    if not np.issubdtype(signal.dtype, np.floating):
        raise AudioError(f"the waveform's samples are {signal.dtype}; give floating point, full scale 1.0")
    bad = int(signal.size - np.isfinite(signal).sum())
    if bad:
        raise AudioError(
            f"the waveform has {bad} samples of {signal.size} that are NaN or infinite; all must be finite"
        )
    peak = float(np.abs(signal).max())
    if peak < SILENCE:
        raise AudioError(f"the waveform is silent: its peak is {peak:.3g}; it must be at least {SILENCE:g}")
    if peak > LOUDEST:
        raise AudioError(
            f"the waveform has a peak of {peak:.6g}, and full scale is 1.0; divide what was 16-bit integers by 32768"
        )
    if signal.size < model.front_end.shortest:
        raise AudioError(
            f"the waveform has {signal.size} samples; {model.name!r} needs at least {model.front_end.shortest}"
        )
    if signal.size > model.front_end.longest:
        raise AudioError(
            f"the waveform is {signal.size / model.sample_rate:.2f} s long; {model.name!r} takes at most "
            f"{model.max_seconds:g} s: cut it"
        )
    return signal.astype(np.float32, copy=False)


def content_id(waveform: NDArray[np.floating[Any]]) -> str:
    """An id that is the same wherever the same waveform is."""
    return hashlib.sha256(np.ascontiguousarray(waveform).tobytes()).hexdigest()[:16]


def _read_file(path: str | PathLike[str], model: Model) -> NDArray[np.float32]:
    try:
        from emtta_core.audio.files import read_audio
        from emtta_core.audio.waveform import SAMPLE_RATE
    except ImportError as error:
        raise UsageError(
            f"reading {str(path)!r} needs the packages soundfile and soxr ({error}): pip install soundfile soxr; or "
            "give the samples"
        ) from error
    if model.sample_rate != SAMPLE_RATE:
        raise UsageError(
            f"audio files are read at {SAMPLE_RATE} Hz, and {model.name!r} takes {model.sample_rate} Hz; give samples"
        )
    return read_audio(Path(path))


def _array(recording: ArrayLike | torch.Tensor, name: str) -> NDArray[Any]:
    if isinstance(recording, torch.Tensor):
        recording = recording.detach().cpu()
        recording = (recording.float() if recording.dtype == torch.bfloat16 else recording).numpy()
    if isinstance(recording, bytes | bytearray | dict | set | frozenset) or recording is None:
        raise TypeError(f"{name} is {_kind(recording)}; give {WANTED}")
    try:
        array = np.asarray(recording)
    except (ValueError, TypeError) as error:  # rows of unequal length
        raise TypeError(f"{name} is {_kind(recording)} that is no array ({error}); give {WANTED}") from error
    if array.size == 0 and not hasattr(recording, "dtype"):
        array = array.astype(np.float32)  # of an empty list
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} is {_kind(recording)} of type {array.dtype}; give {WANTED}")
    if array.ndim == 0:
        raise TypeError(f"{name} is the single number {recording!r}; give {WANTED}")
    return array


def _full_scale(array: NDArray[Any], name: str) -> NDArray[np.floating[Any]]:
    # Scale integers by the range of their type; unsigned ones have their zero in the middle, as in 8-bit WAV.
    if array.dtype.kind == "f":
        return array
    if array.dtype.itemsize > 4 or array.dtype == np.uint32:
        raise TypeError(
            f"{name} has integers of type {array.dtype}, which tells no full scale; give int16 or int32, or divide by "
            "full scale: 32768 where they were read from 16-bit audio"
        )
    half = 2.0 ** (8 * array.dtype.itemsize - 1)
    scaled: NDArray[np.floating[Any]] = (array - half if array.dtype.kind == "u" else array) / half
    return scaled


def _mono(array: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    if array.ndim == 1:
        return array
    if array.ndim > 2 or (array.size and not min(array.shape) <= MOST_CHANNELS < max(array.shape)):
        raise AudioError(
            f"the waveform has the shape {array.shape}; give mono samples, of shape (N,), or at most {MOST_CHANNELS} "
            "channels of the same length, (N, C) or (C, N)"
        )
    if array.size == 0:
        return np.zeros(0, np.float32)
    mean: NDArray[np.floating[Any]] = array.mean(axis=int(np.argmin(array.shape)), dtype=np.float64)
    return mean


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
