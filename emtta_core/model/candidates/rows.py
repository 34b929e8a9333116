"""Rows that grow each by itself: what greedy decoding and sampling have in common."""

import torch
from torch import Tensor

from emtta_core.model.candidates.loop import Hypotheses


class Rows:
    """R independent sequences of each of B utterances, written down as they grow.

    Attributes:
        rows: R.
        utterances: `(b,)`, which of the B utterances are still in the loop.
        limits: `(b,)`, their caps.
        live: `(b, R)`, rows that have not ended.
    """

    rows: int
    utterances: Tensor
    limits: Tensor
    live: Tensor

    def begin(self, limits: Tensor, end: int, like: Tensor) -> None:
        """Make room for sequences of B utterances, of at most `limits` `(B,)` tokens."""
        batch, longest = len(limits), int(limits.max())
        device = like.device
        self.utterances = torch.arange(batch, device=device)
        self.limits = limits
        self.live = torch.ones((batch, self.rows), dtype=torch.bool, device=device)
        self._end = end
        self._tokens = torch.full((longest, batch, self.rows), end, device=device)
        self._mask = torch.zeros((longest, batch, self.rows), dtype=torch.bool, device=device)
        self._ended = torch.zeros((batch, self.rows), dtype=torch.bool, device=device)

    def write(self, step: int, tokens: Tensor) -> Tensor:
        """Take `(b, R)` chosen tokens down, and return them with the end token where a row had ended before."""
        tokens = tokens.where(self.live, self._end)
        self._tokens[step, self.utterances] = tokens
        self._mask[step, self.utterances] = self.live
        ends = self.live & (tokens == self._end)
        self._ended[self.utterances] |= ends
        self.live = self.live & ~ends & (step + 1 < self.limits).unsqueeze(1)
        return tokens

    def going(self) -> Tensor:
        """Return `(b, R)`, true for rows that still grow."""
        return self.live

    def keep(self, utterances: Tensor) -> None:
        """Go on with these utterances alone."""
        self.utterances = self.utterances[utterances]
        self.limits = self.limits[utterances]
        self.live = self.live[utterances]

    def result(self) -> Hypotheses:
        """Return the sequences, cut to the longest."""
        longest = int(self._mask.sum(0).max())
        tokens, mask = (kept[:longest].permute(1, 2, 0) for kept in (self._tokens, self._mask))
        return Hypotheses(tokens, mask, self._ended)
