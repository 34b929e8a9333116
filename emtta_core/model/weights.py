"""A model's frozen weights in one of four precisions, prepared once, and its LayerNorm parameters apart."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from emtta_core.errors import ModelError, UsageError, unknown

_turns = threading.RLock()
"""Whose thread's choice of arithmetic torch has."""


@dataclass(frozen=True, slots=True)
class Precision:
    """How numbers are kept and multiplied."""

    name: str  # what users call it
    weights: torch.dtype  # of the frozen weights, and of what they are multiplied with
    sums: torch.dtype  # of LayerNorm, residuals, logits, entropies, losses and the optimizer
    tensor_float: bool = False  # whether a GPU may round the factors of float32 products to TF32's 10 bits

    @contextmanager
    def arithmetic(self, device: torch.device) -> Iterator[None]:
        """Multiply on a GPU as this precision says; torch keeps that for the whole process, so it is put back after.

        Threads take turns: what one put back would change another's numbers. A GPU that one thread keeps busy gives a
        second one nothing.

        Attention is not left to cuDNN, which torch prefers in bfloat16 on the newest GPUs: it plans anew for every
        shape that it has not seen, for tens of milliseconds and more, and every token has a shape of its own.
        """
        if device.type != "cuda":
            yield
            return
        with _turns:
            # Not `allow_tf32`: torch refuses to read it in a program that has chosen TF32 by `fp32_precision`.
            backends: Any = torch.backends  # torch makes what is in there as it is asked for, and types leave it out
            matmul, convolution = backends.cuda.matmul, backends.cudnn.conv
            before = matmul.fp32_precision, convolution.fp32_precision
            attention = backends.cuda.cudnn_sdp_enabled()
            matmul.fp32_precision = convolution.fp32_precision = "tf32" if self.tensor_float else "ieee"
            backends.cuda.enable_cudnn_sdp(False)
            try:
                yield
            finally:
                matmul.fp32_precision, convolution.fp32_precision = before
                backends.cuda.enable_cudnn_sdp(attention)


PRECISIONS: dict[str, Precision] = {
    precision.name: precision
    for precision in (
        Precision("float32", torch.float32, torch.float32),
        Precision("float64", torch.float64, torch.float64),
        Precision("tf32", torch.float32, torch.float32, tensor_float=True),
        Precision("bf16", torch.bfloat16, torch.float32),
    )
}
"""Every precision there is."""


