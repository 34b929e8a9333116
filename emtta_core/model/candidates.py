"""Candidate sequences, greedy, sampled or of a beam search, all from one token loop over one policy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from emtta_core.model.forward import Cache, Layout, Memory, Nodes, decode, logits, prefill
from emtta_core.model.policy import DecodingPolicy
from emtta_core.model.sampling import Noise, draw
from emtta_core.model.weights import Weights

COMPACTION = 0.75
"""Ended utterances leave the loop once at most this share of its utterances is still alive: leaving costs a copy."""

ENDED = torch.iinfo(torch.long).max
"""The branch of a row that has ended."""


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """Sequences that a strategy made."""

    tokens: Tensor  # `(B, R, T)`, the tokens after the prompt; the end token where masked
    mask: Tensor  # `(B, R, T)`, true up to and including the end token, or the last token before the cap
    ended: Tensor  # `(B, R)`, true where the sequence ended by itself, false where the cap cut it
    # `(B, R)`, the mean entropy in nats of the policy at each token; None where not asked for.
    entropy: Tensor | None = None

    def keep(self, rows: Tensor) -> "Hypotheses":
        """Those of these utterances alone."""
        entropy = None if self.entropy is None else self.entropy.index_select(0, rows)
        tokens, mask, ended = (part.index_select(0, rows) for part in (self.tokens, self.mask, self.ended))
        return Hypotheses(tokens, mask, ended, entropy)


@dataclass(frozen=True, slots=True)
class Frontier:
    """What may follow the F distinct beginnings that rows have come to, a node each."""

    raw: Tensor  # `(F, V)`, the model's logits after each of them
    masked: Tensor  # `(F, V)`, the policy's
    nodes: Tensor  # `(B, R)`, which of them each row has come to; any for a row that has ended


class Strategy(Protocol):
    """A way of choosing the next token of its own rows.

    A strategy serves one call of `generate`; what it keeps is for the utterances still in the loop.
    """

    rows: int

    def begin(self, limits: Tensor, end: int, like: Tensor) -> None:
        """Prepare for B utterances, capped at `limits` `(B,)` tokens; `like` `(B, V)` has the prompt's logits."""

    def advance(self, step: int, frontier: Frontier) -> tuple[Tensor, Tensor | None]:
        """Choose the tokens at position `step` after the prompt, from 0.

        Returns:
            The rows' tokens `(B, rows)`, and the row that each goes on from, `(B, rows)`, or None if each from itself.
        """

    def going(self) -> Tensor:
        """`(B, rows)`, true for rows that need another token."""

    def keep(self, utterances: Tensor) -> None:
        """Go on with these utterances alone."""

    def result(self) -> Hypotheses:
        """The sequences of all the utterances that the loop began with."""


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
        norms, memory = norms.detach(), memory.detach()
        batch, start = prompt.shape
        device, dtype = prompt.device, weights.head.dtype
        longest = int(limits.max())

        # 1) Decode the prompts: one node an utterance, with which all its rows begin and which sees all of its prompt.
        cache = Cache.empty(weights, batch, start + 64)
        raw = prefill(weights, norms, memory, prompt, cache)
        nodes = torch.arange(batch, device=device).unsqueeze(1).expand(-1, sum(part.rows for part in strategies))
        visible = torch.zeros((batch, start), dtype=dtype, device=device)
        for strategy in strategies:
            strategy.begin(limits, policy.end, raw)

        for step in range(longest):
            # 2) Each strategy chooses a token for each of its rows. A row's branch is one number for the node that it
            # goes on from and the token that it goes on with.
            frontier = Frontier(raw, policy.mask_step(raw, first=step == 0), nodes)
            tokens, parents = _advance(strategies, step, frontier)
            going = torch.cat([strategy.going() for strategy in strategies], dim=1)
            branches = (parents * raw.shape[1] + tokens).masked_fill(~going, ENDED)

            # 3) Equal branches of an utterance will be one node.
            rank, counts = _distinct(branches)
            sizes = counts.tolist()  # the one time in a token that the host waits for the device
            alive = [utterance for utterance, size in enumerate(sizes) if size]
            if not alive or step + 1 == longest:
                break

            # 4) Utterances that have ended leave, once there are enough of them.
            if len(alive) <= COMPACTION * len(sizes):
                kept = torch.tensor(alive, device=device)
                for strategy in strategies:
                    strategy.keep(kept)
                cache.keep(alive)
                branches, rank, counts = branches[kept], rank[kept], counts[kept]
                sizes = [sizes[utterance] for utterance in alive]
                norms, memory = norms.index_select(0, kept), memory.keep(kept)

            # 5) The new nodes: their tokens and parents. Rows that have ended write behind the last node.
            layout = Layout.of(counts, sizes)
            total = len(layout.utterance)
            nodes = (layout.starts.unsqueeze(1) + rank).masked_fill(branches == ENDED, total)
            distinct = branches.new_empty(total + 1).scatter_(0, nodes.flatten(), branches.flatten())[:total]
            nodes = nodes.clamp(max=total - 1)
            parent, token = distinct.div(raw.shape[1], rounding_mode="floor"), distinct % raw.shape[1]

            # 6) Each new node sees in the cache what its parent saw, and itself.
            slots = cache.reserve(layout)
            known = min(cache.length, visible.shape[1])  # less than before where the longest utterance has left
            seen = visible.new_full((total, cache.length), -torch.inf)
            seen[:, :known] = visible[:, :known].index_select(0, parent)
            visible = seen.scatter_(1, slots.unsqueeze(1), 0.0)

            # 7) Decode them.
            grown = Nodes(token, torch.full_like(token, start + step), layout)
            hidden = decode(weights, norms, memory, grown, layout.pad(visible).unsqueeze(1), cache, slots)
            raw = logits(weights, hidden)
        return [strategy.result() for strategy in strategies]


