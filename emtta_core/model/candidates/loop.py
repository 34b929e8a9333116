"""The token loop that every way of making candidates shares.

Each utterance has R rows that grow by a token at a time: those of every strategy asked for, side by side, so that the
greedy hypothesis rides along with the candidates. Rows that have said the same so far are one node: the decoder sees
each distinct beginning once, and ended rows never again. The keys and values of an utterance's nodes lie in one cache,
where a node sees its ancestors: a beam that changes its parent moves no keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from emtta_core.model.forward import Cache, Memory, Nodes, decode, logits
from emtta_core.model.layout import Layout
from emtta_core.model.policy import DecodingPolicy
from emtta_core.model.weights import Weights

COMPACTION = 0.75
"""Ended utterances leave the loop once at most this share of its utterances is still alive: leaving costs a copy."""

SILENT = torch.iinfo(torch.long).max
"""What a row says that has ended."""


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

    def keep(self, rows: Tensor) -> "Hypotheses":
        """Return those of these utterances alone."""
        entropy = None if self.entropy is None else self.entropy.index_select(0, rows)
        tokens, mask, ended = (part.index_select(0, rows) for part in (self.tokens, self.mask, self.ended))
        return Hypotheses(tokens, mask, ended, entropy)


@dataclass(frozen=True, slots=True)
class Frontier:
    """What may follow the beginnings said so far.

    Attributes:
        raw: `(F, V)`, the model's logits after each distinct beginning.
        masked: `(F, V)`, the policy's.
        nodes: `(B, R)`, which of the F beginnings each row has said; any for a row that has ended.
    """

    raw: Tensor
    masked: Tensor
    nodes: Tensor


class Strategy(Protocol):
    """A way of choosing the next token of its own rows.

    A strategy serves one call of `generate`; what it keeps is for the utterances still in the loop.
    """

    rows: int

    def begin(self, limits: Tensor, end: int, like: Tensor) -> None:
        """Prepare for B utterances, capped at `limits` `(B,)` tokens; `like` has the device and dtype of logits."""

    def advance(self, step: int, frontier: Frontier) -> tuple[Tensor, Tensor | None]:
        """Choose the tokens at position `step` after the prompt, from 0.

        Returns:
            The rows' tokens `(B, rows)`, and the row that each goes on from, `(B, rows)`, or None if each from itself.
        """

    def going(self) -> Tensor:
        """Return `(B, rows)`, true for rows that need another token."""

    def keep(self, utterances: Tensor) -> None:
        """Go on with these utterances alone."""

    def result(self) -> Hypotheses:
        """Return what was made, for all the utterances that the loop began with."""


def generate(
    weights: Weights,
    norms: Tensor,
    memory: Memory,
    prompt: Tensor,
    policy: DecodingPolicy,
    limits: Tensor,
    strategies: Sequence[Strategy],
) -> list[Hypotheses]:
    """Grow the rows of all strategies, from the prompts `(B, P)`, until each has ended or met its utterance's limit.

    Args:
        weights: the frozen weights.
        norms: the decoder's LayerNorms of the B utterances, `(B, K, 2, d)`.
        memory: their cross-attention keys and values.
        prompt: `(B, P)`.
        policy: which tokens may follow, and which one ends.
        limits: `(B,)`, the most tokens of a sequence, the end token counted.
        strategies: what chooses; their rows lie side by side.

    Returns:
        Each strategy's hypotheses.
    """
    with torch.no_grad():
        norms = norms.detach()
        memory = memory.detach()
        batch, start = prompt.shape
        device, dtype = prompt.device, weights.head.dtype
        longest = int(limits.max())
        cache = Cache.empty(weights, batch, start + 64)
        raw = _prefill(weights, norms, memory, prompt, cache)
        # Every row has said the prompt: one node an utterance, which sees all of it.
        nodes = torch.arange(batch, device=device).unsqueeze(1).expand(-1, sum(part.rows for part in strategies))
        visible = torch.zeros((batch, start), dtype=dtype, device=device)
        for strategy in strategies:
            strategy.begin(limits, policy.end, raw)
        for step in range(longest):
            frontier = Frontier(raw, policy.mask_step(raw, first=step == 0), nodes)
            tokens, parents = _advance(strategies, step, frontier)
            going = torch.cat([strategy.going() for strategy in strategies], dim=1)
            said = (parents * raw.shape[1] + tokens).masked_fill(~going, SILENT)
            rank, counts = _distinct(said)
            sizes = counts.tolist()  # the one time in a token that the host waits for the device
            alive = [utterance for utterance, size in enumerate(sizes) if size]
            if not alive or step + 1 == longest:
                break
            if len(alive) <= COMPACTION * len(sizes):
                kept = torch.tensor(alive, device=device)
                for strategy in strategies:
                    strategy.keep(kept)
                cache.keep(alive)
                said, rank, counts = said[kept], rank[kept], counts[kept]
                sizes = [sizes[utterance] for utterance in alive]
                norms = norms.index_select(0, kept)
                memory = memory.keep(kept)
            layout = Layout.of(counts, sizes)
            # Rows that go on from one node with one token are one node; those that have ended write behind the last.
            total = len(layout.utterance)
            nodes = (layout.starts.unsqueeze(1) + rank).masked_fill(said == SILENT, total)
            distinct = said.new_empty(total + 1).scatter_(0, nodes.flatten(), said.flatten())[:total]
            nodes = nodes.clamp(max=total - 1)
            places = cache.reserve(layout)
            seen = visible.new_full((total, cache.length), -torch.inf)
            known = min(cache.length, visible.shape[1])  # less than before where the longest utterance has left
            parent = distinct.div(raw.shape[1], rounding_mode="floor")
            seen[:, :known] = visible[:, :known].index_select(0, parent)
            visible = seen.scatter_(1, places.unsqueeze(1), 0.0)
            position = torch.full_like(distinct, start + step)
            grown = Nodes(distinct % raw.shape[1], position, layout)
            hidden = decode(weights, norms, memory, grown, layout.pad(visible).unsqueeze(1), cache, places)
            raw = logits(weights, hidden)
        return [strategy.result() for strategy in strategies]


def _prefill(weights: Weights, norms: Tensor, memory: Memory, prompt: Tensor, cache: Cache) -> Tensor:
    """Decode the prompts `(B, P)`, and return the logits `(B, V)` after them."""
    batch, start = prompt.shape
    layout = Layout.of(prompt.new_full((batch,), start), [start] * batch)
    causal = torch.full((start, start), -torch.inf, dtype=weights.head.dtype, device=prompt.device).triu(1)
    nodes = Nodes(prompt.flatten(), layout.rank, layout)
    hidden = decode(weights, norms, memory, nodes, causal, cache, cache.reserve(layout))
    return logits(weights, hidden[start - 1 :: start])


def _distinct(said: Tensor) -> tuple[Tensor, Tensor]:
    """Number the distinct things that each utterance's rows have said, smallest first.

    Args:
        said: `(B, R)`, equal where two rows have said the same, `SILENT` for a row that has ended.

    Returns:
        The number of what each row said, `(B, R)`; and how many distinct things there are, `(B,)`, ended rows apart.
    """
    ordered, order = said.sort(1)
    fresh = ordered < SILENT
    fresh[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    rank = torch.empty_like(order).scatter_(1, order, fresh.cumsum(1) - 1)
    return rank, fresh.sum(1)


def _advance(strategies: Sequence[Strategy], step: int, frontier: Frontier) -> tuple[Tensor, Tensor]:
    """Let each strategy choose for its rows; return all rows' tokens, and the node that each goes on from."""
    chosen, sources = [], []
    begin = 0
    for strategy in strategies:
        nodes = frontier.nodes[:, begin : begin + strategy.rows]
        tokens, parents = strategy.advance(step, Frontier(frontier.raw, frontier.masked, nodes))
        chosen.append(tokens)
        sources.append(nodes if parents is None else nodes.gather(1, parents))
        begin += strategy.rows
    return torch.cat(chosen, dim=1), torch.cat(sources, dim=1)
