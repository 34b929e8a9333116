"""Generate the speech that is shipped with emtta: the sentences of the shipped suites, spoken by espeak-ng.

    python docs/tools/spoken_speech.py

writes `emtta_core/corpora/spoken.npz`; it needs the extra `synthetic`, and takes a minute. FLAC alone takes 9.6 MB. A
voice repeats the same words, and espeak-ng gives the same samples for many of their sounds: with these stored only
once, it takes 7.3 MB.
"""

import io
from importlib.resources import files

import numpy as np
import soundfile
from numpy.typing import NDArray

from emtta_core.audio.noise import VOICES
from emtta_core.corpora.espeak import SPOKEN, Sentence, release, speak
from emtta_core.corpora.synthetic import Synthetic, sentences_for_noise
from emtta_core.suite import load_suite

SHORTEST = 16
"""The minimum length of a copy in samples: a copy takes about as many bytes as FLAC needs for eight samples."""


def sentences() -> list[Sentence]:
    """Return the sentences of the shipped suites, and those of the babble behind their speech, each once."""
    names = sorted(file.name for file in (files("emtta_core.suite") / "shipped").iterdir())
    corpora = [domain.corpus for name in names for domain in load_suite(name.removesuffix(".toml")).domains]
    spoken = [sentence for corpus in corpora if isinstance(corpus, Synthetic) for sentence in corpus.sentences()]
    return list(dict.fromkeys([*spoken, *sentences_for_noise(max(VOICES.values()), seed=0)]))


def copies_in(samples: NDArray[np.int16]) -> list[tuple[int, int, int]]:
    """Find repeated stretches from left to right: start, source and length of each (greedy LZ77)."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, SHORTEST)
    hashes = np.zeros(len(windows), np.uint64)
    for column in windows.T:
        hashes = hashes * np.uint64(1_099_511_628_211) + (column.astype(np.int64) + 40_000).astype(np.uint64)
    first: dict[int, int] = {}
    found, start, known = [], 0, hashes.tolist()
    while start < len(known):
        source = first.setdefault(known[start], start)
        longest = min(start - source, len(samples) - start)  # a copy must not overlap its source
        differs = samples[start : start + longest] != samples[source : source + longest]
        length = int(differs.argmax()) if differs.any() else longest
        if length >= SHORTEST:
            found.append((start, source, length))
            for index in range(start, min(start + length, len(known))):
                first.setdefault(known[index], index)
        start += length if length >= SHORTEST else 1
    return found


def main() -> None:
    """Write the file."""
    required = sentences()
    spoken = [speak(one.text, one.voice, rate=one.rate, pitch=one.pitch) for one in required]
    (rate,) = {speech.rate for speech in spoken}
    samples = np.concatenate([speech.samples for speech in spoken])
    copies = copies_in(samples)
    is_literal = np.ones(len(samples), bool)
    for start, _, length in copies:
        is_literal[start : start + length] = False
    flac = io.BytesIO()
    soundfile.write(flac, samples[is_literal], rate, format="FLAC", subtype="PCM_16", compression_level=1.0)
    np.savez(
        SPOKEN,
        release=release(),
        flac=np.frombuffer(flac.getvalue(), np.uint8),
        copies=np.array(copies, np.int32),
        ends=np.cumsum([len(speech.samples) for speech in spoken]),
        keys=[one.key for one in required],
    )
    print(f"{len(required)} sentences, {len(samples) / rate:.0f} s, {SPOKEN.stat().st_size / 1e6:.2f} MB: {SPOKEN}")


if __name__ == "__main__":
    main()
