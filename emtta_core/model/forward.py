"""The forward pass as functions of frozen weights and each utterance's own LayerNorm parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from emtta_core.model.weights import Attention, FeedForward, Weights


@dataclass(frozen=True, slots=True)
class Layout:
    """F nodes of B utterances, sorted by utterance, no utterance with more than N."""

    sizes: Sequence[int]  # the number of nodes of each of the B utterances, on the host
    counts: Tensor  # `(B,)`, the same on the device
    starts: Tensor  # `(B,)`, each utterance's first node
    utterance: Tensor  # `(F,)`, the utterance of each node
    rank: Tensor  # `(F,)`, its index among its utterance's nodes
    slot: Tensor | None  # `(F,)`, its slot among the B · N padded ones; None if nothing is padded
    # `(B · N,)`, the node in each padded slot: its own, or in empty slots another of the same utterance, so that
    # invalid numbers of one utterance do not affect others.
    filler: Tensor

    @classmethod
    def of(cls, counts: Tensor, sizes: Sequence[int]) -> "Layout":
        """Lay out utterances with `counts` `(B,)` nodes; `sizes` are the same numbers on the host.

        With both given, nothing here waits for the device.
        """
        device, total, width = counts.device, sum(sizes), max(sizes)
        starts = counts.cumsum(0) - counts
        utterance = torch.repeat_interleave(counts, output_size=total)
        rank = torch.arange(total, device=device) - starts.index_select(0, utterance)
        inside = torch.arange(width, device=device).minimum((counts - 1).clamp(min=0).unsqueeze(1))
        filler = (starts.unsqueeze(1) + inside).flatten().clamp_(max=total - 1)
        slot = None if total == len(sizes) * width else utterance * width + rank
        return cls(sizes, counts, starts, utterance, rank, slot, filler)

    @property
    def batch(self) -> int:
        """B."""
        return len(self.sizes)

    @property
    def width(self) -> int:
        """N."""
        return max(self.sizes)

    def pad(self, rows: Tensor) -> Tensor:
        """Packed rows `(F, k)` as `(B, N, k)`."""
        if self.slot is not None:
            rows = rows.index_select(0, self.filler)
        return rows.view(self.batch, self.width, -1)

    def pack(self, padded: Tensor) -> Tensor:
        """The packed rows `(F, k)` of `(B, N, k)`."""
        rows = padded.reshape(self.batch * self.width, -1)
        return rows if self.slot is None else rows.index_select(0, self.slot)


class Norms(NamedTuple):
    """Every LayerNorm's weight and bias, one set per utterance, in the order of `Weights`."""

    encoder: Tensor  # `(B, K, 2, d)`, of the encoder; `(B, K, 1, d)` without biases
    decoder: Tensor  # likewise, of the decoder


@dataclass(frozen=True, slots=True)
class Memory:
    """What the decoder attends to: the encoder's output, as its layers see it."""

    # Cross-attention keys and values, `(B, H, S, d / H)` each, of every decoder layer.
    layers: tuple[tuple[Tensor, Tensor], ...]
    # `(B, 1, 1, S)`, added to the attention logits: 0 where there is sound, -inf where there is padding; None if there
    # is no padding.
    audible: Tensor | None = None

    def keep(self, utterances: Tensor) -> "Memory":
        """The memory of only these utterances."""
        layers = tuple(
            (keys.index_select(0, utterances), values.index_select(0, utterances)) for keys, values in self.layers
        )
        return Memory(layers, None if self.audible is None else self.audible.index_select(0, utterances))

    def detach(self) -> "Memory":
        """The same without a gradient."""
        return Memory(tuple((keys.detach(), values.detach()) for keys, values in self.layers), self.audible)


@dataclass(frozen=True, slots=True)
class Nodes:
    """Tokens in their contexts."""

    tokens: Tensor  # `(F,)`, each node's token
    positions: Tensor  # `(F,)`, its position in its sequence, 0 for the prompt's first token
    layout: Layout  # which utterances they belong to


