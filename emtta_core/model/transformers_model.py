"""The generic path: a speech model as transformers computes it, one utterance at a time.

It supports every model without a family (`emtta_core.model.family`) that has one of three layouts: an encoder and a
decoder, a decoder that takes audio (a speech language model), or an encoder with CTC. The weights and biases of its
LayerNorms and RMSNorms are adapted in place; each episode restores them bit for bit.
"""

import inspect
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emtta_core.errors import ModelError, UsageError
from emtta_core.model.family import Parts, read_network
from emtta_core.model.model_files import NO_DETECTION, TRANSFORMERS, Layout, check_complete, kinds
from emtta_core.model.policy import ANY_LANGUAGE, MULTILINGUAL, DecodingPolicy, Prompt
from emtta_core.model.speech_model import Model
from emtta_core.model.weights import Precision

INSTRUCTION = "Transcribe the speech."
"""The instruction for a speech language model whose processor has no transcription request of its own."""

NORM = re.compile(r"\w*(?:LayerNorm|RMSNorm)\w*")
"""The classes whose weights are adapted."""

UNSUPPORTED = {
    **dict.fromkeys(
        ("canary", "cohere_asr", "seamless_m4t", "seamless_m4t_v2"), "its processor makes its prompt, by language"
    ),
    **dict.fromkeys(
        ("voxtral", "voxtral_realtime"), "its processor needs the model's name on the hub to make a request"
    ),
    **dict.fromkeys(("dia", "pop2piano", "vibevoice"), "it does not transcribe speech"),
    "kyutai_speech_to_text": "it transcribes a stream of audio step by step",
}
"""Unsupported kinds that transformers loads with the same classes, and why they are unsupported."""


@dataclass(frozen=True, slots=True, eq=False)
class TransformersModel(Model):
    """A model on the generic path. An episode holds its `lock`, as it adapts the network in place."""

    front_end: "ProcessorFrontEnd"
    network: Any  # transformers' own, in eval mode
    layout: Layout
    norms: dict[str, torch.nn.Parameter]  # weights and biases of LayerNorms and RMSNorms, in the order of modules
    ends: tuple[int, ...]  # the tokens that end a transcript; for CTC the blank, which does not end it
    lock: Any  # a `threading.RLock`

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = self.network.device
        return device

    @property
    def width(self) -> int:
        """The width of the decoder, d."""
        return int(getattr(self.network.config.get_text_config(decoder=True), "hidden_size", 0))

    @property
    def size(self) -> int:
        """The number of parameters; the output projection is not counted if it is the embedding."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def half(self, which: str) -> list[str]:
        """The names of `norms` in the "encoder" or the "decoder".

        Raises:
            UsageError: there is none.
        """
        found = [name for name in self.norms if (not _DECODER.isdisjoint(name.split("."))) == (which == "decoder")]
        if not found:
            raise UsageError(
                f"{self.name!r} has no LayerNorm or RMSNorm in its {which}, so parameters = '{which}-layernorm' "
                "has nothing to adapt; use 'layernorm'"
            )
        return found

    def features(self) -> list[str]:
        """The names of a CTC model's parameters between the waveform and the encoder's layers."""
        return list(_features(self.network))

    def arithmetic(self) -> torch.autocast:
        """The autocast context of the network: with bf16, matrix products are in bf16 whatever their inputs."""
        half = self.precision.weights != self.precision.sums
        return torch.autocast(self.device.type, self.precision.weights if half else torch.bfloat16, enabled=half)

    @contextmanager
    def adapting(self, names: Sequence[str]) -> Iterator[list[torch.nn.Parameter]]:
        """Yield these parameters with gradients enabled inside the `with` block, and restore them afterwards."""
        with self.lock:
            parameters = [self.network.get_parameter(name) for name in names]
            source = [parameter.detach().clone() for parameter in parameters]
            try:
                yield [parameter.requires_grad_(True) for parameter in parameters]
            finally:
                for parameter, trained in zip(parameters, source, strict=True):
                    parameter.requires_grad_(False).copy_(trained)
                    parameter.grad = None


_DECODER = {"decoder", "language_model", "text_model", "text_decoder"}
"""The names of text-generating modules in transformers."""

_FEATURES = {"feature_extractor", "feature_projection"}
"""The modules before the encoder's layers in wav2vec 2.0 and similar models."""


