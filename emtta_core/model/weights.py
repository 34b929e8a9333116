"""A model's frozen weights in one of four precisions, prepared once, and separately its LayerNorm parameters."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from emtta_core.errors import ModelError, UsageError, unknown

_lock = threading.RLock()
"""Held by the thread whose arithmetic settings torch currently has."""


@dataclass(frozen=True, slots=True)
class Precision:
    """How numbers are stored and multiplied."""

    name: str  # as users refer to it
    weights: torch.dtype  # of the frozen weights, and of what they are multiplied with
    sums: torch.dtype  # of LayerNorm, residuals, logits, entropies, losses and the optimizer
    tensor_float: bool = False  # whether a GPU may round the factors of float32 products to TF32's 10 bits

    @contextmanager
    def arithmetic(self, device: torch.device) -> Iterator[None]:
        """Set torch's process-wide arithmetic on a GPU to this precision inside the `with` block, then restore it.

        Threads take turns, as restoring it would change another's numbers; a GPU that one thread keeps busy would not
        speed up a second one.

        Attention does not use cuDNN, which torch prefers in bfloat16 on the newest GPUs: it spends tens of milliseconds
        or more planning for each new shape, and every token has a different shape.
        """
        if device.type != "cuda":
            yield
            return
        with _lock:
            # Not `allow_tf32`: torch refuses to read it in a program that has set TF32 with `fp32_precision`.
            backends: Any = torch.backends  # its attributes are created lazily, so the types lack them
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
"""All precisions by name."""


def choose_precision(name: str, device: torch.device) -> Precision:
    """Find a precision by its name.

    Raises:
        UsageError: if there is none, or the device does not support it.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, list(PRECISIONS))
    if name == "tf32" and device.type != "cuda":
        raise UsageError(f"precision 'tf32' needs a GPU, and the device is {str(device)!r}; use 'float32' there")
    return PRECISIONS[name]


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}
"""The activations that feed-forward blocks may have, by their name in a config."""


@dataclass(frozen=True, slots=True)
class Attention:
    """The projections of one attention block; the query's are multiplied by `head_dim ** -0.5`."""

    query: Tensor  # weight `(d, d)`; for self-attention query, key and value stacked, `(3d, d)`
    # Likewise `(d,)` or `(3d,)` (zeros for keys without a bias, as in Whisper); None if none has one.
    query_bias: Tensor | None
    memory: Tensor | None  # key and value weights for cross-attention, stacked `(2d, d)`; None for self-attention
    memory_bias: Tensor | None  # likewise `(2d,)`
    out: Tensor  # weight `(d, d)`
    out_bias: Tensor | None  # `(d,)`


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The two linear maps of a feed-forward block, `(f, d)` and `(d, f)`, and the activation between them."""

    up: Tensor  # `(2f, d)` if the activation uses half of its columns to gate the others
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
    embedding: Tensor  # `(V, d)`, the tokens' input embedding, scaled if the model scales it
    decoder_positions: Tensor | None  # `(T, d)`, added to the embedding; None if positions are rotary
    decoder_layers: tuple[DecoderLayer, ...]  # the decoder's layers
    head: Tensor  # `(V, d)`, the output projection (the embedding itself if the model ties them unscaled)
    # `(N, 2, d)`, each LayerNorm's weight and bias as trained, in the precision of sums; `(N, 1, d)` without biases.
    norms: Tensor
    norm_epsilon: float  # what LayerNorm adds to the variance
    # `(d / 2H,)`, radians per position by which rotary positions rotate each pair of a head's columns in
    # self-attention, 0 for a pair that is not rotated, in the precision of sums; None if positions are added.
    frequencies: Tensor | None = None

    @property
    def encoder_norms(self) -> int:
        """How many of the LayerNorms belong to the encoder; they come first."""
        return 2 * len(self.encoder_layers) + 1

    def tensors(self) -> Iterator[Tensor]:
        """Yield every tensor in a fixed order."""
        single = (self.embedding, self.decoder_positions, self.head, self.norms, self.frequencies)
        yield from (tensor for tensor in single if tensor is not None)
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
    """Extract the weights of a transformers model with LayerNorm before each block, such as Whisper.

    Its parts must have the same names as in Whisper: `model.encoder.layers.0.self_attn.q_proj` and so on. A family with
    other names builds its own `Weights`.

    Args:
        model: the model as loaded by transformers; it is not changed.
        device: the device of the weights.
        precision: the precision they are cast to.
        head: the name of the output projection.
        scale: the factor of the tokens' embedding.
        positions: `(T, d)`, the decoder's positions; None: its `embed_positions`.

    Raises:
        ModelError: for an unsupported activation.
    """
    if model.config.activation_function not in ACTIVATIONS:
        raise ModelError(
            f"the model has the activation {model.config.activation_function!r}; supported: {', '.join(ACTIVATIONS)}"
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
        # Scale queries once, here, instead of scores in each pass: (q/√h)·k equals (q·k)/√h.
        shrink = (width // heads) ** -0.5
        query, query_bias = (cast(state[f"{prefix}.q_proj.{part}"] * shrink) for part in ("weight", "bias"))
        key = cast(state[f"{prefix}.k_proj.weight"])
        value, value_bias = pair(f"{prefix}.v_proj")
        # Whisper's keys have no bias, which changes no softmax; Speech2Text's have one.
        bias = state.get(f"{prefix}.k_proj.bias")
        key_bias = torch.zeros_like(value_bias) if bias is None else cast(bias)
        # Keys and values are computed in one product, in self-attention the queries as well. Cross-attention's queries
        # come from another sequence, so they stay separate.
        memory, memory_bias = torch.cat([key, value]), torch.cat([key_bias, value_bias])
        out = pair(f"{prefix}.out_proj")
        if cross:
            return Attention(query, query_bias, memory, memory_bias, *out)
        return Attention(torch.cat([query, memory]), torch.cat([query_bias, memory_bias]), None, None, *out)

    encoder, decoder = "model.encoder", "model.decoder"
    encoder_heads, decoder_heads = int(config.encoder_attention_heads), int(config.decoder_attention_heads)
    # 1) The layers. `norm_names` has the LayerNorms in the order of a pass: the encoder's first, and the final norm of
    # each half after its layers. `Weights.norms` and all parameters `(B, P)` rely on it.
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
    # 2) The LayerNorms, which are adapted, separately and in the precision of sums.
    norms = [torch.stack([state[f"{name}.weight"], state[f"{name}.bias"]]) for name in norm_names]
    embedding = cast(state[f"{decoder}.embed_tokens.weight"] * scale)
    # 3) The embedding, and the head, which is the same tensor in most models: one copy suffices unless it is scaled.
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