@dataclass(slots=True)
class Cache:
    """Keys and values of the nodes decoded so far, with room for more."""

    # For each decoder layer `(B, room, 2d)`, keys before values. Unused slots are zero, as an attention weight of zero
    # must not be multiplied with a number that is not finite.
    layers: list[Tensor]
    used: Tensor  # `(B,)`, slots used by each utterance
    sizes: list[int]  # the same numbers on the host

    @classmethod
    def empty(cls, weights: Weights, batch: int, capacity: int) -> "Cache":
        """Allocate a cache for `capacity` nodes of each of `batch` utterances."""
        head = weights.head
        layers = [head.new_zeros((batch, capacity, 2 * weights.width)) for _ in weights.decoder_layers]
        return cls(layers, torch.zeros(batch, dtype=torch.long, device=head.device), [0] * batch)

    @property
    def length(self) -> int:
        """The maximum number of slots used by an utterance."""
        return max(self.sizes)

    def reserve(self, layout: Layout) -> Tensor:
        """Take a slot for every node: `(F,)`, each in its own utterance."""
        slots = self.used.index_select(0, layout.utterance) + layout.rank
        self.used = self.used + layout.counts
        self.sizes = [used + new for used, new in zip(self.sizes, layout.sizes, strict=True)]
        while self.length > self.layers[0].shape[1]:
            self.layers = [F.pad(layer, (0, 0, 0, layer.shape[1])) for layer in self.layers]
        return slots

    def write(self, number: int, utterance: Tensor, slots: Tensor, rows: Tensor) -> Tensor:
        """Write keys and values `(F, 2d)` of a layer to their slots; returns all of the layer's, `(B, length, 2d)`."""
        layer = self.layers[number]
        layer[utterance, slots] = rows
        return layer[:, : self.length]

    def keep(self, utterances: Sequence[int]) -> None:
        """Keep only these utterances."""
        kept = torch.tensor(utterances, device=self.used.device)
        self.layers = [layer.index_select(0, kept) for layer in self.layers]
        self.used = self.used.index_select(0, kept)
        self.sizes = [self.sizes[utterance] for utterance in utterances]


def encode(weights: Weights, norms: Tensor, x: Tensor, audible: Tensor | None = None) -> Tensor:
    """Run the encoder's layers on their input.

    Args:
        weights: the frozen weights.
        norms: the encoder's LayerNorms, `(B, K, 2, d)`.
        x: `(B, S, d)`.
        audible: as in `Memory`.
    """
    wide = _pairs(norms.unsqueeze(3))
    heads = weights.encoder_heads
    rotations = _rotations(weights, torch.arange(x.shape[1], device=x.device))
    for number, layer in enumerate(weights.encoder_layers):
        block = layer.attention
        qkv = F.linear(normalize(weights, wide[2 * number], x), block.query, block.query_bias)
        query, keys, values = _rotated(qkv, rotations).chunk(3, dim=-1)
        x = x + project(block, attend(_heads(query, heads), _heads(keys, heads), _heads(values, heads), audible))
        x = x + feed_forward(layer.feed_forward, normalize(weights, wide[2 * number + 1], x))
    return normalize(weights, wide[-1], x)


def cross_memory(weights: Weights, encoded: Tensor, audible: Tensor | None = None) -> Memory:
    """Compute each decoder layer's cross-attention keys and values from the encoder's output `(B, S, d)`."""
    layers = []
    for layer in weights.decoder_layers:
        block = layer.cross_attention
        assert block.memory is not None
        keys, values = F.linear(encoded, block.memory, block.memory_bias).chunk(2, dim=-1)
        layers.append((_heads(keys, weights.decoder_heads), _heads(values, weights.decoder_heads)))
    return Memory(tuple(layers), audible)


def decode(
    weights: Weights,
    norms: Tensor,
    memory: Memory,
    nodes: Nodes,
    visible: Tensor,
    cache: Cache | None = None,
    slots: Tensor | None = None,
) -> Tensor:
    """Compute the decoder's hidden states `(F, d)`, after its last LayerNorm.

    Args:
        weights: the frozen weights.
        norms: the decoder's LayerNorms, `(B, K, 2, d)`.
        memory: from `cross_memory`.
        nodes: F tokens in their contexts.
        visible: `(B, 1, N, M)`, or broadcastable to it, added to the attention logits: 0 where a node sees another,
            -inf elsewhere; without a cache M is N.
        cache: if given, the nodes' keys and values are written to it, and nodes attend to its content.
        slots: `(F,)`, their slots in the cache, from `Cache.reserve`.
    """
    layout, heads, width = nodes.layout, weights.decoder_heads, weights.width
    rows = layout.utterance
    layer_norms = _pairs(norms)
    rotations = _rotations(weights, nodes.positions)
    x = F.embedding(nodes.tokens, weights.embedding)
    if weights.decoder_positions is not None:
        x = x + F.embedding(nodes.positions, weights.decoder_positions)
    x = x.to(weights.norms.dtype)
    for number, layer in enumerate(weights.decoder_layers):
        block = layer.attention
        qkv = F.linear(normalize(weights, _of_nodes(layout, layer_norms[3 * number]), x), block.query, block.query_bias)
        qkv = _rotated(qkv, rotations)
        if cache is None or slots is None:
            query, keys, values = layout.pad(qkv).chunk(3, dim=-1)
        else:
            query = layout.pad(qkv[:, :width])
            keys, values = cache.write(number, rows, slots, qkv[:, width:]).chunk(2, dim=-1)
        attended = attend(_heads(query, heads), _heads(keys, heads), _heads(values, heads), visible)
        x = x + project(block, layout.pack(attended))
        block = layer.cross_attention
        query = F.linear(
            normalize(weights, _of_nodes(layout, layer_norms[3 * number + 1]), x), block.query, block.query_bias
        )
        attended = attend(_heads(layout.pad(query), heads), *memory.layers[number], memory.audible)
        x = x + project(block, layout.pack(attended))
        x = x + feed_forward(layer.feed_forward, normalize(weights, _of_nodes(layout, layer_norms[3 * number + 2]), x))
    return normalize(weights, _of_nodes(layout, layer_norms[-1]), x)


