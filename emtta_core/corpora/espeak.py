"""Speech from espeak-ng, through the library and the voices in the package `espeakng-loader`.

espeak-ng is licensed under the GPL, version 3, so the package is an extra (see NOTICE). The speech of the suites that
come with emtta is prerecorded in `spoken.npz`, in case it is not installed.
The C interface is that of espeak-ng's `speak_lib.h` (https://github.com/espeak-ng/espeak-ng).
"""

import ctypes
import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from emtta_core.audio.waveform import SAMPLE_RATE, Waveform
from emtta_core.errors import AudioError, UsageError
from emtta_core.identity import digest

try:
    import espeakng_loader
except ImportError:
    espeakng_loader = None

INSTALL = "pip install 'emtta[synthetic]'"
SPOKEN = Path(__file__).with_name("spoken.npz")
"""The speech that comes with emtta, made by `docs/tools/spoken_speech.py`."""

_RETRIEVAL = 1
_PHONEME_EVENTS = 0x0001
_DONT_EXIT = 0x8000
_UTF8 = 1
_EVENT_END, _EVENT_PHONEME = 0, 7
_RATE, _PITCH, _RANGE = 1, 3, 4
_SEED = 1


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True, slots=True)
class Phoneme:
    """One phoneme of a spoken sentence: its label in espeak-ng's alphabet and where it starts, in seconds."""

    label: str
    start: float


@dataclass(frozen=True, slots=True)
class Speech:
    """A spoken sentence: samples `(M,)` at the voice's own rate in Hz, and its phonemes in order."""

    samples: NDArray[np.int16]
    rate: int
    phonemes: tuple[Phoneme, ...] = ()

    @property
    def waveform(self) -> Waveform:
        """The waveform `(N,)` at 16 kHz."""
        native = self.samples.astype(np.float32) / 32768
        waveform: Waveform = soxr.resample(native, self.rate, SAMPLE_RATE).astype(np.float32)
        return waveform


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text to speak, and how."""

    text: str
    voice: str  # optionally with a variant after `+`: `en-us`, `de+f3`
    rate: int = 175  # words per minute
    pitch: int = 50  # 0 to 100; 50 is the voice's own

    @property
    def key(self) -> str:
        """Its key in the file of prerecorded speech."""
        return digest([self.text, self.voice, self.rate, self.pitch])


def synthesise(sentence: Sentence) -> Speech:
    """Speak a sentence, or take it from the speech that comes with emtta if espeak-ng is not installed.

    Raises:
        UsageError: there is no such voice; or espeak-ng is not installed and the sentence is not prerecorded.
        AudioError: there is no output.
    """
    if is_installed():
        return speak(sentence.text, sentence.voice, rate=sentence.rate, pitch=sentence.pitch)
    spoken = _spoken().get(sentence.key)
    if spoken is None:
        raise _not_installed(f"say {sentence.text!r} with the voice {sentence.voice!r}")
    return spoken


def is_installed() -> bool:
    """Whether espeak-ng is installed."""
    return espeakng_loader is not None


def release() -> str:
    """The installed release of `espeakng-loader`, or the one that spoke what comes with emtta."""
    if is_installed():
        return version("espeakng-loader")
    with np.load(SPOKEN) as file:
        return str(file["release"])


@cache
def _spoken() -> Mapping[str, Speech]:
    # The file is LZ77 over samples, since a voice often repeats the same words: the literal samples as FLAC, and copies
    # (start, source, length) of earlier ones.
    with np.load(SPOKEN) as file:
        literal, rate = soundfile.read(io.BytesIO(file["flac"].tobytes()), dtype="int16")
        copies, ends, keys = file["copies"], file["ends"], file["keys"]
    samples, is_literal = np.empty(ends[-1], np.int16), np.ones(ends[-1], bool)
    for start, _, length in copies:
        is_literal[start : start + length] = False
    samples[is_literal] = literal
    for start, source, length in copies:
        samples[start : start + length] = samples[source : source + length]
    return {str(key): Speech(part, rate) for key, part in zip(keys, np.split(samples, ends[:-1]), strict=True)}


def _not_installed(what: str) -> UsageError:
    return UsageError(
        f"espeak-ng is not installed, so emtta cannot {what}: only the speech of the suites smoke, demo and robustness "
        f"comes with it; install espeak-ng, which is licensed under the GPL, version 3: {INSTALL}"
    )


def speak(text: str, voice: str, *, rate: int = 175, pitch: int = 50, pitch_range: int = 50) -> Speech:
    """Speak `text`; the same arguments give the same samples, whatever was spoken before.

    Args:
        text: the text to speak.
        voice: a voice's name, optionally with a variant after `+`: `en-us`, `de+f3`.
        rate: words per minute, 80 to 450.
        pitch: 0 to 100; 50 is the voice's own.
        pitch_range: 0 (monotone) to 100; 50 is the voice's own.

    Raises:
        UsageError: there is no such voice, or espeak-ng is not installed.
        AudioError: there is no output.
    """
    if not is_installed():
        raise _not_installed(f"say {text!r}")
    with _library_lock, _library() as library:
        return library.speak(text, voice, rate, pitch, pitch_range)


_library_lock = threading.Lock()


@contextmanager
def _library() -> Iterator["_Espeak"]:
    # espeak-ng keeps hidden state between sentences, so a sentence spoken a second time has different samples.
    # Unloading the library discards that state; loading it again takes a millisecond.
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    system = ctypes.CDLL(None)
    system.srand(_SEED)  # some voices draw noise from the C library, breathy ones from espeak-ng's own generator
    try:
        yield _Espeak(library)
    finally:
        library.espeak_Terminate()
        system.dlclose(ctypes.c_void_p(library._handle))


class _Espeak:
    """The loaded library, good for one sentence."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        data = espeakng_loader.get_data_path().encode()
        self._native_rate = library.espeak_Initialize(_RETRIEVAL, 0, data, _PHONEME_EVENTS | _DONT_EXIT)
        if self._native_rate <= 0:
            raise AudioError("espeak-ng could not start; reinstall the package espeakng-loader")
        library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))  # by default it is the time of day
        self._chunks: list[NDArray[np.int16]] = []
        self._phonemes: list[Phoneme] = []
        self._receive = _Callback(self._on_samples)
        library.espeak_SetSynthCallback(self._receive)

    def _on_samples(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != _EVENT_END:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                label = bytes(event.id.string).split(b"\0")[0].decode("utf-8", "replace")
                self._phonemes.append(Phoneme(label, event.audio_position / 1000))
            index += 1
        return 0

    def speak(self, text: str, voice: str, rate: int, pitch: int, pitch_range: int) -> Speech:
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UsageError(
                f"espeak-ng has no voice {voice!r}; allowed are its languages and dialects ('en-us', 'de', 'pt-br', …),"
                " optionally with a variant after '+' ('de+f3')"
            )
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.encode()
        self._library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        if not self._chunks:
            raise AudioError(f"espeak-ng was silent for {text!r} with the voice {voice!r}; use a text with words")
        return Speech(np.concatenate(self._chunks), self._native_rate, tuple(self._phonemes))