@dataclass(frozen=True, slots=True)
class ProcessorFrontEnd:
    """Computes a network's inputs from a waveform with the model's own processor."""

    processor: Any  # a feature extractor; for a decoder-only model, the processor
    request: str | None  # the text around the audio, for a decoder-only model whose processor does not make it
    accepted: frozenset[str]  # the names of the network's arguments
    sample_rate: int  # Hz
    shortest: int  # samples
    longest: int  # samples of the window; `sys.maxsize` if there is none

    def __call__(
        self, waveform: NDArray[np.floating[Any]], *, device: torch.device, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """Compute the network's inputs for a mono waveform, each with a leading batch axis."""
        signal = np.asarray(waveform, np.float32)
        if self.request is not None:
            features = self.processor(
                text=self.request, audio=[signal], sampling_rate=self.sample_rate, return_tensors="pt"
            )
        elif hasattr(self.processor, "apply_transcription_request"):
            features = self.processor.apply_transcription_request(signal)
        else:
            features = self.processor(signal, sampling_rate=self.sample_rate, return_tensors="pt")
        tensors = {name: torch.as_tensor(value) for name, value in features.items() if name in self.accepted}
        return {
            name: tensor.to(device, dtype if tensor.is_floating_point() else None) for name, tensor in tensors.items()
        }


class OwnPrompt(Prompt):
    """The prompts on this path: Whisper's, or the same for every language."""

    def common(self) -> tuple[int, ...]:
        """Refuse language detection, which this path does not support."""
        raise UsageError(NO_DETECTION)


def layout_of(model_type: str, name: str) -> Layout:
    """Find the layout of a kind of model by the classes of transformers that load it.

    Raises:
        ModelError: none of them transcribes speech, or not in a supported way.
    """
    from transformers.models.auto import modeling_auto as auto

    if model_type in UNSUPPORTED:
        raise ModelError(
            f"model {name!r} is of the kind {model_type!r}, which the generic path does not support: "
            f"{UNSUPPORTED[model_type]}; use another model, or write a family for the kind (docs/models.md)"
        )
    if model_type in auto.MODEL_FOR_CTC_MAPPING_NAMES:
        return "ctc"
    if model_type in auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES:
        return "encoder-decoder"  # some are decoder-only, according to their config
    if model_type in auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES:
        return "decoder"
    raise ModelError(
        f"model {name!r} is of the kind {model_type!r}; those that can be adapted are: "
        f"{', '.join(repr(kind) for kind in sorted(kinds()))}; and what transformers loads with "
        "AutoModelForSpeechSeq2Seq, AutoModelForCTC, or AutoModelForMultimodalLM if it takes audio; docs/models.md "
        "says how to add a kind"
    )


def read(folder: Path, layout: Layout, model_type: str) -> Parts:
    """Read a model's files with transformers, weights only from safetensors, without running code that comes with them.

    Raises:
        ModelError: weights are missing or do not match the network.
        Exception: whatever transformers raises for missing or broken files.
    """
    import transformers

    check_complete(folder)
    kind = {
        "ctc": transformers.AutoModelForCTC,
        "encoder-decoder": transformers.AutoModelForSpeechSeq2Seq,
        "decoder": transformers.AutoModelForMultimodalLM,
    }[layout]
    # Masks features only in training; published CTC models lack it.
    masked = f"{model_type.replace('-', '_')}.masked_spec_embed"
    network = read_network(kind, folder, computed=[masked], trust_remote_code=False)
    if layout == "ctc" or network.config.is_encoder_decoder:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return Parts(network, extractor, tokenizer)
    processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    return Parts(network, processor, getattr(processor, "tokenizer", None))


def settings_of(parts: Parts) -> dict[str, Any]:
    """Everything besides the weights that can change a result, as JSON values."""
    network = parts.network
    generation = getattr(network, "generation_config", None)
    settings = {
        "path": TRANSFORMERS,
        "config": network.config.to_dict(),
        "generation": None if generation is None else generation.to_dict(),
        "processor": parts.extractor.to_dict(),
        "request": _request(parts.extractor),
        "vocabulary": parts.tokenizer.get_vocab(),
    }
    return {name: _plain(value) for name, value in settings.items()}


def make(
    name: str, parts: Parts, layout: Layout, *, digest: str, device: torch.device, precision: Precision
) -> TransformersModel:
    """Prepare a model; its network is moved and modified.

    Raises:
        ModelError: if it takes no audio, or names no end token.
    """
    network, config = parts.network, parts.network.config
    if layout == "encoder-decoder" and not config.is_encoder_decoder:
        layout = "decoder"
    network, norms = network.to(device, precision.weights).requires_grad_(False), _norms(network)
    for parameter in (*norms.values(), *_features(network).values()):
        parameter.data = parameter.data.to(precision.sums)  # adapted values would be rounded
    vocabulary = int(config.get_text_config(decoder=True).vocab_size)
    generation = None if layout == "ctc" else _generation_config(name, network)
    ends = (int(config.pad_token_id or 0),) if generation is None else tuple(generation.eos_token_id)
    suppressed = [[], []] if generation is None else [generation.suppress_tokens, generation.begin_suppress_tokens]
    return TransformersModel(
        name=name,
        digest=digest,
        front_end=_front_end(name, parts, layout),
        policy=_policy(config, ends[0], vocabulary, suppressed, device, precision.sums),
        prompt=_prompt(network, generation, parts.tokenizer, layout),
        tokenizer=parts.tokenizer,
        precision=precision,
        network=network,
        layout=layout,
        norms=norms,
        ends=ends,
        lock=threading.RLock(),
    )


def _features(network: Any) -> dict[str, torch.nn.Parameter]:
    return {name: value for name, value in network.named_parameters() if not _FEATURES.isdisjoint(name.split("."))}


def _norms(network: Any) -> dict[str, torch.nn.Parameter]:
    return {
        f"{module}.{part}" if module else part: parameter
        for module, norm in network.named_modules()
        if NORM.fullmatch(type(norm).__name__)
        for part, parameter in norm.named_parameters(recurse=False)
    }


def _generation_config(name: str, network: Any) -> Any:
    # The generation config without the settings that methods determine: how many sequences, and how they are chosen.
    generation = network.generation_config
    ends = generation.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    if not ends:
        raise ModelError(
            f"model {name!r} names no token that ends a transcript; set eos_token_id in generation_config.json"
        )
    generation.eos_token_id = ends
    if generation.pad_token_id is None:
        generation.pad_token_id = ends[0]
    for setting in ("temperature", "top_k", "top_p", "min_p", "typical_p", "max_length", "max_new_tokens", "max_time"):
        setattr(generation, setting, None)
    # The audio placeholder is not text; if generated, it would be taken for audio when its sequence is scored.
    audio_token = getattr(network.config, "audio_token_id", getattr(network.config, "audio_token_index", None))
    if audio_token is not None:
        generation.suppress_tokens = sorted({int(audio_token), *(generation.suppress_tokens or [])})
    generation.do_sample, generation.num_beams, generation.num_return_sequences = False, 1, 1
    return generation


def _front_end(name: str, parts: Parts, layout: Layout) -> ProcessorFrontEnd:
    processor = parts.extractor
    extractor = getattr(processor, "feature_extractor", getattr(processor, "audio_processor", processor))
    if layout == "decoder" and extractor is processor:
        raise ModelError(f"model {name!r} takes no audio: its processor has no audio features; use one that has")
    rate = getattr(extractor, "sampling_rate", None)
    accepted = frozenset(inspect.signature(parts.network.forward).parameters)
    return ProcessorFrontEnd(
        processor=processor,
        request=_request(processor) if layout == "decoder" else None,
        accepted=accepted,
        sample_rate=int(rate or 16_000),
        shortest=_shortest(parts.network),
        longest=int(getattr(extractor, "n_samples", None) or sys.maxsize),
    )


def _request(processor: Any) -> str | None:
    # The text around the audio, for a processor that does not make it itself.
    token = getattr(processor, "audio_token", None)
    if token is None or hasattr(processor, "apply_transcription_request"):
        return None
    if not getattr(processor, "chat_template", None):
        return f"{token}{INSTRUCTION}"
    content: Any = [{"type": "audio", "audio": ""}, {"type": "text", "text": INSTRUCTION}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    if token not in text:  # text-only templates
        content = f"{token}{INSTRUCTION}"
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return str(text)


def _shortest(network: Any) -> int:
    # Samples of the shortest waveform from which convolutions over samples compute a frame.
    encoder = network.get_encoder() if network.config.is_encoder_decoder else network
    frames = getattr(encoder, "_get_feat_extract_output_lengths", None)
    if frames is None or encoder.main_input_name != "input_values":
        return 1
    low, high = 0, 16_000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if int(frames(torch.tensor(middle))) >= 1 else (middle, high)
    return high


def _policy(
    config: Any, end: int, vocabulary: int, suppressed: Sequence[Any], device: torch.device, dtype: torch.dtype
) -> DecodingPolicy:
    bias = torch.zeros(vocabulary, dtype=dtype, device=device)
    bias[list(suppressed[0] or [])] = -torch.inf
    first_bias = bias.clone()
    first_bias[list(suppressed[1] or [])] = -torch.inf
    text = config.get_text_config(decoder=True)
    positions = getattr(text, "max_target_positions", None) or getattr(text, "max_position_embeddings", None)
    return DecodingPolicy(end, bias, first_bias, int(positions or sys.maxsize))


def _prompt(network: Any, generation: Any, tokenizer: Any, layout: Layout) -> OwnPrompt:
    # transformers itself adds beginnings that are the same for all languages.
    if network.config.model_type == "whisper":
        multilingual = network.config.vocab_size >= MULTILINGUAL
        return OwnPrompt(Prompt.of(generation, tokenizer.get_vocab(), multilingual=multilingual).tokens)
    start = generation.decoder_start_token_id if layout == "encoder-decoder" else None
    return OwnPrompt({ANY_LANGUAGE: () if start is None else (int(start),)})


def _plain(value: Any) -> Any:
    # Without information on where files came from and how they were stored.
    if isinstance(value, dict):
        excluded = {"_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "_commit_hash"}
        return {str(key): _plain(item) for key, item in value.items() if key not in excluded}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