def choose_precision(name: str, device: torch.device) -> Precision:
    """Find a precision by its name.

    Raises:
        UsageError: if there is none, or the device does not have it.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, list(PRECISIONS))
    if name == "tf32" and device.type != "cuda":
        raise UsageError(f"precision 'tf32' is a GPU's, and the device is {str(device)!r}; use 'float32' there")
    return PRECISIONS[name]


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}
"""The activations that feed-forward blocks may have, by the name that a config gives them."""


@dataclass(frozen=True, slots=True)
class Attention:
    """The projections of one attention block; the query's are multiplied by `head_dim ** -0.5`."""

    query: Tensor  # weight `(d, d)`; for self-attention query, key and value stacked, `(3d, d)`
    # Likewise `(d,)` or `(3d,)` (zeros for keys without a bias, as Whisper's); None where nothing has one.
    query_bias: Tensor | None
    memory: Tensor | None  # key and value weights for cross-attention, stacked `(2d, d)`; None for self-attention
    memory_bias: Tensor | None  # likewise `(2d,)`
    out: Tensor  # weight `(d, d)`
    out_bias: Tensor | None  # `(d,)`


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The two linear maps of a feed-forward block, `(f, d)` and `(d, f)`, and what lies between them."""

    up: Tensor  # `(2f, d)` where the activation takes half of its columns to gate the others
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor
    activation: Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class EncoderLayer:
    """One encoder layer without its two LayerNorms."""

    attention: Attention
    feed_forward: FeedForward


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """One decoder layer without its three LayerNorms."""

    attention: Attention
    cross_attention: Attention
    feed_forward: FeedForward


@dataclass(frozen=True, slots=True)
class Weights:
    """All frozen tensors from the encoder's first LayerNorm to the output projection.

    LayerNorms are counted in the order of the forward pass: two for each encoder layer (before attention, before the
    feed-forward block) and one after the last; three for each decoder layer (before self-attention, before
    cross-attention, before the feed-forward block) and one after the last.
    """

    width: int  # d, the model's width
    encoder_heads: int  # attention heads in the encoder
    decoder_heads: int  # attention heads in the decoder
    encoder_layers: tuple[EncoderLayer, ...]  # the encoder's layers
    embedding: Tensor  # `(V, d)`, the tokens' input embedding, scaled where the model scales it
    decoder_positions: Tensor | None  # `(T, d)`, added to the embedding; None where positions are rotary
    decoder_layers: tuple[DecoderLayer, ...]  # the decoder's layers
    head: Tensor  # `(V, d)`, the output projection (the embedding itself where the model ties them unscaled)
    # `(N, 2, d)`, each LayerNorm's weight and bias as trained, in the precision of sums; `(N, 1, d)` without biases.
    norms: Tensor
    norm_epsilon: float  # what LayerNorm adds to the variance
    # `(d / 2H,)`, radians a position by which rotary positions turn each pair of a head's columns in self-attention, 0
    # for a pair that they leave alone, in the precision of sums; None where positions are added.
    frequencies: Tensor | None = None

    @property
    def encoder_norms(self) -> int:
        """How many of the LayerNorms belong to the encoder; they come first."""
        return 2 * len(self.encoder_layers) + 1

    def tensors(self) -> Iterator[Tensor]:
        """Yield every tensor, in a fixed order."""
        alone = (self.embedding, self.decoder_positions, self.head, self.norms, self.frequencies)
        yield from (tensor for tensor in alone if tensor is not None)
        for encoder_layer in self.encoder_layers:
            yield from _block_tensors(encoder_layer.attention, encoder_layer.feed_forward)
        for layer in self.decoder_layers:
            yield from _block_tensors(layer.attention, layer.cross_attention, layer.feed_forward)


def prepare(
    model: Any,
    *,
    device: torch.device,
    precision: Precision,
    head: str = "proj_out",
    scale: float = 1.0,
    positions: Tensor | None = None,
) -> Weights:
    """Take the weights out of a model of transformers with LayerNorm before each block, as Whisper is.

    Its parts must have the names that transformers gives them there: `model.encoder.layers.0.self_attn.q_proj` and so
    on. Of a family that calls them otherwise, its file fills in a `Weights` by itself.

    Args:
        model: the model as transformers loads it; it is not changed.
        device: where the weights go.
        precision: what they are cast to.
        head: what the output projection is called.
        scale: what the tokens' embedding is multiplied with before it enters the decoder.
        positions: `(T, d)`, the decoder's positions; None: they are its `embed_positions`.

    Raises:
        ModelError: for an activation that is not known.
    """
    if model.config.activation_function not in ACTIVATIONS:
        raise ModelError(
            f"the model has the activation {model.config.activation_function!r}; known are: {', '.join(ACTIVATIONS)}"
        )
    state = {name: tensor.detach().to(device, precision.sums) for name, tensor in model.state_dict().items()}
    config = model.config
    width = int(config.d_model)

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(precision.weights)

    def pair(prefix: str) -> tuple[Tensor, Tensor]:
        return cast(state[f"{prefix}.weight"]), cast(state[f"{prefix}.bias"])

    def feed_forward(prefix: str) -> FeedForward:
        activation = ACTIVATIONS[config.activation_function]
        return FeedForward(*pair(f"{prefix}.fc1"), *pair(f"{prefix}.fc2"), activation)

    def attention(prefix: str, heads: int, *, cross: bool) -> Attention:
        # Scaled queries once, here, in place of scaled scores in each pass: (q/√h)·k equals (q·k)/√h.
        shrink = (width // heads) ** -0.5
        query, query_bias = (cast(state[f"{prefix}.q_proj.{part}"] * shrink) for part in ("weight", "bias"))
        key = cast(state[f"{prefix}.k_proj.weight"])
        value, value_bias = pair(f"{prefix}.v_proj")
        # Whisper's keys have no bias, which changes no softmax; Speech2Text's have one.
        bias = state.get(f"{prefix}.k_proj.bias")
        key_bias = torch.zeros_like(value_bias) if bias is None else cast(bias)
        # Keys and values in one product; in self-attention the queries as well. Cross-attention's queries come from
        # another sequence, so they stay apart.
        memory, memory_bias = torch.cat([key, value]), torch.cat([key_bias, value_bias])
        out = pair(f"{prefix}.out_proj")
        if cross:
            return Attention(query, query_bias, memory, memory_bias, *out)
        return Attention(torch.cat([query, memory]), torch.cat([query_bias, memory_bias]), None, None, *out)

    encoder, decoder = "model.encoder", "model.decoder"
    encoder_heads, decoder_heads = int(config.encoder_attention_heads), int(config.decoder_attention_heads)
    # 1) The layers. `norm_names` has the LayerNorms in the order of a pass: the encoder's first, and the last norm of
    # each half behind its layers. `Weights.norms` and every `(B, P)` of parameters rely on it.
    norm_names: list[str] = []
    encoder_layers = []
    for index in range(config.encoder_layers):
        prefix = f"{encoder}.layers.{index}"
        norm_names += [f"{prefix}.self_attn_layer_norm", f"{prefix}.final_layer_norm"]
        block = attention(f"{prefix}.self_attn", encoder_heads, cross=False)
        encoder_layers.append(EncoderLayer(block, feed_forward(prefix)))
    norm_names.append(f"{encoder}.layer_norm")
    decoder_layers = []
    for index in range(config.decoder_layers):
        prefix = f"{decoder}.layers.{index}"
        norm_names += [f"{prefix}.{part}_layer_norm" for part in ("self_attn", "encoder_attn", "final")]
        block = attention(f"{prefix}.self_attn", decoder_heads, cross=False)
        cross_block = attention(f"{prefix}.encoder_attn", decoder_heads, cross=True)
        decoder_layers.append(DecoderLayer(block, cross_block, feed_forward(prefix)))
    norm_names.append(f"{decoder}.layer_norm")
    # 2) The LayerNorms apart from the rest, at the precision of sums: they are what is adapted.
    norms = [torch.stack([state[f"{name}.weight"], state[f"{name}.bias"]]) for name in norm_names]
    embedding = cast(state[f"{decoder}.embed_tokens.weight"] * scale)
    # 3) The embedding, and the head that is the same tensor in most models: one copy of it then, unless it is scaled.
    tied = model.get_submodule(head).weight is model.get_submodule(f"{decoder}.embed_tokens").weight
    if positions is None:
        positions = state[f"{decoder}.embed_positions.weight"]
    return Weights(
        width=width,
        encoder_heads=encoder_heads,
        decoder_heads=decoder_heads,
        encoder_layers=tuple(encoder_layers),
        embedding=embedding,
        decoder_positions=cast(positions.to(device)),
        decoder_layers=tuple(decoder_layers),
        head=embedding if tied and scale == 1.0 else cast(state[f"{head}.weight"]),
        norms=torch.stack(norms),
        norm_epsilon=float(model.get_submodule(f"{decoder}.layer_norm").eps),
    )


def _block_tensors(*blocks: Attention | FeedForward) -> Iterator[Tensor]:
    # The tensors of attention and feed-forward blocks, in the order of their fields.
    for block in blocks:
        for name in block.__slots__:
            tensor = getattr(block, name)
            if isinstance(tensor, Tensor):
                yield tensor
