"""A loaded speech model: frozen weights, how it hears, what it may say, and how to write that down."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emtta_core.model.family import Hearing
from emtta_core.model.policy import DecodingPolicy
from emtta_core.model.precision import Precision
from emtta_core.model.prompt import Prompt
from emtta_core.model.weights import Weights


@dataclass(frozen=True, slots=True, eq=False)
class SpeechModel:
    """A model, ready to be adapted. Nothing in it changes, so several threads may use one at once.

    Attributes:
        name: what it was asked for by: "demo", a folder or a hub id.
        digest: hexadecimal digest of all that can change a result: weights, prompt, policy, features, vocabulary.
        weights: the frozen tensors behind the hearing.
        hearing: how it hears.
        policy: which tokens may follow which.
        prompt: the forced beginning in each language.
        tokenizer: what makes text of tokens.
        precision: how its numbers are kept and multiplied.
    """

    name: str
    digest: str
    weights: Weights
    hearing: Hearing
    policy: DecodingPolicy
    prompt: Prompt
    tokenizer: Any
    precision: Precision

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.head.device

    @property
    def dtype(self) -> torch.dtype:
        """Of features, LayerNorms, logits and all that is summed."""
        return self.precision.sums

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.hearing.sample_rate

    @property
    def max_seconds(self) -> float:
        """The window: the longest waveform that can be transcribed."""
        return self.hearing.longest / self.hearing.sample_rate

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that it can be asked for."""
        return self.prompt.languages

    @property
    def size(self) -> int:
        """Parameters; the output projection is not counted where it is the embedding."""
        tensors = (*self.hearing.tensors(), *self.weights.tensors())
        sizes = {tensor.data_ptr(): tensor.numel() for tensor in tensors}
        return sum(sizes.values())

    def max_tokens(self, samples: int, language: str) -> int:
        """Return the most tokens of a hypothesis of a waveform of `samples` in a language, the end token counted."""
        return self.policy.max_tokens(samples / self.sample_rate, language, self.prompt.length)

    def texts(self, tokens: Tensor, mask: Tensor) -> list[str]:
        """Return the texts of sequences `(K, T)`, special tokens left out, white space at the ends cut."""
        rows: Sequence[Sequence[int]] = [row[keep].tolist() for row, keep in zip(tokens.cpu(), mask.cpu(), strict=True)]
        return [str(self.tokenizer.decode(row, skip_special_tokens=True)).strip() for row in rows]
