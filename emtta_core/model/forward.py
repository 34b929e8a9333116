"""Whisper's forward pass as functions of frozen weights and of LayerNorm parameters that each utterance has of its own.

The decoder works on *nodes*: a node is one token in its context. An utterance's nodes form a tree that grows from its
prompt, so candidates with a common beginning share the nodes of that beginning, and the cross-attention keys and
values, made once an utterance, serve every node. A visibility mask says which nodes each node attends to: its
ancestors and itself. The same function thus runs the prompt, one step of a token loop with its cache, and the whole
tree of candidates at once.

Shapes: B utterances, S encoder positions, N nodes an utterance, M nodes to attend to, H heads, d width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from emtta_core.model.weights import Attention, FeedForward, Weights

Norms = Sequence[tuple[Tensor, Tensor]]
"""The weight and bias, `(B, d)` each, of every LayerNorm, in the order of `Weights`."""

Memory = tuple[tuple[Tensor, Tensor], ...]
"""Cross-attention keys and values, `(B, H, S, d / H)` each, of every decoder layer."""


@dataclass(slots=True)
class Cache:
    """Keys and values of the nodes decoded so far, with room for more.

    Attributes:
        layers: for each decoder layer `(B, room, 2d)`, keys before values.
        length: nodes in it.
    """

    layers: list[Tensor]
    length: int = 0

    @classmethod
    def empty(cls, weights: Weights, batch: int, room: int) -> "Cache":
        """Return a cache with room for `room` nodes of each of `batch` utterances."""
        shape = (batch, room, 2 * weights.width)
        return cls([weights.head.new_empty(shape) for _ in weights.decoder_layers])

    def append(self, layer: int, rows: Tensor) -> Tensor:
        """Put the keys and values `(B, N, 2d)` behind those of a layer, and return all, `(B, length + N, 2d)`."""
        stop = self.length + rows.shape[1]
        kept = self.layers[layer]
        if stop > kept.shape[1]:
            kept = torch.cat([kept, torch.empty_like(kept)], dim=1)
            self.layers[layer] = kept
        kept[:, self.length : stop] = rows
        return kept[:, :stop]

    def select(self, rows: Tensor) -> None:
        """Keep the utterances `rows` alone."""
        self.layers = [layer.index_select(0, rows) for layer in self.layers]


def stem(weights: Weights, mel: Tensor) -> Tensor:
    """Return what enters the encoder's layers, `(B, S, d)`, for log-mel features `(B, M, 2S)`.

    It has no LayerNorm, so it is the same in every step of an episode.
    """
    x = F.gelu(F.conv1d(mel, *weights.conv1, padding=1))
    x = F.gelu(F.conv1d(x, *weights.conv2, stride=2, padding=1))
    return x.transpose(1, 2) + weights.encoder_positions


def encode(weights: Weights, norms: Norms, x: Tensor) -> Tensor:
    """Run the encoder's layers over the stem's output; `(B, S, d)` to `(B, S, d)`."""
    index = 0
    for layer in weights.encoder_layers:
        x = x + self_attend(layer.attention, weights.encoder_heads, normalise(weights, norms[index], x))
        x = x + feed_forward(layer.feed_forward, normalise(weights, norms[index + 1], x))
        index += 2
    return normalise(weights, norms[index], x)


def cross_memory(weights: Weights, encoded: Tensor) -> Memory:
    """Return each decoder layer's cross-attention keys and values of the encoder's output `(B, S, d)`."""
    memory = []
    for layer in weights.decoder_layers:
        block = layer.cross_attention
        assert block.memory is not None
        keys, values = F.linear(encoded, block.memory, block.memory_bias).chunk(2, dim=-1)
        memory.append((_heads(keys, weights.decoder_heads), _heads(values, weights.decoder_heads)))
    return tuple(memory)


def decode(
    weights: Weights,
    norms: Norms,
    memory: Memory,
    tokens: Tensor,
    positions: Tensor,
    visible: Tensor,
    cache: Cache | None = None,
) -> Tensor:
    """Return the decoder's hidden states `(B, N, d)`, after its last LayerNorm, of N nodes an utterance.

    Args:
        weights: the frozen weights.
        norms: LayerNorm parameters; those of the encoder are skipped.
        memory: from `cross_memory`.
        tokens: `(B, N)`, each node's token.
        positions: `(B, N)` or `(N,)`, each node's position in its sequence, the prompt's first token being 0.
        visible: `(B, 1, N, M)` or what broadcasts to it, added to the attention logits: 0 where a node sees another,
            -inf where not; M counts the nodes in the cache before these.
        cache: if given, these nodes' keys and values are put behind those in it.
    """
    heads = weights.decoder_heads
    index = weights.encoder_norms
    x = F.embedding(tokens, weights.embedding) + F.embedding(positions, weights.decoder_positions)
    for number, layer in enumerate(weights.decoder_layers):
        block = layer.attention
        qkv = F.linear(normalise(weights, norms[index], x), block.query, block.query_bias)
        query, rows = qkv[..., : weights.width], qkv[..., weights.width :]
        if cache is not None:
            rows = cache.append(number, rows)
        keys, values = rows.chunk(2, dim=-1)
        x = x + attend(block, _heads(query, heads), _heads(keys, heads), _heads(values, heads), visible)
        block = layer.cross_attention
        query = F.linear(normalise(weights, norms[index + 1], x), block.query, block.query_bias)
        x = x + attend(block, _heads(query, heads), *memory[number])
        x = x + feed_forward(layer.feed_forward, normalise(weights, norms[index + 2], x))
        index += 3
    if cache is not None:
        cache.length += tokens.shape[1]
    return normalise(weights, norms[index], x)


def logits(weights: Weights, hidden: Tensor) -> Tensor:
    """Return the logits `(..., V)` of hidden states `(..., d)`, not masked by any policy."""
    return F.linear(hidden, weights.head)


def normalise(weights: Weights, norm: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    """LayerNorm of `x` `(B, N, d)` with a weight and a bias `(B, d)` for each utterance."""
    weight, bias = norm
    plain = F.layer_norm(x, (weights.width,), eps=weights.norm_epsilon)
    return torch.addcmul(bias.unsqueeze(1), plain, weight.unsqueeze(1))


def feed_forward(block: FeedForward, x: Tensor) -> Tensor:
    """Return the feed-forward block's output for its normalised input."""
    return F.linear(F.gelu(F.linear(x, block.up, block.up_bias)), block.down, block.down_bias)


def self_attend(block: Attention, heads: int, x: Tensor) -> Tensor:
    """Return the output of attention of all positions to all, for its normalised input `(B, N, d)`."""
    query, keys, values = F.linear(x, block.query, block.query_bias).chunk(3, dim=-1)
    return attend(block, _heads(query, heads), _heads(keys, heads), _heads(values, heads))


def attend(block: Attention, query: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
    """Attend from queries `(B, H, N, d / H)`, already scaled, and project; returns `(B, N, d)`."""
    out = F.scaled_dot_product_attention(query, keys, values, attn_mask=visible, scale=1.0)
    return F.linear(out.transpose(1, 2).flatten(2), block.out, block.out_bias)


def _heads(x: Tensor, heads: int) -> Tensor:
    """Split `(B, N, d)` into heads, `(B, H, N, d / H)`, without a copy."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)
