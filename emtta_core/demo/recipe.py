"""The recipe of the demo model: its hyperparameters, its espeak-ng training voices, and its training examples.

All other voices are held out. An example is a spoken sentence, its text, and the phoneme in each frame.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import Dataset
from transformers import WhisperTokenizerFast

from emtta_core.atomic_write import write_bytes
from emtta_core.audio.waveform import SAMPLE_RATE, Waveform
from emtta_core.corpora.espeak import Phoneme, speak
from emtta_core.corpora.synthetic import load_grammar
from emtta_core.errors import ModelError

LANGUAGES = ("en", "de", "nl", "fr", "es", "it", "pt", "pl")
"""ISO 639-1 codes of the languages that the demo model knows."""

ENGLISH_SHARE = 0.3
"""The share of English in the training utterances; the other languages share the rest equally."""

_BASE = {"en": "en-us"}
_VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")


def trained_voices(language: str) -> tuple[str, ...]:
    """The training voices of a language: the plain voice and its common variants."""
    base = _BASE.get(language, language)
    return (base, *(f"{base}+{variant}" for variant in _VARIANTS))


RECIPE_FILE = "recipe.json"
"""The file of a trained model's recipe in its folder."""


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of the training. There are `utterances` in all, seen once each, in batches of `batch`."""

    utterances: int = 130_000
    batch: int = 32
    learning_rate: float = 2e-3
    warmup: int = 300
    weight_decay: float = 0.01
    phoneme_weight: float = 1.0
    seed: int = 0
    text_tokens: int = 1_000
    inventory_sentences: int = 200
    width: int = 160
    heads: int = 4
    encoder_layers: int = 4
    decoder_layers: int = 2
    window_seconds: int = 4
    hop_length: int = 256
    mels: int = 80
    max_tokens: int = 64

    @property
    def frames(self) -> int:
        """The number of encoder frames in a window; the second convolution halves that of the spectrogram."""
        return self.window_seconds * 16_000 // self.hop_length // 2

    @property
    def steps(self) -> int:
        """The number of updates."""
        return self.utterances // self.batch

    def save(self, folder: Path) -> None:
        """Write the recipe next to its model."""
        write_bytes(folder / RECIPE_FILE, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> "Recipe":
        """Read the recipe next to a model.

        Raises:
            ModelError: when there is none, or it is from another version of emtta.
        """
        file = folder / RECIPE_FILE
        if not file.is_file():
            raise ModelError(f"{folder} has no {RECIPE_FILE}; name a folder that `emtta demo train` created")
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"{file} is not a recipe of this version of emtta ({error}); train into a new folder"
            ) from error


END = "<|endoftext|>"
START = "<|startoftranscript|>"
TASKS = ("<|translate|>", "<|transcribe|>")
OTHERS = ("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")

_SENTENCES = 3_000
"""Sentences per language from which the byte pairs are learnt."""


def train_tokenizer(size: int) -> WhisperTokenizerFast:
    """Train a tokenizer of `size` text tokens, followed by Whisper's special tokens in Whisper's order.

    The text tokens are learnt from training sentences of all the demo's languages, each preceded by a space.
    """
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=[], show_progress=False)
    pairs.train_from_iterator(_sentences(), trainer)
    specials = [END, START, *(f"<|{language}|>" for language in LANGUAGES), *TASKS, *OTHERS]
    tokenizer = WhisperTokenizerFast(tokenizer_object=pairs, unk_token=END, bos_token=END, eos_token=END)
    tokenizer.add_special_tokens({"additional_special_tokens": specials[1:]})
    return tokenizer


def _sentences() -> list[str]:
    found = []
    for language in LANGUAGES:
        rng = random.Random(f"vocabulary|{language}")
        found += [" " + load_grammar(language).sentence(rng, "train") for _ in range(_SENTENCES)]
    return found


IGNORE = -100
"""The label that torch's cross entropy ignores."""

_NOISY_SHARE = 0.7
_SNR_DB = (10.0, 40.0)


