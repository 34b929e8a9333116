"""The forward pass as functions of frozen weights and of LayerNorm parameters that each utterance has of its own.

It is that of every encoder and decoder with LayerNorm before each block, as Whisper is; what comes before the encoder's
layers is the family's own (`emtta_core.model.family`).

The decoder works on *nodes*: a node is one token in its context. An utterance's nodes form a tree that grows from its
prompt, so candidates with a common beginning share the nodes of that beginning, and the cross-attention keys and
values, made once an utterance, serve every node. A visibility mask says which nodes each node attends to: its
ancestors and itself. The same function thus runs the prompt, one step of a token loop with its cache, and the whole
tree of candidates at once.

Shapes: B utterances, S encoder positions, F nodes in all, N at most in one utterance, M nodes to attend to, H heads,
d width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from emtta_core.model.layout import Layout
from emtta_core.model.weights import Attention, FeedForward, Weights


class Norms(NamedTuple):
    """Every LayerNorm's weight and bias, one set an utterance, in the order of `Weights`.

    Attributes:
        encoder: `(B, K, 2, d)`, of the encoder.
        decoder: likewise, of the decoder.
    """

    encoder: Tensor
    decoder: Tensor


@dataclass(frozen=True, slots=True)
class Memory:
    """What the decoder hears of the encoder's output.

    Attributes:
        layers: cross-attention keys and values, `(B, H, S, d / H)` each, of every decoder layer.
        audible: `(B, 1, 1, S)`, added to the attention logits: 0 where there is sound, -inf where there is padding;
            None where there is sound everywhere.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    audible: Tensor | None = None

    def keep(self, utterances: Tensor) -> "Memory":
        """Return the memory of these utterances alone."""
        layers = tuple(
            (keys.index_select(0, utterances), values.index_select(0, utterances)) for keys, values in self.layers
        )
        return Memory(layers, None if self.audible is None else self.audible.index_select(0, utterances))

    def detach(self) -> "Memory":
        """Return the same without a gradient."""
        return Memory(tuple((keys.detach(), values.detach()) for keys, values in self.layers), self.audible)


@dataclass(frozen=True, slots=True)
class Nodes:
    """Tokens in their contexts.

    Attributes:
        tokens: `(F,)`, each node's token.
        positions: `(F,)`, its position in its sequence, the prompt's first token being 0.
        layout: whose they are.
    """

    tokens: Tensor
    positions: Tensor
    layout: Layout


