"""Candidates drawn from the policy, by numbers that belong to the utterance."""

import torch
from torch import Tensor

from emtta_core.model.candidates.loop import Frontier
from emtta_core.model.candidates.rows import Rows


class Sampled(Rows):
    """G rows an utterance, each drawn from the policy by the inverse of its cumulative distribution."""

    def __init__(self, uniform: Tensor):
        """Take the numbers to draw with.

        Args:
            uniform: `(B, G, T)`, at least 0 and below 1: one for each candidate and token, T no less than any limit.
        """
        self.rows = uniform.shape[1]
        self._uniform = uniform

    def advance(self, step: int, frontier: Frontier) -> tuple[Tensor, Tensor | None]:
        """Draw a token for each row."""
        return self.write(step, draw(frontier.masked, frontier.nodes, self._uniform[:, :, step])), None

    def keep(self, utterances: Tensor) -> None:
        """Go on with these utterances alone."""
        super().keep(utterances)
        self._uniform = self._uniform[utterances]


def draw(logits: Tensor, nodes: Tensor, uniform: Tensor) -> Tensor:
    """Return the tokens `(...)` that uniform numbers `(...)` pick, each from the distribution that `nodes` names.

    The token is the first at which the cumulative probability exceeds the number, so one of probability zero is never
    picked: the number is kept below the total of the rounded sum. (Of logits that are NaN it is the last token.)

    Args:
        logits: `(F, V)`, the distributions.
        nodes: which of them.
        uniform: at least 0 and below 1.
    """
    cumulative = logits.softmax(-1).cumsum(-1)[nodes]
    largest = 1.0 - 2.0 * torch.finfo(logits.dtype).eps
    target = uniform.to(logits.dtype).clamp(max=largest).unsqueeze(-1) * cumulative[..., -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)
