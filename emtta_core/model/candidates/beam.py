"""The top beams, equal to those of transformers' `generate`.

`BeamSearch(G)` returns what `generate(num_beams=G, num_return_sequences=G, do_sample=False)` does, with its defaults
`length_penalty=1.0` and `early_stopping=False`, so these rules are transformers', not the paper's:

- a beam's score is the sum of the model's log-probabilities, which suppressed tokens are taken from without the rest
  being renormalized, divided in the end by its length (the end token counts);
- in each step the best 2 G continuations are looked at; those that end are kept only if among the best G;
- the search ends for an utterance when its G ended beams are all better than its best running beam would be if it ended
  at its present length.

It differs in one thing: each utterance has a limit of its own, at which its best running beams count as ended, as
transformers' do at `max_new_tokens`.
"""

import torch
from torch import Tensor

from emtta_core.model.candidates.loop import Frontier, Hypotheses

NEVER = -1.0e9
"""The score of a beam that must not be chosen, as in transformers (-inf would make ties of them and NaN of sums)."""


class BeamSearch:
    """The top G beams of each utterance, best first."""

    def __init__(self, beams: int):
        """Search with `beams` beams."""
        self.rows = beams

    def begin(self, limits: Tensor, end: int, like: Tensor) -> None:
        """Make room for the running and the ended beams of B utterances."""
        batch, longest, device = len(limits), int(limits.max()), like.device
        shape = (batch, self.rows, longest)
        self._end = end
        self._limits = limits
        self._utterances = torch.arange(batch, device=device)
        self._running = torch.full(shape, end, device=device)
        self._running_scores = like.new_full(shape[:2], NEVER)
        self._running_scores[:, 0] = 0.0
        self._done = torch.full(shape, end, device=device)
        self._done_lengths = torch.zeros(shape[:2], dtype=torch.long, device=device)
        self._done_ended = torch.zeros(shape[:2], dtype=torch.bool, device=device)
        self._done_scores = like.new_full(shape[:2], NEVER)
        self._is_done = torch.zeros(shape[:2], dtype=torch.bool, device=device)
        self._open = torch.ones(batch, dtype=torch.bool, device=device)
        self._final = Hypotheses(self._done.clone(), torch.zeros_like(self._done, dtype=torch.bool), self._done_ended)

    def advance(self, step: int, frontier: Frontier) -> tuple[Tensor, Tensor | None]:
        """Go on with the best continuations, and keep the best that ended."""
        batch, beams, vocabulary = *frontier.nodes.shape, frontier.masked.shape[-1]
        log_probs = frontier.raw.log_softmax(-1).masked_fill_(frontier.masked == -torch.inf, -torch.inf)
        scores = log_probs.index_select(0, frontier.nodes.flatten()).view(batch, beams, vocabulary)
        scores += self._running_scores.unsqueeze(-1)
        top, index = scores.flatten(1).topk(2 * beams)
        parents, tokens = index.div(vocabulary, rounding_mode="floor"), index % vocabulary
        sequences = _pick(self._running, parents)
        sequences[:, :, step] = tokens
        ends = tokens == self._end
        stops = ends | (step + 1 >= self._limits).unsqueeze(1)

        self._running_scores, going = (top + stops * NEVER).topk(beams)
        self._running = _pick(sequences, going)

        closing = stops.clone()
        closing[:, beams:] = False
        finals = top / (step + 1) + (~self._open).unsqueeze(1) * NEVER + ~closing * NEVER
        self._done_scores, best = torch.cat([self._done_scores, finals], 1).topk(beams)
        self._done = _pick(torch.cat([self._done, sequences], 1), best)
        lengths = torch.full_like(tokens, step + 1)
        self._done_lengths = torch.cat([self._done_lengths, lengths], 1).gather(1, best)
        self._done_ended = torch.cat([self._done_ended, ends], 1).gather(1, best)
        self._is_done = torch.cat([self._is_done, closing], 1).gather(1, best)

        hoped = self._running_scores[:, :1] / (step + 1)
        worst = self._done_scores.amin(1, keepdim=True).where(self._is_done, NEVER)
        self._open = self._open & (hoped > worst).any(1) & (step + 1 < self._limits)
        return tokens.gather(1, going), parents.gather(1, going)

    def going(self) -> Tensor:
        """Return `(b, G)`, true where a running beam may still enter the top G."""
        return self._open.unsqueeze(1).expand(-1, self.rows)

    def keep(self, utterances: Tensor) -> None:
        """Set the others' beams down as final, and go on with these utterances alone."""
        self._settle()
        for name in ("_limits", "_utterances", "_running", "_running_scores", "_open"):
            setattr(self, name, getattr(self, name)[utterances])
        for name in ("_done", "_done_lengths", "_done_ended", "_done_scores", "_is_done"):
            setattr(self, name, getattr(self, name)[utterances])

    def result(self) -> Hypotheses:
        """Return the top beams, best first, cut to the longest."""
        self._settle()
        longest = int(self._final.mask.sum(-1).max())
        return Hypotheses(self._final.tokens[..., :longest], self._final.mask[..., :longest], self._final.ended)

    def _settle(self) -> None:
        """Write the ended beams of the utterances in the loop to the final result."""
        places = torch.arange(self._done.shape[-1], device=self._done.device)
        mask = places < self._done_lengths.unsqueeze(-1)
        self._final.tokens[self._utterances] = self._done.masked_fill(~mask, self._end)
        self._final.mask[self._utterances] = mask
        self._final.ended[self._utterances] = self._done_ended


def _pick(sequences: Tensor, beams: Tensor) -> Tensor:
    """Return the sequences `(B, K, T)` of the given beams `(B, K)`."""
    return sequences.gather(1, beams.unsqueeze(-1).expand(-1, -1, sequences.shape[-1]))
