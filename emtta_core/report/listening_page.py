"""The listening page: audio and spectrograms of a few utterances under each corruption of a suite.

It is one self-contained HTML file, with recordings as FLAC and spectrograms as PNG.
"""

import base64
import math
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from emtta_core.audio.files import encode_flac
from emtta_core.audio.mix import rms_dbfs, scale_back
from emtta_core.audio.spectrum import RANGE_DB, signal_to_distortion_db, spectral_distance_db, spectrogram_db
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform
from emtta_core.corpora.base import Utterance
from emtta_core.corpora.registry import Corpus
from emtta_core.corpora.synthetic import voices_for_noise
from emtta_core.errors import AudioError, UsageError
from emtta_core.report.examples import data_uri
from emtta_core.report.page import render
from emtta_core.suite import Domain, Suite

_ROWS = 96
"""Rows of a spectrogram, from 0 to 8 kHz."""

_COLUMNS = 400
"""The most columns of a spectrogram."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A recording on the page."""

    audio: str  # the data URI of the recording
    picture: str  # the data URI of its spectrogram
    seconds: float  # its length in seconds
    level: float  # its RMS level, dB FS


@dataclass(frozen=True, slots=True)
class CorruptedExample:
    """An utterance as corrupted by a domain."""

    domain: Domain  # the domain
    sound: Sound | None = None  # the corrupted recording; None if it cannot be made
    snr_db: float | None = None  # the signal-to-noise ratio of the mixture; None without noise
    gain: float = 1.0  # the factor that scaled down a mixture beyond full scale
    # The measured signal-to-distortion ratio; None if the length has changed.
    distortion_db: float | None = None
    distance_db: float = 0.0  # the mean difference in mel bands
    error: str | None = None  # why it cannot be made; then nothing is measured


@dataclass(frozen=True, slots=True)
class Example:
    """An utterance, clean and under each corruption of its group."""

    utterance_id: str  # the utterance
    text: str  # its transcript
    clean: Sound | None = None  # the clean recording; None if its file cannot be read
    corrupted: tuple[CorruptedExample, ...] = ()  # the corrupted recordings, by domain
    error: str | None = None  # why its file cannot be read; then there is no recording


@dataclass(frozen=True, slots=True)
class Chapter:
    """The domains of one group that corrupt the same speech, side by side."""

    title: str  # their group, with their names if other domains of the group corrupt other speech
    # The utterances, each as corrupted by all the domains, in suite order.
    examples: tuple[Example, ...]


def make_listening_page(suite: Suite, domains: Sequence[Domain], examples: int = 2) -> str:
    """Make the page, one HTML file, with the first `examples` utterances of each group.

    Domains without a corruption are left out.

    Raises:
        UsageError: no domain has a corruption, a domain needs something that is missing, or `examples` is below 1.
    """
    if examples < 1:
        raise UsageError(f"{examples} examples are too few; give 1 or more")
    noisy = [domain for domain in domains if domain.corruption is not None and domain.corruption.label() is not None]
    if not noisy:
        raise UsageError(f"no domain of {', '.join(domain.name for domain in domains)} has a corruption to listen to")
    for domain in noisy:
        assert domain.corruption is not None
        domain.corruption.determinants(str)  # raises if a required library or file is missing
    by_speech: dict[tuple[str, Corpus], list[Domain]] = {}
    for domain in noisy:
        by_speech.setdefault((domain.group, domain.corpus), []).append(domain)
    times = Counter(group for group, _ in by_speech)
    chapters = [
        Chapter(
            group if times[group] == 1 else f"{group}: {', '.join(domain.name for domain in members)}",
            tuple(_example(one, members) for one in corpus.read_all(examples)),
        )
        for (group, corpus), members in by_speech.items()
    ]
    return render("listen.html", served=False, suite=suite, domains=noisy, chapters=chapters)


def _example(utterance: Utterance, domains: Sequence[Domain]) -> Example:
    # An utterance, clean and as corrupted by each domain, or why its file cannot be read.
    try:
        clean = scale_back(utterance.read()).waveform
        sound = _sound(clean)
    except AudioError as error:
        return Example(utterance.id, utterance.text, error=str(error))
    sounds = tuple(_corrupted(clean, utterance.id, domain) for domain in domains)
    return Example(utterance.id, utterance.text, sound, sounds)


def _corrupted(clean: Waveform, utterance_id: str, domain: Domain) -> CorruptedExample:
    assert domain.corruption is not None
    seed = domain.corruption.seed
    try:
        result = domain.corruption.apply(clean, utterance_id, lambda count: _voices(count, seed))
        return CorruptedExample(
            domain,
            _sound(result.waveform),
            result.snr_db,
            result.gain,
            signal_to_distortion_db(clean, result.waveform),
            spectral_distance_db(clean, result.waveform),
        )
    except AudioError as error:
        return CorruptedExample(domain, error=str(error))


@cache
def _voices(count: int, seed: int) -> Sequence[Waveform]:
    return voices_for_noise(count, seed)


def _sound(waveform: Waveform) -> Sound:
    picture = f"data:image/png;base64,{base64.b64encode(_picture(waveform)).decode('ascii')}"
    return Sound(data_uri(encode_flac(waveform)), picture, waveform.size / SAMPLE_RATE, rms_dbfs(waveform))


def _picture(waveform: Waveform) -> bytes:
    # The spectrogram as a greyscale PNG: darker is louder, with high frequencies at the top.
    hop = max(160, math.ceil(waveform.size / _COLUMNS))
    power = spectrogram_db(waveform, window=2 * _ROWS, hop=hop)[:_ROWS][::-1]
    return _png(np.rint(-power / RANGE_DB * 255).astype(np.uint8))


def _png(grey: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    # An 8-bit greyscale picture, shape `(rows, columns)`, as a PNG file (ISO/IEC 15948).
    rows, columns = grey.shape
    lines = np.insert(grey, 0, 0, axis=1).tobytes()  # each line begins with its filter: none

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
