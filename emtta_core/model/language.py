"""Which language is spoken, as the unadapted model hears it.

The step by which Whisper tells a language (Radford et al. 2022, arXiv:2212.04356, section 2.3): the decoder is given
what the prompts of all languages begin with, and says the token of one of them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emtta_core.model import forward
from emtta_core.model.layout import Layout
from emtta_core.model.speech_model import SpeechModel


@dataclass(frozen=True, slots=True)
class Detected:
    """A language that was detected.

    Attributes:
        language: its code.
        probability: of its token among those of all languages that the model knows.
    """

    language: str
    probability: float


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
