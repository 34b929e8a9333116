"""The speech input of an `Adapter`: arrays, tensors and lists of samples, and audio files, made mono float32."""

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
"""One utterance: its samples at the model's sample rate, or the path of an audio file of any rate.

Samples are floating point with full scale 1.0, or integers of 8, 16 or 32 bits, which are scaled by their range.
Several channels, `(N, C)` or `(C, N)`, are averaged.
"""

SILENCE = 1.0e-5
"""A waveform whose peak is below this, at full scale 1, is refused as silent."""

LOUDEST = 100.0
"""A waveform whose peak is above this cannot have full scale 1."""

MAX_CHANNELS = 32
"""The longer axis of an array is time and must exceed this; the shorter one is the channels and must not."""

EXPECTED = "an array or a list of samples, or the path of an audio file"


def recordings_of(recordings: Iterable[Recording]) -> list[Recording]:
    """List the utterances that a caller passed.

    Raises:
        TypeError: it is one utterance, or not a collection of them.
    """
    if isinstance(recordings, str | PathLike):
        raise TypeError(f"expected a list of utterances, not the path {str(recordings)!r}; pass [{str(recordings)!r}]")
    if isinstance(recordings, bytes | bytearray | memoryview | dict | set | frozenset) or not isinstance(
        recordings, Iterable
    ):
        raise TypeError(f"expected a list of utterances, each {EXPECTED}, not {_kind(recordings)}")
    if hasattr(recordings, "ndim") and hasattr(recordings, "shape"):
        raise TypeError(
            f"expected a list of utterances, not one array of shape {tuple(recordings.shape)}; pass [array] if it is "
            "one utterance, or list(array) if each row is one"
        )
    utterances = list(recordings)
    if utterances and isinstance(utterances[0], int | float | np.number):
        raise TypeError(f"expected a list of utterances, not the {len(utterances)} samples of one; pass [samples]")
    return utterances


def one_per_utterance(what: str, given: Sequence[str], count: int) -> list[str]:
    """Check that there is a string for each of `count` utterances, and list them.

    Raises:
        TypeError: it is not a list of strings.
        UsageError: its length is not `count`.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{what} is {given!r}; pass a list with one for each utterance")
    found = list(given)
    for one in found:
        if not isinstance(one, str):
            raise TypeError(f"{what} has {one!r}, {_kind(one)}; each must be a string")
    if len(found) != count:
        raise UsageError(f"{what} has {len(found)} entries for {count} waveforms; pass one for each")
    return found


def read_recording(recording: Recording, name: str, model: Model) -> NDArray[np.float32]:
    """Read an utterance's mono samples, `(N,)`, with full scale 1.0.

    Args:
        recording: what the caller passed.
        name: its name in messages, such as `waveforms[3]`.
        model: its sample rate is used.

    Raises:
        TypeError: it cannot be a waveform.
        AudioError: it is a file that cannot be read, or an array without a single time axis.
    """
    if isinstance(recording, str | PathLike):
        return _read_file(recording, model)
    return _mono(_full_scale(_array(recording, name), name)).astype(np.float32, copy=False)


def check_waveform(waveform: NDArray[np.floating[Any]], model: Model) -> NDArray[np.float32]:
    """Check a waveform, and return it as float32 samples `(N,)`.

    Raises:
        AudioError: if it is not 1-D floating point, is empty, has NaN or infinity, is silent, does not have full scale
            1, or is shorter or longer than the model accepts.
    """
    signal = np.asarray(waveform)
    if signal.ndim != 1:
        raise AudioError(f"the waveform has shape {signal.shape}; pass mono samples of shape (N,)")
    if signal.size == 0:
        raise AudioError("the waveform is empty; it must have at least one sample")
    if not np.issubdtype(signal.dtype, np.floating):
        raise AudioError(f"the waveform's samples are {signal.dtype}; pass floating point with full scale 1.0")
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
            f"the waveform has a peak of {peak:.6g}, and full scale is 1.0; divide former 16-bit integers by 32768"
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
    """An id derived from a waveform's samples alone."""
    return hashlib.sha256(np.ascontiguousarray(waveform).tobytes()).hexdigest()[:16]


def _read_file(path: str | PathLike[str], model: Model) -> NDArray[np.float32]:
    try:
        from emtta_core.audio.files import read_audio
        from emtta_core.audio.waveform import SAMPLE_RATE
    except ImportError as error:
        raise UsageError(
            f"reading {str(path)!r} needs the packages soundfile and soxr ({error}): pip install soundfile soxr; or "
            "pass the samples"
        ) from error
    if model.sample_rate != SAMPLE_RATE:
        raise UsageError(
            f"audio files are read at {SAMPLE_RATE} Hz, and {model.name!r} takes {model.sample_rate} Hz; pass samples"
        )
    return read_audio(Path(path))


def _array(recording: ArrayLike | torch.Tensor, name: str) -> NDArray[Any]:
    if isinstance(recording, torch.Tensor):
        recording = recording.detach().cpu()
        recording = (recording.float() if recording.dtype == torch.bfloat16 else recording).numpy()
    if isinstance(recording, bytes | bytearray | dict | set | frozenset) or recording is None:
        raise TypeError(f"{name} is {_kind(recording)}; pass {EXPECTED}")
    try:
        array = np.asarray(recording)
    except (ValueError, TypeError) as error:  # rows of unequal length
        raise TypeError(f"{name} is {_kind(recording)} that is not an array ({error}); pass {EXPECTED}") from error
    if array.size == 0 and not hasattr(recording, "dtype"):
        array = array.astype(np.float32)  # of an empty list
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} is {_kind(recording)} of type {array.dtype}; pass {EXPECTED}")
    if array.ndim == 0:
        raise TypeError(f"{name} is the single number {recording!r}; pass {EXPECTED}")
    return array


def _full_scale(array: NDArray[Any], name: str) -> NDArray[np.floating[Any]]:
    # Scale integers by the range of their type; unsigned ones have zero in the middle, as in 8-bit WAV.
    if array.dtype.kind == "f":
        return array
    if array.dtype.itemsize > 4 or array.dtype == np.uint32:
        raise TypeError(
            f"{name} has integers of type {array.dtype}, whose full scale is unknown; pass int16 or int32, or divide "
            "by full scale: 32768 if they were read from 16-bit audio"
        )
    half = 2.0 ** (8 * array.dtype.itemsize - 1)
    scaled: NDArray[np.floating[Any]] = (array - half if array.dtype.kind == "u" else array) / half
    return scaled


def _mono(array: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    if array.ndim == 1:
        return array
    if array.ndim > 2 or (array.size and not min(array.shape) <= MAX_CHANNELS < max(array.shape)):
        raise AudioError(
            f"the waveform has shape {array.shape}; pass mono samples of shape (N,), or at most {MAX_CHANNELS} "
            "channels of the same length, (N, C) or (C, N)"
        )
    if array.size == 0:
        return np.zeros(0, np.float32)
    mean: NDArray[np.floating[Any]] = array.mean(axis=int(np.argmin(array.shape)), dtype=np.float64)
    return mean


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
