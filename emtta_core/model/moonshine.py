"""The family of Moonshine: convolutions over the waveform itself, rotary positions, and a gated decoder.

Source: Jeffries et al. 2024, "Moonshine: Speech Recognition for Live Transcription and Voice Commands",
arXiv:2410.15608, as transformers computes it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from emtta_core.errors import ModelError
from emtta_core.model.family import EncoderInput, Parts, PreparedModel, read_network
from emtta_core.model.model_files import check_complete
from emtta_core.model.policy import ANY_LANGUAGE, DecodingPolicy, Prompt
from emtta_core.model.weights import Attention, DecoderLayer, EncoderLayer, FeedForward, Precision, Weights

STRIDES = (64, 3, 2)
"""The strides of the three convolutions."""

TOKENS_PER_SECOND = 6.5
"""The rate by which its authors chose the decoder's 194 positions for their longest training samples, 30 s. Source: the
history of config.json in https://huggingface.co/UsefulSensors/moonshine-tiny."""


@dataclass(frozen=True, slots=True)
class MoonshineFrontEnd:
    """Three convolutions over each waveform separately, which is then padded, so that it does not depend on the others.

    Neither the convolutions nor rotary positions limit the length. The limit is chosen: the speech whose transcript
    fits in the decoder's positions, at `TOKENS_PER_SECOND`.
    """

    extractor: Any  # returns the samples `(N,)` of a waveform, normalized over the utterance if the model requires it
    convolutions: tuple[tuple[Tensor, Tensor | None], ...]  # weight and bias of each; the first has no bias
    norm: tuple[Tensor, Tensor]  # weight and bias of the GroupNorm after the first, with one group
    tokens: int  # the decoder's positions
    sums: torch.dtype  # the precision of the input of the encoder's layers

    @property
    def sample_rate(self) -> int:
        """The sample rate in Hz."""
        return int(self.extractor.sampling_rate)

    @property
    def shortest(self) -> int:
        """Samples from which the convolutions compute one position."""
        samples = 1
        for (weight, _), stride in reversed(list(zip(self.convolutions, STRIDES, strict=True))):
            samples = (samples - 1) * stride + weight.shape[-1]
        return samples

    @property
    def longest(self) -> int:
        """Samples of speech whose transcript fits in the decoder's positions."""
        return int((self.tokens + 1) / TOKENS_PER_SECOND * self.sample_rate)

    @property
    def positions(self) -> int:
        """The encoder's positions for the longest waveform."""
        count = self.longest
        for (weight, _), stride in zip(self.convolutions, STRIDES, strict=True):
            count = (count - weight.shape[-1]) // stride + 1
        return count

    def __call__(
        self, waveforms: Sequence[NDArray[np.floating[Any]]], *, device: torch.device, dtype: torch.dtype
    ) -> EncoderInput:
        """Compute the encoder's input for B mono waveforms, with a mask of their padding."""
        rows = []
        for waveform in waveforms:
            signal = self.extractor(np.asarray(waveform, np.float32), sampling_rate=self.sample_rate)["input_values"][0]
            rows.append(self.stem(torch.from_numpy(np.ascontiguousarray(signal)).to(device, dtype)))
        return EncoderInput.of(rows, dtype=self.norm[0].dtype)

    def stem(self, signal: Tensor) -> Tensor:
        """The input of the encoder's layers, `(S, d)`, for samples `(N,)`."""
        first, second, third = self.convolutions
        x = F.conv1d(signal.to(first[0].dtype).view(1, 1, -1), *first, stride=STRIDES[0]).tanh()
        x = F.gelu(F.conv1d(F.group_norm(x, 1, *self.norm), *second, stride=STRIDES[1]))
        x = F.gelu(F.conv1d(x, *third, stride=STRIDES[2]))
        return x.squeeze(0).T.contiguous().to(self.sums)

    def tensors(self) -> Iterator[Tensor]:
        """Yield its frozen tensors."""
        for pair in (*self.convolutions, self.norm):
            yield from (tensor for tensor in pair if tensor is not None)


class Moonshine:
    """Moonshine. Each published model transcribes one language, which is not part of its prompt."""

    model_type = "moonshine"

    def read(self, folder: Path) -> Parts:
        """Read a model's files."""
        from transformers import AutoTokenizer, MoonshineForConditionalGeneration, Wav2Vec2FeatureExtractor

        check_complete(folder)
        network = read_network(MoonshineForConditionalGeneration, folder)
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
        return Parts(network, extractor, AutoTokenizer.from_pretrained(folder, trust_remote_code=False))

    def make(self, name: str, parts: Parts, *, device: torch.device, precision: Precision) -> PreparedModel:
        """Prepare a model."""
        network, extractor, tokenizer = parts.network, parts.extractor, parts.tokenizer
        config, generation = network.config, network.generation_config
        _check(name, config, tokenizer)
        start = generation.decoder_start_token_id
        start = generation.bos_token_id if start is None else start
        if start is None:
            raise ModelError(
                f"model {name!r}: its generation config names no token that a transcript begins with; set "
                "decoder_start_token_id in generation_config.json"
            )
        encoder = network.get_submodule("model.encoder")

        def cast(tensor: Tensor) -> Tensor:
            return tensor.detach().to(device, precision.weights)

        return PreparedModel(
            weights=_weights(network, device, precision),
            front_end=MoonshineFrontEnd(
                extractor=extractor,
                convolutions=(
                    (cast(encoder.conv1.weight), None),
                    *((cast(layer.weight), cast(layer.bias)) for layer in (encoder.conv2, encoder.conv3)),
                ),
                norm=(cast(encoder.groupnorm.weight), cast(encoder.groupnorm.bias)),
                tokens=int(config.max_position_embeddings),
                sums=precision.sums,
            ),
            policy=DecodingPolicy.of(generation, config, device=device, dtype=precision.sums),
            prompt=Prompt({ANY_LANGUAGE: (int(start),)}),
            settings={
                "heads": config.num_attention_heads,
                "positions": [config.max_position_embeddings, config.rope_parameters],
                "features": extractor.to_dict(),
                "start": start,
                "end": generation.eos_token_id,
                "suppress": [generation.suppress_tokens, generation.begin_suppress_tokens],
                "vocabulary": tokenizer.get_vocab(),
            },
        )


