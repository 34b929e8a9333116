"""The token loop that every way of making candidates shares.

Each utterance has R rows that grow by a token at a time: those of every strategy asked for, side by side, so that the
greedy hypothesis rides along with the candidates at the price of one more row. The keys and values of all rows lie in
one cache for each utterance, and a row sees its own ancestors there: a beam that changes its parent moves no keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from emtta_core.model.forward import Cache, Memory, Norms, decode, logits
from emtta_core.model.policy import DecodingPolicy
from emtta_core.model.weights import Weights

COMPACTION = 0.75
"""Ended utterances leave the loop once at most this share of its rows is still alive (measured; a copy costs too)."""


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """Sequences that a strategy made.

    Attributes:
        tokens: `(B, R, T)`, the tokens after the prompt; the end token where masked.
        mask: `(B, R, T)`, true up to and including the end token, or the last token before the cap.
        ended: `(B, R)`, true where the sequence ended by itself, false where the cap cut it.
        entropy: `(B, R)`, the mean entropy in nats of the policy at each token; None where not asked for.
    """

    tokens: Tensor
    mask: Tensor
    ended: Tensor
    entropy: Tensor | None = None


class Strategy(Protocol):
    """A way of choosing the next token of its own rows.

    A strategy serves one call of `generate`; what it keeps is for the utterances still in the loop.
    """

    rows: int

    def begin(self, limits: Tensor, end: int, like: Tensor) -> None:
        """Prepare for B utterances, capped at `limits` `(B,)` tokens; `like` has the device and dtype of logits."""

    def advance(self, step: int, raw: Tensor, masked: Tensor) -> tuple[Tensor, Tensor | None]:
        """Choose the tokens at position `step` after the prompt.

        Args:
            step: the position, from 0.
            raw: `(B, rows, V)`, the model's logits.
            masked: the policy's.

        Returns:
            The rows' tokens `(B, rows)`, and the row that each goes on from, `(B, rows)`, or None if each from itself.
        """

    def alive(self) -> Tensor:
        """Return `(B,)`, false where nothing more can change for the utterance."""

    def keep(self, utterances: Tensor) -> None:
        """Go on with these utterances alone."""

    def result(self) -> Hypotheses:
        """Return what was made, for all the utterances that the loop began with."""


def generate(
    weights: Weights,
    norms: Norms,
    memory: Memory,
    prompt: Tensor,
    policy: DecodingPolicy,
    limits: Tensor,
    strategies: Sequence[Strategy],
) -> list[Hypotheses]:
    """Grow the rows of all strategies, from the prompts `(B, P)`, until each has ended or met its utterance's limit.

    Args:
        weights: the frozen weights.
        norms: LayerNorm parameters of the B utterances.
        memory: their cross-attention keys and values.
        prompt: `(B, P)`.
        policy: which tokens may follow, and which one ends.
        limits: `(B,)`, the most tokens of a sequence, the end token counted.
        strategies: what chooses; their rows lie side by side.

    Returns:
        Each strategy's hypotheses.
    """
    with torch.no_grad():
        norms = [(weight.detach(), bias.detach()) for weight, bias in norms]
        memory = tuple((keys.detach(), values.detach()) for keys, values in memory)
        batch, start = prompt.shape
        device, dtype = prompt.device, weights.head.dtype
        rows = sum(strategy.rows for strategy in strategies)
        longest = int(limits.max())
        cache = Cache.empty(weights, batch, start + rows * min(longest, 32))
        causal = torch.full((start, start), -torch.inf, dtype=dtype, device=device).triu(1)
        positions = torch.arange(start + longest, device=device)
        hidden = decode(weights, norms, memory, prompt, positions[:start], causal, cache)
        raw = logits(weights, hidden[:, -1:]).expand(-1, rows, -1)
        visible = torch.full((batch, rows, start + rows * longest), -torch.inf, dtype=dtype, device=device)
        visible[:, :, :start] = 0.0
        own = torch.full((rows, rows), -torch.inf, dtype=dtype, device=device).fill_diagonal_(0.0)
        for strategy in strategies:
            strategy.begin(limits, policy.end, raw)
        for step in range(longest):
            tokens, visible = _advance(strategies, step, raw, policy, visible, cache.length)
            alive = torch.stack([strategy.alive() for strategy in strategies]).any(0)
            count = int(alive.sum())
            if count == 0 or step + 1 == longest:
                break
            if count <= COMPACTION * len(alive):
                keep = alive.nonzero().squeeze(1)
                for strategy in strategies:
                    strategy.keep(keep)
                cache.select(keep)
                tokens, visible = tokens.index_select(0, keep), visible.index_select(0, keep)
                norms = [(weight.index_select(0, keep), bias.index_select(0, keep)) for weight, bias in norms]
                memory = tuple((keys.index_select(0, keep), values.index_select(0, keep)) for keys, values in memory)
            stop = cache.length + rows
            visible[:, :, cache.length : stop] = own
            position = positions[start + step : start + step + 1]
            hidden = decode(weights, norms, memory, tokens, position, visible[:, None, :, :stop], cache)
            raw = logits(weights, hidden)
        return [strategy.result() for strategy in strategies]


def _advance(
    strategies: Sequence[Strategy], step: int, raw: Tensor, policy: DecodingPolicy, visible: Tensor, length: int
) -> tuple[Tensor, Tensor]:
    """Let each strategy choose for its rows; return all rows' tokens, and what each row sees after that."""
    masked = policy.mask_step(raw, first=step == 0)
    chosen = []
    begin = 0
    for strategy in strategies:
        stop = begin + strategy.rows
        tokens, parents = strategy.advance(step, raw[:, begin:stop], masked[:, begin:stop])
        chosen.append(tokens)
        if parents is not None:
            seen = visible[:, begin:stop, :length]
            index = parents.unsqueeze(-1).expand(-1, -1, length)
            visible[:, begin:stop, :length] = seen.gather(1, index)
        begin = stop
    return torch.cat(chosen, dim=1), visible
