"""The greedy hypothesis: the most probable token, again and again."""

from dataclasses import replace

import torch
from torch import Tensor

from emtta_core.model.candidates.loop import Frontier, Hypotheses
from emtta_core.model.candidates.rows import Rows


class Greedy(Rows):
    """One row an utterance, that takes the policy's most probable token and notes the policy's entropy there."""

    rows = 1

    def begin(self, limits: Tensor, end: int, like: Tensor) -> None:
        """Make room for one sequence of each utterance."""
        super().begin(limits, end, like)
        self._entropy = like.new_zeros(len(limits))

    def advance(self, step: int, frontier: Frontier) -> tuple[Tensor, Tensor | None]:
        """Choose the most probable token."""
        masked = frontier.masked.index_select(0, frontier.nodes[:, 0])
        entropy = torch.special.entr(masked.softmax(-1)).sum(-1)
        self._entropy[self.utterances] += entropy.where(self.live[:, 0], 0.0)
        return self.write(step, masked.argmax(-1, keepdim=True)), None

    def result(self) -> Hypotheses:
        """Return the hypothesis and its mean entropy a token."""
        made = super().result()
        return replace(made, entropy=(self._entropy / made.mask.sum((1, 2))).unsqueeze(1))