def _advance(strategies: Sequence[Strategy], step: int, frontier: Frontier) -> tuple[Tensor, Tensor]:
    # Let each strategy choose for its rows; all rows' tokens, and the node that each goes on from, `(B, R)`.
    chosen, sources = [], []
    begin = 0
    for strategy in strategies:
        nodes = frontier.nodes[:, begin : begin + strategy.rows]
        tokens, parents = strategy.advance(step, Frontier(frontier.raw, frontier.masked, nodes))
        chosen.append(tokens)
        sources.append(nodes if parents is None else nodes.gather(1, parents))
        begin += strategy.rows
    return torch.cat(chosen, dim=1), torch.cat(sources, dim=1)


def _distinct(branches: Tensor) -> tuple[Tensor, Tensor]:
    """Number the distinct branches of each utterance, the smallest first.

    Args:
        branches: `(B, R)`, equal where two rows go on alike, `ENDED` for a row that has ended.

    Returns:
        The number of each row's branch, `(B, R)`; and how many distinct ones there are, `(B,)`, ended rows apart.
    """
    ordered, order = branches.sort(1)
    fresh = ordered < ENDED
    fresh[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    rank = torch.empty_like(order).scatter_(1, order, fresh.cumsum(1) - 1)
    return rank, fresh.sum(1)


class Rows:
    """R independent sequences of each of B utterances; a subclass chooses their tokens."""

    rows: int  # R
    utterances: Tensor  # `(b,)`, which of the B utterances are still in the loop
    limits: Tensor  # `(b,)`, their caps
    live: Tensor  # `(b, R)`, rows that have not ended

    def begin(self, limits: Tensor, end: int, like: Tensor) -> None:
        """Make room for B sequences of R rows, of at most `limits` `(B,)` tokens."""
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
        """Append `(b, R)` chosen tokens; returns them with the end token where a row had ended before."""
        tokens = tokens.where(self.live, self._end)
        self._tokens[step, self.utterances] = tokens
        self._mask[step, self.utterances] = self.live
        ends = self.live & (tokens == self._end)
        self._ended[self.utterances] |= ends
        self.live = self.live & ~ends & (step + 1 < self.limits).unsqueeze(1)
        return tokens

    def going(self) -> Tensor:
        """`(b, R)`, true for rows that still grow."""
        return self.live

    def keep(self, utterances: Tensor) -> None:
        """Go on with these utterances alone."""
        self.utterances = self.utterances[utterances]
        self.limits = self.limits[utterances]
        self.live = self.live[utterances]

    def result(self) -> Hypotheses:
        """The sequences, cut to the longest."""
        longest = int(self._mask.sum(0).max())
        tokens, mask = (kept[:longest].permute(1, 2, 0) for kept in (self._tokens, self._mask))
        return Hypotheses(tokens, mask, self._ended)


class Greedy(Rows):
    """One row an utterance, that takes the policy's most probable token and notes the policy's entropy there."""

    rows = 1

    def begin(self, limits: Tensor, end: int, like: Tensor) -> None:
        """Make room for one sequence an utterance, and its entropy."""
        super().begin(limits, end, like)
        self._entropy = like.new_zeros(len(limits))

    def advance(self, step: int, frontier: Frontier) -> tuple[Tensor, Tensor | None]:
        """Choose the most probable token."""
        masked = frontier.masked.index_select(0, frontier.nodes[:, 0])
        entropy = torch.special.entr(masked.softmax(-1)).sum(-1)
        self._entropy[self.utterances] += entropy.where(self.live[:, 0], 0.0)
        return self.write(step, masked.argmax(-1, keepdim=True)), None

    def result(self) -> Hypotheses:
        """The hypotheses with their mean entropy a token."""
        made = super().result()
        return replace(made, entropy=(self._entropy / made.mask.sum((1, 2))).unsqueeze(1))


class Sampled(Rows):
    """G rows an utterance, each drawn from the policy by noise of its own."""

    def __init__(self, keys: Tensor, candidates: int):
        """Draw `candidates` rows an utterance, by the noise of `keys` `(B,)`; see `Noise`."""
        self.rows = candidates
        self._keys = keys

    def begin(self, limits: Tensor, end: int, like: Tensor) -> None:
        """Make room for B sequences of G rows, and prepare their noise."""
        super().begin(limits, end, like)
        self._noise = Noise(self._keys, self.rows, like.shape[-1])

    def advance(self, step: int, frontier: Frontier) -> tuple[Tensor, Tensor | None]:
        """Draw a token for each row."""
        return self.write(step, draw(frontier.masked, frontier.nodes, self._noise.at(step))), None

    def keep(self, utterances: Tensor) -> None:
        """Go on with these utterances alone."""
        super().keep(utterances)
        self._noise.keep(utterances)
