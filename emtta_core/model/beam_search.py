"""Beam search: the top beams of each utterance, as a strategy of the token loop."""

import torch
from torch import Tensor

from emtta_core.model.candidates import Frontier, Hypotheses

NEGATIVE_INFINITY = -1.0e9
"""The score of a beam that must not be chosen, as in transformers (-inf would cause ties and NaN sums)."""


class BeamSearch:
    """The top G beams of each utterance, best first."""

    def __init__(self, beams: int):
        """Search with `beams` beams."""
        self.rows = beams

    def begin(self, limits: Tensor, end: int, like: Tensor) -> None:
        """Allocate the running and the finished beams of B utterances."""
        batch, longest, device = len(limits), int(limits.max()), like.device
        shape = (batch, self.rows, longest)
        self._end = end
        self._limits = limits
        self._utterances = torch.arange(batch, device=device)
        self._running = torch.full(shape, end, device=device)
        self._running_scores = like.new_full(shape[:2], NEGATIVE_INFINITY)
        self._running_scores[:, 0] = 0.0
        self._done = torch.full(shape, end, device=device)
        self._done_lengths = torch.zeros(shape[:2], dtype=torch.long, device=device)
        self._done_ended = torch.zeros(shape[:2], dtype=torch.bool, device=device)
        self._done_scores = like.new_full(shape[:2], NEGATIVE_INFINITY)
        self._is_done = torch.zeros(shape[:2], dtype=torch.bool, device=device)
        self._open = torch.ones(batch, dtype=torch.bool, device=device)
        self._final = Hypotheses(self._done.clone(), torch.zeros_like(self._done, dtype=torch.bool), self._done_ended)

    def advance(self, step: int, frontier: Frontier) -> tuple[Tensor, Tensor | None]:
        """Continue with the best continuations, and keep the best finished ones."""
        batch, beams, vocabulary = *frontier.nodes.shape, frontier.masked.shape[-1]
        # 1) The best 2 G continuations of the running beams: even if G of them end, G still run.
        log_probs = frontier.raw.log_softmax(-1).masked_fill_(frontier.masked == -torch.inf, -torch.inf)
        scores = log_probs.index_select(0, frontier.nodes.flatten()).view(batch, beams, vocabulary)
        scores += self._running_scores.unsqueeze(-1)
        top, index = scores.flatten(1).topk(2 * beams)
        parents, tokens = index.div(vocabulary, rounding_mode="floor"), index % vocabulary
        sequences = _pick(self._running, parents)
        sequences[:, :, step] = tokens
        ends = tokens == self._end
        stops = ends | (step + 1 >= self._limits).unsqueeze(1)

        # 2) The best G that do not end keep running.
        self._running_scores, going = (top + stops * NEGATIVE_INFINITY).topk(beams)
        self._running = _pick(sequences, going)

        # 3) Those of the best G that end compete with the finished beams by mean log-probability per token.
        closing = stops.clone()
        closing[:, beams:] = False
        finals = top / (step + 1) + (~self._open).unsqueeze(1) * NEGATIVE_INFINITY + ~closing * NEGATIVE_INFINITY
        self._done_scores, best = torch.cat([self._done_scores, finals], 1).topk(beams)
        self._done = _pick(torch.cat([self._done, sequences], 1), best)
        lengths = torch.full_like(tokens, step + 1)
        self._done_lengths = torch.cat([self._done_lengths, lengths], 1).gather(1, best)
        self._done_ended = torch.cat([self._done_ended, ends], 1).gather(1, best)
        self._is_done = torch.cat([self._is_done, closing], 1).gather(1, best)

        # 4) A search continues while its best running beam would enter the top G if it ended now.
        best_possible = self._running_scores[:, :1] / (step + 1)
        worst = self._done_scores.amin(1, keepdim=True).where(self._is_done, NEGATIVE_INFINITY)
        self._open = self._open & (best_possible > worst).any(1) & (step + 1 < self._limits)
        return tokens.gather(1, going), parents.gather(1, going)

    def going(self) -> Tensor:
        """`(b, G)`, true where a running beam may still enter the top G."""
        return self._open.unsqueeze(1).expand(-1, self.rows)

    def keep(self, utterances: Tensor) -> None:
        """Store the others' beams as final, and continue with only these utterances."""
        self._store_final()
        for name in ("_limits", "_utterances", "_running", "_running_scores", "_open"):
            setattr(self, name, getattr(self, name)[utterances])
        for name in ("_done", "_done_lengths", "_done_ended", "_done_scores", "_is_done"):
            setattr(self, name, getattr(self, name)[utterances])

    def result(self) -> Hypotheses:
        """The top beams, best first, cut to the longest."""
        self._store_final()
        longest = int(self._final.mask.sum(-1).max())
        return Hypotheses(self._final.tokens[..., :longest], self._final.mask[..., :longest], self._final.ended)

    def _store_final(self) -> None:
        positions = torch.arange(self._done.shape[-1], device=self._done.device)
        mask = positions < self._done_lengths.unsqueeze(-1)
        self._final.tokens[self._utterances] = self._done.masked_fill(~mask, self._end)
        self._final.mask[self._utterances] = mask
        self._final.ended[self._utterances] = self._done_ended


def _pick(sequences: Tensor, beams: Tensor) -> Tensor:
    # The sequences `(B, K, T)` of the given beams `(B, K)`.
    return sequences.gather(1, beams.unsqueeze(-1).expand(-1, -1, sequences.shape[-1]))
