"""The speech that the demo model adapts to: sixteen utterances with an accent that it was not trained on, 35 s in all.

It is stored in speech.npz, so that every machine adapts to the same samples, even without a speech synthesiser:
espeak-ng's voice `en-gb-scotland` with test sentences of the synthetic corpus, in eight-bit mu-law at 16 kHz.

    python benchmarks/speech.py      # writes the file again; needs all of emtta
"""

from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).parent / "speech.npz"
UTTERANCES = 16
MU = 255.0


def read(count: int) -> list[NDArray[np.float32]]:
    """Return `count` utterances, mono at 16 kHz; after the sixteenth, they repeat."""
    with np.load(FILE) as stored:
        codes, ends = stored["codes"], stored["ends"]
    return list(islice(cycle(expand(part) for part in np.split(codes, ends[:-1])), count))


def write() -> None:
    """Synthesise the utterances, and write them to the file."""
    from emtta_core.corpora.synthetic import Synthetic

    corpus = Synthetic(language="en", voices=("en-gb-scotland",), utterances=UTTERANCES)
    spoken = [utterance.read() for utterance in corpus.read_all()]
    codes = np.concatenate([compress(waveform) for waveform in spoken])
    np.savez_compressed(FILE, codes=codes, ends=np.cumsum([len(waveform) for waveform in spoken]))


def compress(waveform: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the mu-law codes of samples, clipped at full scale, 1."""
    sound = np.clip(waveform, -1.0, 1.0)
    curve = np.sign(sound) * np.log1p(MU * np.abs(sound)) / np.log1p(MU)
    return np.asarray(np.round((curve + 1) / 2 * MU), dtype=np.uint8)


def expand(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the samples of mu-law codes."""
    curve = 2 * codes.astype(np.float32) / np.float32(MU) - 1
    return np.asarray(np.sign(curve) * np.expm1(np.abs(curve) * np.log1p(MU)) / MU, dtype=np.float32)


if __name__ == "__main__":
    write()
