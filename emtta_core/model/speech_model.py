"""Loaded speech models: the common base, and that of the fast path with its frozen weights."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emtta_core.model import forward
from emtta_core.model.family import FrontEnd, WaveformLimits
from emtta_core.model.policy import DecodingPolicy, Prompt
from emtta_core.model.weights import Precision, Weights


@dataclass(frozen=True, slots=True, eq=False)
class Model(ABC):
    """The common base of loaded models on either path."""

    name: str  # as requested: "demo", a folder or a hub id
    digest: str  # hexadecimal digest of all that can change a result: weights, prompt, policy, features, vocabulary
    front_end: WaveformLimits  # computes the encoder's input from a waveform
    policy: DecodingPolicy  # which tokens may follow
    prompt: Prompt  # the forced beginning in each language
    tokenizer: Any  # decodes tokens to text
    precision: Precision  # how its numbers are stored and multiplied

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of the weights."""

    @property
    @abstractmethod
    def width(self) -> int:
        """The width of the decoder, d."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of parameters; the output projection is not counted if it is the embedding."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of features, LayerNorms, logits and all sums."""
        return self.precision.sums

    @property
    def sample_rate(self) -> int:
        """The sample rate in Hz."""
        return self.front_end.sample_rate

    @property
    def max_seconds(self) -> float:
        """The window: the longest waveform that can be transcribed."""
        return self.front_end.longest / self.front_end.sample_rate

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes of its languages."""
        return self.prompt.languages

    def max_tokens(self, samples: int, language: str) -> int:
        """The maximum number of tokens of a hypothesis, including the end token, for `samples` in a language."""
        return self.policy.max_tokens(samples / self.sample_rate, language, self.prompt.length)

    def texts(self, tokens: Tensor, mask: Tensor) -> list[str]:
        """The texts of sequences `(K, T)`, without special tokens and leading or trailing white space."""
        rows: Sequence[Sequence[int]] = [row[keep].tolist() for row, keep in zip(tokens.cpu(), mask.cpu(), strict=True)]
        return [str(self.tokenizer.decode(row, skip_special_tokens=True)).strip() for row in rows]


@dataclass(frozen=True, slots=True, eq=False)
class SpeechModel(Model):
    """A model of a family, on the fast path. It is immutable, so several threads may use it at once."""

    front_end: FrontEnd
    weights: Weights  # the frozen tensors after the front end

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.weights.head.device

    @property
    def width(self) -> int:
        """The width, d."""
        return self.weights.width

    @property
    def size(self) -> int:
        """The number of parameters; the output projection is not counted if it is the embedding."""
        tensors = (*self.front_end.tensors(), *self.weights.tensors())
        sizes = {tensor.data_ptr(): tensor.numel() for tensor in tensors}
        return sum(sizes.values())


@dataclass(frozen=True, slots=True)
class Detected:
    """A detected language."""

    language: str  # its code
    probability: float  # of its token among those of all languages that the model knows


def detect_language(model: Model, waveform: NDArray[np.floating[Any]]) -> Detected:
    """Detect the most probable language of a waveform with the unadapted model.

    One waveform at a time: the language of one utterance must not depend on its neighbours in a batch.

    Args:
        model: a multilingual model.
        waveform: mono samples `(N,)` at the model's sample rate, no longer than its window.

    Raises:
        UsageError: for a model that knows only one language, or has no language tokens.
    """
    begin = model.prompt.common()
    assert isinstance(model, SpeechModel)
    names = model.languages
    token_of = {language: tokens[len(begin)] for language, tokens in model.prompt.tokens.items()}
    weights = model.weights
    norms = weights.norms.unsqueeze(0)
    with torch.no_grad(), model.precision.arithmetic(model.device):
        entering = model.front_end([waveform], device=model.device, dtype=model.dtype)
        encoded = forward.encode(weights, norms[:, : weights.encoder_norms], entering.rows, entering.audible)
        memory = forward.cross_memory(weights, encoded, entering.audible)
        prompt = torch.tensor([begin], device=model.device)
        cache = forward.Cache.empty(weights, 1, len(begin))
        (logits,) = forward.prefill(weights, norms[:, weights.encoder_norms :], memory, prompt, cache)
        chances = logits[[token_of[language] for language in names]].softmax(-1)
    best = int(chances.argmax())
    return Detected(names[best], float(chances[best]))