@dataclass(frozen=True, slots=True)
class Example:
    """One training utterance."""

    waveform: Waveform  # `(N,)`, at most a window long
    text: str  # the transcript
    language: str  # ISO 639-1 code
    phonemes: NDArray[np.int64]  # `(frames,)` int64, the index of the phoneme in each encoder frame, or `IGNORE`


class Examples(Dataset[Example]):
    """An endless data set of examples: the example at an index is always the same.

    Args:
        inventory: the phoneme labels in the order of their indices.
        seconds: the window's length.
        frames: encoder frames in a window.
        seed: another seed gives different examples.
    """

    def __init__(self, inventory: Sequence[str], seconds: float, frames: int, seed: int) -> None:
        self._numbers = {label: number for number, label in enumerate(inventory)}
        self._seconds, self._frames, self._seed = seconds, frames, seed

    def __getitem__(self, index: int) -> Example:
        rng = random.Random(f"demo|{self._seed}|{index}")
        while True:
            language = draw_language(rng)
            text = load_grammar(language).sentence(rng, "train")
            speech = speak(
                text,
                rng.choice(trained_voices(language)),
                rate=rng.randint(155, 200),
                pitch=rng.randint(35, 65),
                pitch_range=rng.randint(30, 70),
            )
            waveform = speech.waveform
            if len(waveform) <= self._seconds * SAMPLE_RATE:
                break
        waveform = _with_coloured_noise(waveform, rng)
        return Example(waveform, text, language, self._labels(speech.phonemes, len(waveform)))

    def _labels(self, phonemes: Sequence[Phoneme], samples: int) -> NDArray[np.int64]:
        # The index of the phoneme in the middle of each frame; silence after the speech.
        middles = (np.arange(self._frames) + 0.5) * self._seconds / self._frames
        starts = np.array([phoneme.start for phoneme in phonemes])
        numbers = np.array([self._numbers.get(without_stress(phoneme.label), IGNORE) for phoneme in phonemes])
        labels = numbers[np.clip(np.searchsorted(starts, middles, side="right") - 1, 0, None)]
        labels[middles > samples / SAMPLE_RATE] = self._numbers[""]
        return labels


def draw_language(rng: random.Random) -> str:
    """Draw the language of an example."""
    return "en" if rng.random() < ENGLISH_SHARE else rng.choice(LANGUAGES[1:])


def without_stress(label: str) -> str:
    """An espeak-ng phoneme label without stress and length marks; a pause is the empty label."""
    return label.strip("',%=_:;-|")


def phoneme_inventory(sentences: int) -> tuple[str, ...]:
    """The phoneme labels in this many sentences of each of the demo's languages, and the pause, sorted."""
    labels = {""}
    for language in LANGUAGES:
        rng = random.Random(f"inventory|{language}")
        for _ in range(sentences):
            speech = speak(load_grammar(language).sentence(rng, "train"), trained_voices(language)[0])
            labels.update(without_stress(phoneme.label) for phoneme in speech.phonemes)
    return tuple(sorted(labels))


def _with_coloured_noise(speech: Waveform, rng: random.Random) -> Waveform:
    # The speech at a random level, usually with noise whose spectrum has a random slope.
    level = 10 ** (rng.uniform(-12, 4) / 20)
    speech = speech * level
    if rng.random() > _NOISY_SHARE:
        return speech.astype(np.float32)
    generator = np.random.default_rng(rng.getrandbits(64))
    spectrum = np.fft.rfft(generator.standard_normal(len(speech)))
    hertz = np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum * np.maximum(hertz, 50) ** -rng.uniform(0, 1.2), len(speech))
    ratio = np.sqrt(np.mean(speech**2) / np.mean(noise**2))
    noisy: Waveform = (speech + noise * ratio * 10 ** (-rng.uniform(*_SNR_DB) / 20)).astype(np.float32)
    return noisy


def collate(examples: list[Example]) -> list[Example]:
    """Return the batch unchanged, as the trainer pads it."""
    return examples


def padded(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    """Stack rows of numbers into one int64 tensor `(rows, longest)`, padding each at the end with `fill`."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])