@dataclass(slots=True)
class Cache:
    """Keys and values of the nodes decoded so far, with room for more.

    Attributes:
        layers: for each decoder layer `(B, room, 2d)`, keys before values. Places not used are zero: an attention
            weight of zero must not meet a number that is not finite.
        used: `(B,)`, places used by each utterance.
        sizes: the same numbers, known to the host.
    """

    layers: list[Tensor]
    used: Tensor
    sizes: list[int]

    @classmethod
    def empty(cls, weights: Weights, batch: int, room: int) -> "Cache":
        """Return a cache with room for `room` nodes of each of `batch` utterances."""
        head = weights.head
        layers = [head.new_zeros((batch, room, 2 * weights.width)) for _ in weights.decoder_layers]
        return cls(layers, torch.zeros(batch, dtype=torch.long, device=head.device), [0] * batch)

    @property
    def length(self) -> int:
        """The most places that an utterance uses."""
        return max(self.sizes)

    def reserve(self, layout: Layout) -> Tensor:
        """Take a place for every node, and return the places `(F,)`, each in its own utterance."""
        places = self.used.index_select(0, layout.utterance) + layout.rank
        self.used = self.used + layout.counts
        self.sizes = [used + new for used, new in zip(self.sizes, layout.sizes, strict=True)]
        while self.length > self.layers[0].shape[1]:
            self.layers = [F.pad(layer, (0, 0, 0, layer.shape[1])) for layer in self.layers]
        return places

    def write(self, number: int, utterance: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        """Put keys and values `(F, 2d)` of a layer in their places, and return all its `(B, length, 2d)`."""
        layer = self.layers[number]
        layer[utterance, places] = rows
        return layer[:, : self.length]

    def keep(self, utterances: Sequence[int]) -> None:
        """Keep these utterances alone."""
        kept = torch.tensor(utterances, device=self.used.device)
        self.layers = [layer.index_select(0, kept) for layer in self.layers]
        self.used = self.used.index_select(0, kept)
        self.sizes = [self.sizes[utterance] for utterance in utterances]


def encode(weights: Weights, norms: Tensor, x: Tensor, audible: Tensor | None = None) -> Tensor:
    """Run the encoder's layers over what enters them.

    Args:
        weights: the frozen weights.
        norms: the encoder's LayerNorms, `(B, K, 2, d)`.
        x: `(B, S, d)`.
        audible: as in `Memory`.
    """
    wide = _pairs(norms.unsqueeze(3))
    heads = weights.encoder_heads
    for number, layer in enumerate(weights.encoder_layers):
        block = layer.attention
        qkv = F.linear(normalize(weights, wide[2 * number], x), block.query, block.query_bias)
        query, keys, values = qkv.chunk(3, dim=-1)
        x = x + project(block, attend(_heads(query, heads), _heads(keys, heads), _heads(values, heads), audible))
        x = x + feed_forward(weights, layer.feed_forward, normalize(weights, wide[2 * number + 1], x))
    return normalize(weights, wide[-1], x)


def cross_memory(weights: Weights, encoded: Tensor, audible: Tensor | None = None) -> Memory:
    """Return each decoder layer's cross-attention keys and values of the encoder's output `(B, S, d)`."""
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
    places: Tensor | None = None,
) -> Tensor:
    """Return the decoder's hidden states `(F, d)`, after its last LayerNorm.

    Args:
        weights: the frozen weights.
        norms: the decoder's LayerNorms, `(B, K, 2, d)`.
        memory: from `cross_memory`.
        nodes: F tokens in their contexts.
        visible: `(B, 1, N, M)` or what broadcasts to it, added to the attention logits: 0 where a node sees another,
            -inf where not; without a cache M is N.
        cache: if given, the nodes' keys and values are put there, and nodes attend to all that is there.
        places: `(F,)`, where in the cache, from `Cache.reserve`.
    """
    layout, heads, width = nodes.layout, weights.decoder_heads, weights.width
    rows = layout.utterance
    own = _pairs(norms)
    x = F.embedding(nodes.tokens, weights.embedding) + F.embedding(nodes.positions, weights.decoder_positions)
    x = x.to(weights.norms.dtype)
    for number, layer in enumerate(weights.decoder_layers):
        block = layer.attention
        qkv = F.linear(normalize(weights, _of_nodes(layout, own[3 * number]), x), block.query, block.query_bias)
        if cache is None or places is None:
            query, keys, values = layout.pad(qkv).chunk(3, dim=-1)
        else:
            query = layout.pad(qkv[:, :width])
            keys, values = cache.write(number, rows, places, qkv[:, width:]).chunk(2, dim=-1)
        seen = attend(_heads(query, heads), _heads(keys, heads), _heads(values, heads), visible)
        x = x + project(block, layout.pack(seen))
        block = layer.cross_attention
        query = F.linear(normalize(weights, _of_nodes(layout, own[3 * number + 1]), x), block.query, block.query_bias)
        heard = attend(_heads(layout.pad(query), heads), *memory.layers[number], memory.audible)
        x = x + project(block, layout.pack(heard))
        x = x + feed_forward(weights, layer.feed_forward, normalize(weights, _of_nodes(layout, own[3 * number + 2]), x))
    return normalize(weights, _of_nodes(layout, own[-1]), x)


def logits(weights: Weights, hidden: Tensor) -> Tensor:
    """Return the logits `(..., V)` of hidden states `(..., d)`, not masked by any policy."""
    return F.linear(hidden, weights.head).to(weights.norms.dtype)


def normalize(weights: Weights, norm: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    """LayerNorm of `x` `(..., d)` with a weight and a bias that broadcast to it, ready to be multiplied."""
    weight, bias = norm
    normal = torch.addcmul(bias, F.layer_norm(x, (weights.width,), eps=weights.norm_epsilon), weight)
    return normal.to(weights.head.dtype)


def feed_forward(weights: Weights, block: FeedForward, x: Tensor) -> Tensor:
    """Return the feed-forward block's output for its normalized input."""
    return F.linear(weights.activation(F.linear(x, block.up, block.up_bias)), block.down, block.down_bias)


def attend(query: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
    """Attend from queries `(B, H, N, d / H)`, already scaled; returns `(B, N, d)`."""
    out = F.scaled_dot_product_attention(query, keys, values, attn_mask=visible, scale=1.0)
    return out.transpose(1, 2).flatten(2)


def project(block: Attention, x: Tensor) -> Tensor:
    """Return the output projection of what was attended to."""
    return F.linear(x, block.out, block.out_bias)


def _pairs(norms: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the weight and the bias of each LayerNorm of `(X, K, 2, ...)`, in one call for the gradient."""
    pieces = norms.flatten(1, 2).unbind(1)
    return list(zip(pieces[::2], pieces[1::2], strict=True))


def _of_nodes(layout: Layout, norm: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return each node's weight and bias, `(F, d)`, of a LayerNorm of which each utterance has its own, `(B, d)`."""
    weight, bias = norm
    return weight.index_select(0, layout.utterance), bias.index_select(0, layout.utterance)


def _heads(x: Tensor, heads: int) -> Tensor:
    """Split `(B, N, d)` into heads, `(B, H, N, d / H)`, without a copy."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)
