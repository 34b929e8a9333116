"""The family of Whisper: its log-mel features, and models of every size, English-only, distilled or fine-tuned."""

from collections.abc import Iterator, Mapping, Sequence
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
from emtta_core.model.policy import MULTILINGUAL, DecodingPolicy, Prompt
from emtta_core.model.weights import Precision, prepare


@dataclass(frozen=True, slots=True)
class LogMel:
    """Log-mel features with the settings of a model's feature extractor."""

    sample_rate: int  # Hz
    samples: int  # length of the window in samples; shorter waveforms are zero-padded
    fft: int  # samples in a frame
    hop: int  # samples between frames
    filters: NDArray[np.float64]  # `(fft // 2 + 1, M)`, the mel filters

    @classmethod
    def of(cls, extractor: Any) -> "LogMel":
        """Read the settings of a `WhisperFeatureExtractor`; its dither, which is random, is not applied."""
        return cls(
            sample_rate=int(extractor.sampling_rate),
            samples=int(extractor.n_samples),
            fft=int(extractor.n_fft),
            hop=int(extractor.hop_length),
            filters=np.asarray(extractor.mel_filters, dtype=np.float64),
        )

    @property
    def frames(self) -> int:
        """The number of frames in a window."""
        return self.samples // self.hop

    def __call__(
        self, waveforms: Sequence[NDArray[np.floating[Any]]], *, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Compute the features `(B, M, frames)` of B mono waveforms at `sample_rate`, none longer than the window."""
        padded = np.zeros((len(waveforms), self.samples), dtype=np.float64)
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = waveform
        signal = torch.from_numpy(padded).to(device, dtype)
        window = torch.hann_window(self.fft, device=device, dtype=dtype)
        spectrum = torch.stft(signal, self.fft, self.hop, window=window, return_complex=True)[..., :-1]
        power = (spectrum.real.square() + spectrum.imag.square()).contiguous()
        mel = torch.from_numpy(self.filters).to(device, dtype).T @ power
        log = mel.clamp(min=1e-10).log10()
        log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0)
        return (log + 4.0) / 4.0


SINUSOIDS = "model.encoder.embed_positions.weight"
"""The encoder's positions, which are never trained."""


@dataclass(frozen=True, slots=True)
class WhisperFrontEnd:
    """Log-mel features, two convolutions, and positions; every waveform fills the window."""

    mel: LogMel  # the features
    conv1: tuple[Tensor, Tensor]  # weight and bias of the first convolution, stride 1
    conv2: tuple[Tensor, Tensor]  # likewise of the second, stride 2
    table: Tensor  # `(S, d)`, the encoder's positions
    sums: torch.dtype  # the precision of the input of the encoder's layers

    @property
    def sample_rate(self) -> int:
        """The sample rate in Hz."""
        return self.mel.sample_rate

    @property
    def shortest(self) -> int:
        """One sample, as the rest is padded."""
        return 1

    @property
    def longest(self) -> int:
        """The window in samples."""
        return self.mel.samples

    @property
    def positions(self) -> int:
        """The encoder's positions."""
        return len(self.table)

    def __call__(
        self, waveforms: Sequence[NDArray[np.floating[Any]]], *, device: torch.device, dtype: torch.dtype
    ) -> EncoderInput:
        """Compute the encoder's input for B mono waveforms."""
        return EncoderInput(self.stem(self.mel(waveforms, device=device, dtype=dtype)))

    def stem(self, mel: Tensor) -> Tensor:
        """The input of the encoder's layers, `(B, S, d)`, for log-mel features `(B, M, 2S)`."""
        x = F.gelu(F.conv1d(mel.to(self.table.dtype), *self.conv1, padding=1))
        x = F.gelu(F.conv1d(x, *self.conv2, stride=2, padding=1))
        return (x.transpose(1, 2).contiguous() + self.table).to(self.sums)

    def tensors(self) -> Iterator[Tensor]:
        """Yield its frozen tensors."""
        yield from (*self.conv1, *self.conv2, self.table)


class Whisper:
    """Whisper."""

    model_type = "whisper"

    def read(self, folder: Path) -> Parts:
        """Read a model's files."""
        from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

        check_complete(folder)
        network = read_network(
            WhisperForConditionalGeneration, folder, computed=[SINUSOIDS], attn_implementation="sdpa"
        )
        extractor = WhisperFeatureExtractor.from_pretrained(folder)
        tokenizer = WhisperTokenizer.from_pretrained(folder)
        _refuse_wordless(folder, network, tokenizer)
        return Parts(network, extractor, tokenizer)

    def make(self, name: str, parts: Parts, *, device: torch.device, precision: Precision) -> PreparedModel:
        """Prepare a model."""
        network, tokenizer = parts.network, parts.tokenizer
        config, generation = network.config, network.generation_config
        mel, vocabulary = LogMel.of(parts.extractor), tokenizer.get_vocab()
        _check(name, config, generation, mel, vocabulary)
        policy = DecodingPolicy.of(generation, config, device=device, dtype=precision.sums)
        prompt = Prompt.of(generation, vocabulary, multilingual=config.vocab_size >= MULTILINGUAL)
        encoder = network.get_submodule("model.encoder")

        def cast(tensor: Tensor) -> Tensor:
            return tensor.detach().to(device, precision.weights)

        return PreparedModel(
            weights=prepare(network, device=device, precision=precision),
            front_end=WhisperFrontEnd(
                mel=mel,
                conv1=(cast(encoder.conv1.weight), cast(encoder.conv1.bias)),
                conv2=(cast(encoder.conv2.weight), cast(encoder.conv2.bias)),
                table=cast(encoder.embed_positions.weight),
                sums=precision.sums,
            ),
            policy=policy,
            prompt=prompt,
            settings={
                "heads": [config.encoder_attention_heads, config.decoder_attention_heads],
                "positions": [config.max_source_positions, config.max_target_positions],
                "mel": [mel.sample_rate, mel.samples, mel.fft, mel.hop, mel.filters.tolist()],
                "prompt": prompt.tokens,
                "end": generation.eos_token_id,
                "suppress": [generation.suppress_tokens, generation.begin_suppress_tokens],
                "vocabulary": vocabulary,
            },
        )


FAMILY = Whisper()


def _check(name: str, config: Any, generation: Any, mel: LogMel, vocabulary: Mapping[str, int]) -> None:
    """Refuse a model whose parts do not fit together.

    Raises:
        ModelError: naming the parts and their sizes.
    """
    if mel.frames != 2 * config.max_source_positions:
        raise ModelError(
            f"model {name!r}: its feature extractor returns {mel.frames} frames but its encoder takes "
            f"{2 * config.max_source_positions}"
        )
    if mel.filters.shape[1] != config.num_mel_bins:
        raise ModelError(
            f"model {name!r}: its feature extractor returns {mel.filters.shape[1]} mel bins but its encoder takes "
            f"{config.num_mel_bins}"
        )
    if len(vocabulary) > config.vocab_size:
        raise ModelError(
            f"model {name!r}: its tokenizer has {len(vocabulary)} tokens, but its decoder {config.vocab_size}"
        )
    if generation.decoder_start_token_id is None or generation.eos_token_id is None:
        raise ModelError(f"model {name!r}: its generation_config.json names no decoder_start_token_id or eos_token_id")


def _refuse_wordless(folder: Path, network: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer without Whisper's text tokens, whose ids come before the end token.

    If files of the tokenizer are missing, transformers makes one of only the special tokens, and every transcript would
    be empty. A few ids may be undefined, as they are never generated.

    Raises:
        ModelError: it defines less than half of them.
    """
    ends = network.generation_config.eos_token_id
    end = min(ends) if isinstance(ends, list) else ends
    if end is None or end >= network.config.vocab_size:
        return  # refused later, with the specific fault
    named = sum(index < end for index in tokenizer.get_vocab().values())
    if named < end / 2:
        raise ModelError(
            f"{folder}: its tokenizer defines {named} of the {end} text tokens of its decoder; copy "
            "tokenizer.json (or vocab.json and merges.txt) from the model that it was fine-tuned from"
        )
