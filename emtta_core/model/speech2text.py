"""The family of Speech2Text: log-mel features of any length, gated convolutions, and a transformer like Whisper's.

Source: Wang et al. 2020, "fairseq S2T", arXiv:2010.05171, as transformers computes it. docs/models.md walks through
this file to show how to write a family.
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
from emtta_core.model.policy import DecodingPolicy, Prompt
from emtta_core.model.weights import Precision, prepare

FRAME = 400
"""Samples of a frame of the extractor at 16 kHz: 25 ms."""

HOP = 160
"""Samples between frames: 10 ms."""

LANGUAGE = "en"
"""The language of the published models that transcribe; those that translate are refused."""


@dataclass(frozen=True, slots=True)
class Speech2TextFrontEnd:
    """Features from the model's own extractor, convolutions that halve the number of frames, and positions.

    Each waveform passes through the convolutions separately and is then padded, so it does not depend on the others.
    """

    extractor: Any  # computes the features `(frames, M)` of a waveform, normalized over the utterance
    convolutions: tuple[tuple[Tensor, Tensor], ...]  # weight and bias of each convolution, stride 2
    table: Tensor  # `(S, d)`, the positions of the longest waveform
    scale: float  # the factor of the convolutions' output
    sums: torch.dtype  # the precision of the input of the encoder's layers

    @property
    def sample_rate(self) -> int:
        """The sample rate in Hz."""
        return int(self.extractor.sampling_rate)

    @property
    def shortest(self) -> int:
        """Samples of two frames, as features cannot be normalized over one."""
        return FRAME + HOP

    @property
    def longest(self) -> int:
        """Samples of the frames that all positions cover."""
        frames = len(self.table) << len(self.convolutions)
        return FRAME + HOP * (frames - 1)

    @property
    def positions(self) -> int:
        """The encoder's positions for the longest waveform."""
        return len(self.table)

    def __call__(
        self, waveforms: Sequence[NDArray[np.floating[Any]]], *, device: torch.device, dtype: torch.dtype
    ) -> EncoderInput:
        """Compute the encoder's input for B mono waveforms, with a mask of their padding."""
        rows = [self.stem(self.features(waveform, device=device, dtype=dtype)) for waveform in waveforms]
        return EncoderInput.of(rows, dtype=self.table.dtype)

    def features(self, waveform: NDArray[np.floating[Any]], *, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Compute the features `(frames, M)` of a waveform."""
        features = self.extractor(np.asarray(waveform, np.float32), sampling_rate=self.sample_rate)["input_features"][0]
        return torch.from_numpy(np.ascontiguousarray(features)).to(device, dtype)

    def stem(self, features: Tensor) -> Tensor:
        """The input of the encoder's layers, `(S, d)`, for features `(frames, M)`."""
        x = features.to(self.table.dtype).T.unsqueeze(0)
        for weight, bias in self.convolutions:
            x = F.glu(F.conv1d(x, weight, bias, stride=2, padding=weight.shape[-1] // 2), dim=1)
        x = x.squeeze(0).T.contiguous()
        return (self.scale * x + self.table[: len(x)]).to(self.sums)

    def tensors(self) -> Iterator[Tensor]:
        """Yield its frozen tensors."""
        for pair in self.convolutions:
            yield from pair
        yield self.table


class Speech2Text:
    """Speech2Text."""

    model_type = "speech_to_text"

    def read(self, folder: Path) -> Parts:
        """Read a model's files; its tokenizer needs the package sentencepiece."""
        from transformers import (
            Speech2TextFeatureExtractor,
            Speech2TextForConditionalGeneration,
            Speech2TextTokenizer,
        )

        check_complete(folder)
        network = read_network(Speech2TextForConditionalGeneration, folder)
        extractor = Speech2TextFeatureExtractor.from_pretrained(folder)
        return Parts(network, extractor, Speech2TextTokenizer.from_pretrained(folder))

    def make(self, name: str, parts: Parts, *, device: torch.device, precision: Precision) -> PreparedModel:
        """Prepare a model."""
        network, extractor, tokenizer = parts.network, parts.extractor, parts.tokenizer
        config = network.config
        _check(name, config, extractor, tokenizer)
        encoder, decoder = network.get_submodule("model.encoder"), network.get_submodule("model.decoder")
        convolutions = encoder.conv.conv_layers

        def cast(tensor: Tensor) -> Tensor:
            return tensor.detach().to(device, precision.weights)

        # Positions are counted from the one after the padding token's, as in fairseq.
        first = int(config.pad_token_id) + 1
        longest = config.max_source_positions // 2 ** len(convolutions)
        policy = DecodingPolicy.of(network.generation_config, config, device=device, dtype=precision.sums)
        return PreparedModel(
            weights=prepare(
                network,
                device=device,
                precision=precision,
                head="lm_head",
                scale=float(decoder.embed_scale),
                positions=decoder.embed_positions.weights[first : first + config.max_target_positions],
            ),
            front_end=Speech2TextFrontEnd(
                extractor=extractor,
                convolutions=tuple((cast(layer.weight), cast(layer.bias)) for layer in convolutions),
                table=cast(encoder.embed_positions.weights[first : first + longest]),
                scale=float(encoder.embed_scale),
                sums=precision.sums,
            ),
            # A padding token is not text, and has no position of its own.
            policy=policy.without([int(config.pad_token_id)]),
            prompt=Prompt({LANGUAGE: (int(config.decoder_start_token_id),)}),
            settings={
                "heads": [config.encoder_attention_heads, config.decoder_attention_heads],
                "positions": [config.max_source_positions, config.max_target_positions],
                "scale": [float(encoder.embed_scale), float(decoder.embed_scale)],
                "features": extractor.to_dict(),
                "start": config.decoder_start_token_id,
                "end": config.eos_token_id,
                "pad": config.pad_token_id,
                "suppress": [
                    network.generation_config.suppress_tokens,
                    network.generation_config.begin_suppress_tokens,
                ],
                "vocabulary": tokenizer.get_vocab(),
                "case": [tokenizer.do_upper_case, tokenizer.do_lower_case],
            },
        )


FAMILY = Speech2Text()


def _check(name: str, config: Any, extractor: Any, tokenizer: Any) -> None:
    """Refuse a model whose parts do not fit together, and one that translates.

    Raises:
        ModelError: naming the parts and their sizes.
    """
    expected = config.input_feat_per_channel * config.input_channels
    if extractor.num_mel_bins != expected:
        raise ModelError(
            f"model {name!r}: its feature extractor returns {extractor.num_mel_bins} mel bins but its encoder takes "
            f"{expected}"
        )
    if extractor.dither:
        raise ModelError(
            f"model {name!r}: its feature extractor has the dither {extractor.dither}, so features of the same "
            "waveform would differ each time; set it to 0 in preprocessor_config.json"
        )
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"model {name!r}: its tokenizer has {len(tokenizer)} tokens, but its decoder {config.vocab_size}"
        )
    if tokenizer.lang_code_to_id:
        raise ModelError(
            f"model {name!r} translates into {', '.join(sorted(tokenizer.lang_code_to_id))}; use one that transcribes"
        )
