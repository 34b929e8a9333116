"""The benchmark's workloads: models, sounds and sizes, by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import numpy as np
import speech
import torch
from numpy.typing import NDArray
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.utils import logging

from emtta_core.model import SpeechModel
from emtta_core.model.load import from_transformers


@dataclass(frozen=True)
class Shape:
    """The shape of a Whisper with random weights.

    Attributes:
        width: d.
        heads: attention heads of encoder and decoder.
        layers: of the encoder, and as many of the decoder.
        mel: bands of the spectrogram.
        text: the number of text tokens; the special tokens follow: the end, the start, the languages, …
        vocabulary: V, all tokens.
        window: seconds of audio that the encoder takes, 50 positions each.
    """

    width: int
    heads: int
    layers: int
    mel: int = 80
    text: int = 50257
    vocabulary: int = 51865
    window: int = 30


@dataclass(frozen=True)
class Axes:
    """The values of a sweep, which varies one parameter; the others are the last but one step, second G and middle B.

    Attributes:
        steps: numbers of updates.
        candidates: numbers of candidates, G.
        batch_sizes: numbers of utterances in a batch, B; a run has at least `utterances` of them.
        utterances: the minimum number of utterances in a run.
    """

    steps: tuple[int, ...]
    candidates: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    utterances: int


@dataclass(frozen=True)
class Work:
    """A workload.

    Attributes:
        shape: of the random Whisper; None for the demo model.
        utterances: the number of utterances.
        candidates: G.
        steps: updates per utterance.
        batch_size: utterances in a batch, or "auto".
        device: the device to run on.
        precisions: the precisions to measure.
        references: the references to run.
        reference_utterances: the number of utterances that they run on; their cost is linear in it.
        goal: the goal against `careful`, as a ratio of times.
        peak_goal: the goal as a share of the peak of matrix multiplication; None for no goal.
        axes: the values of its sweep.
    """

    shape: Shape | None
    utterances: int
    candidates: int
    steps: int
    batch_size: int | Literal["auto"]
    device: str
    precisions: tuple[str, ...]
    references: tuple[str, ...]
    reference_utterances: int
    goal: float
    axes: Axes
    peak_goal: float | None = None


BASE = Shape(width=512, heads=8, layers=6)
LARGE = Shape(width=1280, heads=20, layers=32, mel=128, vocabulary=51866)
BOTH = ("plain", "careful")

WORKS = {
    "demo": Work(
        None,
        16,
        16,
        10,
        16,
        "cpu",
        ("float32",),
        BOTH,
        16,
        6.0,
        Axes((1, 2, 4, 8), (4, 8, 16, 32), (1, 2, 4, 8, 16), 16),
    ),
    "base": Work(BASE, 2, 16, 1, 2, "cpu", ("float32",), BOTH, 2, 3.0, Axes((1, 2, 3), (4, 8, 16), (1, 2, 4), 2)),
    "base-gpu": Work(
        BASE,
        256,
        16,
        10,
        "auto",
        "cuda",
        ("tf32", "bf16"),
        BOTH,
        4,
        50.0,
        Axes((1, 2, 4, 8), (4, 8, 16, 32), (1, 4, 16, 64, 256), 16),
        peak_goal=0.3,
    ),
    "large-gpu": Work(
        LARGE,
        32,
        16,
        10,
        "auto",
        "cuda",
        ("tf32", "bf16"),
        ("careful",),
        1,
        10.0,
        Axes((1, 2, 4), (4, 8, 16, 32), (1, 2, 4, 8, 16, 32), 4),
    ),
}
"""All workloads."""

TINY = Shape(width=128, heads=2, layers=2, text=392, vocabulary=2000, window=3)
"""The shape that `--check` uses instead of a larger one; heads have the same width, 64."""

TINY_AXES = Axes((1, 2, 3), (2, 3, 4), (1, 2, 4), 2)
"""The values that `--check` sweeps."""


class Numbers:
    """A tokenizer that decodes tokens to their numbers, for random weights, whose tokens have no other meaning."""

    def __len__(self) -> int:
        return 0

    def get_vocab(self) -> dict[str, int]:
        """Return an empty vocabulary."""
        return {}

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return the numbers; none of them is special."""
        del skip_special_tokens
        return " ".join(map(str, tokens))


def load(work: Work, precision: str) -> tuple[Any, SpeechModel]:
    """Return the workload's Whisper as transformers and as the engine load it, both on the workload's device."""
    logging.disable_progress_bar()
    demo = str(resources.files("emtta_core.model") / "demo")
    tokenizer: Any = Numbers()
    if work.shape is None:
        tokenizer = WhisperTokenizer.from_pretrained(demo)
        extractor = WhisperFeatureExtractor.from_pretrained(demo)
        network = WhisperForConditionalGeneration.from_pretrained(demo)
    else:
        extractor = WhisperFeatureExtractor(feature_size=work.shape.mel, chunk_length=work.shape.window)
        network = random_whisper(work.shape)
    network = network.eval()
    model = from_transformers(network, extractor, tokenizer, name="benchmark", device=work.device, precision=precision)
    return network.to(work.device), model


def random_whisper(shape: Shape) -> Any:
    """Return a Whisper of a shape with random weights, whose sequences never end by themselves."""
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=shape.vocabulary,
        d_model=shape.width,
        encoder_layers=shape.layers,
        decoder_layers=shape.layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=4 * shape.width,
        decoder_ffn_dim=4 * shape.width,
        num_mel_bins=shape.mel,
        pad_token_id=shape.text,
        bos_token_id=shape.text,
        eos_token_id=shape.text,
        decoder_start_token_id=shape.text + 1,
        max_source_positions=50 * shape.window,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    network = WhisperForConditionalGeneration(config)
    end = shape.text  # special tokens follow in Whisper's order
    network.generation_config = GenerationConfig(
        decoder_start_token_id=end + 1,
        eos_token_id=end,
        pad_token_id=end,
        is_multilingual=True,
        lang_to_id={"<|en|>": end + 2},
        task_to_id={"transcribe": end + 102},
        no_timestamps_token_id=end + 106,
        suppress_tokens=[end],
        max_length=448,
    )
    return network


def sounds(work: Work, count: int) -> list[NDArray[np.float32]]:
    """Return speech with an unknown accent for the demo; for random weights, a second of noise each, for 24 tokens."""
    if work.shape is None:
        return speech.read(count)
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(16_000)).astype(np.float32) for _ in range(count)]


def spread(waveforms: Sequence[NDArray[np.float32]], count: int) -> list[int]:
    """Return the indices of `count` waveforms (all, if there are no more), from the shortest to the longest."""
    order = sorted(range(len(waveforms)), key=lambda index: len(waveforms[index]))
    positions = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [order[position] for position in positions]