def prefill(weights: Weights, norms: Tensor, memory: Memory, prompt: Tensor, cache: Cache) -> Tensor:
    """Decode prompts `(B, P)` into an empty cache; returns the logits `(B, V)` after them."""
    batch, length = prompt.shape
    layout = Layout.of(prompt.new_full((batch,), length), [length] * batch)
    causal = torch.full((length, length), -torch.inf, dtype=weights.head.dtype, device=prompt.device).triu(1)
    nodes = Nodes(prompt.flatten(), layout.rank, layout)
    hidden = decode(weights, norms, memory, nodes, causal, cache, cache.reserve(layout))
    return logits(weights, hidden[length - 1 :: length])


def logits(weights: Weights, hidden: Tensor) -> Tensor:
    """The logits `(..., V)` of hidden states `(..., d)`, before masking by a policy."""
    return F.linear(hidden, weights.head).to(weights.norms.dtype)


Norm = tuple[Tensor, Tensor | None]
"""A LayerNorm's weight, and its bias or None."""


def normalize(weights: Weights, norm: Norm, x: Tensor) -> Tensor:
    """LayerNorm of `x` `(..., d)` with a broadcastable weight and bias, cast to the dtype of the frozen weights."""
    weight, bias = norm
    normal = F.layer_norm(x, (weights.width,), eps=weights.norm_epsilon)
    normal = normal * weight if bias is None else torch.addcmul(bias, normal, weight)
    return normal.to(weights.head.dtype)


def feed_forward(block: FeedForward, x: Tensor) -> Tensor:
    """The feed-forward block's output for its normalized input."""
    return F.linear(block.activation(F.linear(x, block.up, block.up_bias)), block.down, block.down_bias)


