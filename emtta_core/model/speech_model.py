"""A loaded speech model: what all have, and that of the fast path with its frozen weights."""

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
    """What every loaded model has, whichever path computes it."""

    name: str  # what it was asked for by: "demo", a folder or a hub id
    digest: str  # hexadecimal digest of all that can change a result: weights, prompt, policy, features, vocabulary
    front_end: WaveformLimits  # what makes the encoder's input of a waveform
    policy: DecodingPolicy  # which tokens may follow which
    prompt: Prompt  # the forced beginning in each language
    tokenizer: Any  # what makes text of tokens
    precision: Precision  # how its numbers are kept and multiplied

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Columns of the decoder, d."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Parameters; the output projection is not counted where it is the embedding."""

    @property
    def dtype(self) -> torch.dtype:
        """Of features, LayerNorms, logits and all that is summed."""
        return self.precision.sums

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.front_end.sample_rate

    @property
    def max_seconds(self) -> float:
        """The window: the longest waveform that can be transcribed."""
        return self.front_end.longest / self.front_end.sample_rate

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that it can be asked for."""
        return self.prompt.languages

    def max_tokens(self, samples: int, language: str) -> int:
        """The most tokens of a hypothesis of a waveform of `samples` in a language, the end token counted."""
        return self.policy.max_tokens(samples / self.sample_rate, language, self.prompt.length)

    def texts(self, tokens: Tensor, mask: Tensor) -> list[str]:
        """The texts of sequences `(K, T)`, special tokens left out, white space at the ends cut."""
        rows: Sequence[Sequence[int]] = [row[keep].tolist() for row, keep in zip(tokens.cpu(), mask.cpu(), strict=True)]
        return [str(self.tokenizer.decode(row, skip_special_tokens=True)).strip() for row in rows]


@dataclass(frozen=True, slots=True, eq=False)
class SpeechModel(Model):
    """A model of a family, on the fast path. Nothing in it changes, so several threads may use one at once."""

    front_end: FrontEnd
    weights: Weights  # the frozen tensors behind the front end

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.head.device

    @property
    def width(self) -> int:
        """Columns, d."""
        return self.weights.width

    @property
    def size(self) -> int:
        """Parameters; the output projection is not counted where it is the embedding."""
        tensors = (*self.front_end.tensors(), *self.weights.tensors())
        sizes = {tensor.data_ptr(): tensor.numel() for tensor in tensors}
        return sum(sizes.values())


@dataclass(frozen=True, slots=True)
class Detected:
    """A language that was detected."""

    language: str  # its code
    probability: float  # of its token among those of all languages that the model knows


def detect_language(model: Model, waveform: NDArray[np.floating[Any]]) -> Detected:
    """Detect the most probable language of a waveform with the unadapted model.

    One waveform at a time: what is detected of one utterance must not depend on its neighbours in a batch.

    Args:
        model: one that knows several languages.
        waveform: mono samples `(N,)` at the model's sample rate, no longer than its window.

    Raises:
        UsageError: for a model that knows one language alone, or tells them by no token.
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