FAMILY = Moonshine()


def _check(name: str, config: Any, tokenizer: Any) -> None:
    """Refuse a model whose parts do not fit together, or whose architecture differs from the published ones.

    Raises:
        ModelError: naming the setting, its value, and what is supported.
    """
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if kv_heads != heads:
        raise ModelError(
            f"model {name!r}: its keys and values have {kv_heads} heads and its queries {heads} (num_key_value_heads "
            "and num_attention_heads in its config.json), which transformers does not support either; use a model with "
            "as many of both"
        )
    width, size = config.hidden_size, getattr(config, "head_dim", None) or config.hidden_size // heads
    rope, even = config.rope_parameters["rope_type"], f"hidden_size ({width}) / {heads}, if even"
    for setting, value, taken, fits in (
        ("encoder_hidden_act", config.encoder_hidden_act, "'gelu'", config.encoder_hidden_act == "gelu"),
        ("decoder_hidden_act", config.decoder_hidden_act, "'silu'", config.decoder_hidden_act == "silu"),
        ("attention_bias", config.attention_bias, "False", not config.attention_bias),
        ("rope_type", rope, "'default'", rope == "default"),
        ("head_dim", size, even, size * heads == width and size % 2 == 0),
    ):
        if not fits:
            raise ModelError(
                f"model {name!r}: {setting} is {value!r} in its config.json, but the fast path supports only {taken}; "
                'set family = "transformers" in the suite\'s [model], which supports other values too'
            )
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"model {name!r}: its tokenizer has {len(tokenizer)} tokens, but its decoder {config.vocab_size}"
        )


def _weights(network: Any, device: torch.device, precision: Precision) -> Weights:
    encoder, decoder = network.get_submodule("model.encoder"), network.get_submodule("model.decoder")
    config = network.config

    def wide(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device, precision.sums)

    def cast(tensor: Tensor) -> Tensor:
        return wide(tensor).to(precision.weights)

    def attention(block: Any, *, cross: bool = False) -> Attention:
        # Queries are scaled once, as in `prepare`. Padding heads to `pad_head_dim_to_multiple_of` would only add zeros.
        query = cast(wide(block.q_proj.weight) * block.scaling)
        memory, out = torch.cat([cast(block.k_proj.weight), cast(block.v_proj.weight)]), cast(block.o_proj.weight)
        if cross:
            return Attention(query, None, memory, None, out, None)
        return Attention(torch.cat([query, memory]), None, None, None, out, None)

    def feed_forward(block: Any, activation: Any) -> FeedForward:
        up, down = block.fc1, block.fc2
        return FeedForward(cast(up.weight), cast(up.bias), cast(down.weight), cast(down.bias), activation)

    norms, encoder_layers, decoder_layers = [], [], []
    for layer in encoder.layers:
        norms += [layer.input_layernorm, layer.post_attention_layernorm]
        encoder_layers.append(EncoderLayer(attention(layer.self_attn), feed_forward(layer.mlp, F.gelu)))
    norms.append(encoder.layer_norm)
    for layer in decoder.layers:
        norms += [layer.input_layernorm, layer.post_attention_layernorm, layer.final_layernorm]
        blocks = attention(layer.self_attn), attention(layer.encoder_attn, cross=True)
        decoder_layers.append(DecoderLayer(*blocks, feed_forward(layer.mlp, _gated)))
    norms.append(decoder.norm)
    turning = wide(decoder.rotary_emb.inv_freq)
    embedding = cast(decoder.embed_tokens.weight)
    tied = network.proj_out.weight is decoder.embed_tokens.weight
    return Weights(
        width=int(config.hidden_size),
        encoder_heads=int(config.num_attention_heads),
        decoder_heads=int(config.num_attention_heads),
        encoder_layers=tuple(encoder_layers),
        embedding=embedding,
        decoder_positions=None,
        decoder_layers=tuple(decoder_layers),
        head=embedding if tied else cast(network.proj_out.weight),
        norms=torch.stack([wide(norm.weight) for norm in norms]).unsqueeze(1),
        norm_epsilon=float(decoder.norm.eps),
        # Only the first columns of a head are rotated.
        frequencies=F.pad(turning, (0, config.hidden_size // config.num_attention_heads // 2 - len(turning))),
    )


def _gated(x: Tensor) -> Tensor:
    # One half of the columns, gated by the other.
    values, gates = x.chunk(2, dim=-1)
    return values * F.silu(gates)