def attend(query: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
    """Attend with already scaled queries `(B, H, N, d / H)`; returns `(B, N, d)`."""
    out = F.scaled_dot_product_attention(query, keys, values, attn_mask=visible, scale=1.0)
    return out.transpose(1, 2).flatten(2)


def project(block: Attention, x: Tensor) -> Tensor:
    """The output projection of the attention's result."""
    return F.linear(x, block.out, block.out_bias)


def _pairs(norms: Tensor) -> list[Norm]:
    # The weight and the bias of each LayerNorm of `(X, K, 2, ...)`, in one differentiable call.
    pieces = norms.flatten(1, 2).unbind(1)
    if norms.shape[2] == 1:
        return [(weight, None) for weight in pieces]
    return list(zip(pieces[::2], pieces[1::2], strict=True))


def _of_nodes(layout: Layout, norm: Norm) -> Norm:
    # Each node's weight and bias, `(F, d)`, from each utterance's own, `(B, d)`.
    weight, bias = norm
    node_bias = None if bias is None else bias.index_select(0, layout.utterance)
    return weight.index_select(0, layout.utterance), node_bias


def _rotations(weights: Weights, positions: Tensor) -> tuple[Tensor, Tensor] | None:
    # `(X, 1, d / 2H)`, cosine and sine of the angles by which positions `(X,)` rotate the column pairs of each head.
    if weights.frequencies is None:
        return None
    angles = (positions.unsqueeze(1) * weights.frequencies).unsqueeze(1)
    return angles.cos().to(weights.head.dtype), angles.sin().to(weights.head.dtype)


def _rotated(qkv: Tensor, rotations: tuple[Tensor, Tensor] | None) -> Tensor:
    # Queries, keys and values `(..., X, 3d)`, the first two rotated: each pair of their columns is a point in a plane.
    if rotations is None:
        return qkv
    cos, sin = rotations
    rotating, values = qkv.tensor_split([qkv.shape[-1] // 3 * 2], dim=-1)
    x, y = rotating.reshape(*qkv.shape[:-1], -1, cos.shape[-1], 2).unbind(-1)
    return torch.cat([torch.stack([x * cos - y * sin, y * cos + x * sin], -1).flatten(-3), values], -1)


def _heads(x: Tensor, heads: int) -> Tensor:
    # Split `(B, N, d)` into heads, `(B, H, N, d / H)`, without a copy.
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class TokenTree:
    """The contexts in which the tokens of G candidates were chosen, each once.

    The nodes of an utterance are its P prompt tokens, then every distinct prefix of its candidates that is followed by
    another token. A context is a node whose next token some candidate chose: all but the prompt's first P - 1.
    """

    nodes: Nodes  # the F nodes
    # `(B, 1, N, N)`, 0 where the second node is the first or one of its ancestors, -inf elsewhere; padding sees the
    # prompt and is not seen by any node.
    visible: Tensor
    contexts: Tensor  # `(C,)`, which of the nodes are contexts
    first: Tensor  # `(C,)`, true for those followed by the first token after the prompt
    owner: Tensor  # `(B, G, T)`, the index of the context in which each token was chosen; 0 where masked


def grow(prompt: Tensor, candidates: Tensor, mask: Tensor, *, dtype: torch.dtype) -> TokenTree:
    """Build the tree of candidates.

    Args:
        prompt: `(B, P)`.
        candidates: `(B, G, T)`, the tokens after the prompt.
        mask: `(B, G, T)`, true up to and including a candidate's last token.
        dtype: of the visibility mask.
    """
    device = prompt.device
    batch, count, length = candidates.shape
    start = prompt.shape[1]

    # 1) Leaders: at each position, the first of the candidates that agree before it lends the others its node.
    # same[b, g, h, t]: candidates g and h agree before position t.
    agree = candidates.unsqueeze(2) == candidates.unsqueeze(1)
    same = torch.ones((batch, count, count, length), dtype=torch.bool, device=device)
    same[..., 1:] = agree[..., :-1].cummin(-1).values if length > 1 else same[..., 1:]
    same &= mask.unsqueeze(1)  # only a candidate that continues at t can lend its node
    leader = same.to(torch.uint8).argmax(2)  # (B, G, T)
    leads = mask & (leader == torch.arange(count, device=device).view(1, -1, 1))
    leads[..., 0] = False  # the token at 0 is chosen after the prompt, by its last node

    # 2) Nodes are numbered by position, then by candidate, after the prompt.
    by_time = leads.transpose(1, 2).reshape(batch, -1)
    number = (by_time.cumsum(1) - 1 + start).view(batch, length, count).transpose(1, 2)
    owner = number.gather(1, leader)
    owner[..., 0] = start - 1
    owner = owner.masked_fill(~mask, 0)
    counts = by_time.sum(1) + start
    sizes = counts.tolist()
    total = max(sizes)

    # 3) Their tokens and positions.
    tokens = prompt.new_zeros((batch, total))
    positions = prompt.new_zeros((batch, total))
    tokens[:, :start] = prompt
    positions[:, :start] = torch.arange(start, device=device)
    utterance, candidate, time = leads.nonzero(as_tuple=True)
    node = number[utterance, candidate, time]
    tokens[utterance, node] = candidates[utterance, candidate, time - 1]
    positions[utterance, node] = time + (start - 1)

    # 4) A node sees its ancestors: the prompt, and the owners of the earlier positions of its leading candidate.
    attends = torch.zeros((batch, total, total), dtype=torch.bool, device=device)
    attends[:, :start, :start] = torch.ones((start, start), dtype=torch.bool, device=device).tril()
    path = owner[utterance, candidate]  # (nodes, T)
    earlier = torch.arange(length, device=device) <= time.unsqueeze(1)
    path = torch.where(earlier, path, path[:, :1])
    attends[utterance.unsqueeze(1), node.unsqueeze(1), path] = True
    attends[:, start:, :start] = True
    visible = torch.zeros(attends.shape, dtype=dtype, device=device).masked_fill_(~attends, -torch.inf)

    # 5) Nodes and contexts are packed, utterance by utterance, and owners renumbered to index the contexts.
    exists = torch.zeros((batch, total), dtype=torch.bool, device=device)
    exists[:, :start] = True
    exists[utterance, node] = True
    contexts = exists.clone()
    contexts[:, : start - 1] = False
    packed = contexts[exists].nonzero().squeeze(1)
    context_index = (contexts.flatten().cumsum(0) - 1).view(batch, total)
    owner = context_index.gather(1, owner.flatten(1)).view_as(owner).masked_fill(~mask, 0)
    nodes = Nodes(tokens[exists], positions[exists], Layout.of(counts, sizes))
    return TokenTree(nodes, visible.unsqueeze(1), packed, nodes.positions[packed] == start - 1, owner)
