"""A loaded speech model: frozen weights, how it hears, what it may say, and how to write that down."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emtta_core.model import forward
from emtta_core.model.family import Hearing
from emtta_core.model.forward import Layout
from emtta_core.model.policy import DecodingPolicy, Prompt
from emtta_core.model.weights import Precision, Weights


@dataclass(frozen=True, slots=True, eq=False)
class SpeechModel:
    """A model, ready to be adapted. Nothing in it changes, so several threads may use one at once."""

    name: str  # what it was asked for by: "demo", a folder or a hub id
    digest: str  # hexadecimal digest of all that can change a result: weights, prompt, policy, features, vocabulary
    weights: Weights  # the frozen tensors behind the hearing
    hearing: Hearing  # how it hears
    policy: DecodingPolicy  # which tokens may follow which
    prompt: Prompt  # the forced beginning in each language
    tokenizer: Any  # what makes text of tokens
    precision: Precision  # how its numbers are kept and multiplied

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


@dataclass(frozen=True, slots=True)
class Detected:
    """A language that was detected."""

    language: str  # its code
    probability: float  # of its token among those of all languages that the model knows


def detect_language(model: SpeechModel, waveform: NDArray[np.floating[Any]]) -> Detected:
    """Return the most probable language of a waveform, as the model hears it without adaptation.

    One waveform at a time: what is detected of one utterance must not depend on its neighbours in a batch.

    Args:
        model: one that knows several languages.
        waveform: mono samples `(N,)` at the model's sample rate, no longer than its window.

    Raises:
        UsageError: for a model that knows one language alone, or tells them by no token.
    """
    begin = model.prompt.common()
    names = model.languages
    place = {language: tokens[len(begin)] for language, tokens in model.prompt.tokens.items()}
    weights = model.weights
    norms = weights.norms.unsqueeze(0)
    with torch.no_grad(), model.precision.arithmetic(model.device):
        heard = model.hearing([waveform], device=model.device, dtype=model.dtype)
        encoded = forward.encode(weights, norms[:, : weights.encoder_norms], heard.rows, heard.audible)
        memory = forward.cross_memory(weights, encoded, heard.audible)
        tokens = torch.tensor(begin, device=model.device)
        count = len(begin)
        layout = Layout.of(torch.tensor([count], device=model.device), [count])
        causal = torch.full((count, count), -torch.inf, dtype=weights.head.dtype, device=model.device).triu(1)
        nodes = forward.Nodes(tokens, layout.rank, layout)
        hidden = forward.decode(weights, norms[:, weights.encoder_norms :], memory, nodes, causal)
        logits = forward.logits(weights, hidden[-1])
        chances = logits[[place[language] for language in names]].softmax(-1)
    best = int(chances.argmax())
    return Detected(names[best], float(chances[best]))
