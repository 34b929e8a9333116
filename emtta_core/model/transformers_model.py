"""The generic path: a speech model as transformers computes it, one utterance at a time.

It serves every model that has no family (`emtta_core.model.family`) and is of one of three layouts: an encoder and a
decoder, a decoder alone that hears (a speech language model), or an encoder with CTC. What is adapted are the weights
and biases of its LayerNorms and RMSNorms, in place; each episode puts them back, bit for bit.
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
from emtta_core.model.model_files import NO_DETECTION, TRANSFORMERS, Layout, kinds, refuse_lacking
from emtta_core.model.policy import ANY_LANGUAGE, MULTILINGUAL, DecodingPolicy, Prompt
from emtta_core.model.speech_model import Model
from emtta_core.model.weights import Precision

INSTRUCTION = "Transcribe the speech."
"""What a speech language model is asked to do, if its processor has no request for transcripts of its own."""

NORM = re.compile(r"\w*(?:LayerNorm|RMSNorm)\w*")
"""The classes whose weights are adapted."""

UNFIT = {
    **dict.fromkeys(
        ("canary", "cohere_asr", "seamless_m4t", "seamless_m4t_v2"), "its prompt is made by its processor, by language"
    ),
    **dict.fromkeys(
        ("voxtral", "voxtral_realtime"), "its processor makes a request by the model's name on the hub alone"
    ),
    **dict.fromkeys(("dia", "pop2piano", "vibevoice"), "it does not write what is said"),
    "kyutai_speech_to_text": "it hears sound and writes text step by step, in a stream",
}
"""Kinds that transformers loads by the same classes and that do not fit, and why."""


@dataclass(frozen=True, slots=True, eq=False)
class TransformersModel(Model):
    """A model on the generic path. An episode holds its `lock`: what it adapts is the network itself."""

    front_end: "Listener"
    network: Any  # transformers' own, in eval mode
    layout: Layout
    norms: dict[str, torch.nn.Parameter]  # weights and biases of LayerNorms and RMSNorms, in the order of modules
    ends: tuple[int, ...]  # the tokens at which a transcript ends; of CTC the blank, which ends nothing
    lock: Any  # a `threading.RLock`

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.network.device
        return device

    @property
    def width(self) -> int:
        """Columns of the decoder, d."""
        return int(getattr(self.network.config.get_text_config(decoder=True), "hidden_size", 0))

    @property
    def size(self) -> int:
        """Parameters; the output projection is not counted where it is the embedding."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def half(self, which: str) -> list[str]:
        """The names of `norms` in the "encoder" or the "decoder".

        Raises:
            UsageError: there is none.
        """
        found = [name for name in self.norms if (not _DECODER.isdisjoint(name.split("."))) == (which == "decoder")]
        if not found:
            raise UsageError(
                f"{self.name!r} has no LayerNorm or RMSNorm in its {which}, so that parameters = '{which}-layernorm' "
                "has nothing to adapt; use 'layernorm'"
            )
        return found

    def features(self) -> list[str]:
        """The names of the parameters between the waveform and the encoder's layers, of a CTC model."""
        return list(_features(self.network))

    def arithmetic(self) -> torch.autocast:
        """The context in which the network computes: in bf16, matrices are multiplied so, whatever their inputs are."""
        half = self.precision.weights != self.precision.sums
        return torch.autocast(self.device.type, self.precision.weights if half else torch.bfloat16, enabled=half)

    @contextmanager
    def adapting(self, names: Sequence[str]) -> Iterator[list[torch.nn.Parameter]]:
        """Yield these parameters, with gradients, inside the `with` block, and restore them afterwards."""
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
"""The modules of transformers that make text."""

_FEATURES = {"feature_extractor", "feature_projection"}
"""Those that wav2vec 2.0 and its kin have below the encoder's layers."""


@dataclass(frozen=True, slots=True)
class Listener:
    """What a network is given of a waveform, by its own processor."""

    processor: Any  # a feature extractor; for a decoder alone, the processor
    request: str | None  # the text around the sound, for a decoder alone whose processor makes no request itself
    accepted: frozenset[str]  # what the network takes
    sample_rate: int  # Hz
    shortest: int  # samples
    longest: int  # samples of the window; `sys.maxsize` where there is none

    def __call__(
        self, waveform: NDArray[np.floating[Any]], *, device: torch.device, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """Make the network's inputs of a mono waveform, each with the network's axis of the batch first."""
        signal = np.asarray(waveform, np.float32)
        if self.request is not None:
            made = self.processor(
                text=self.request, audio=[signal], sampling_rate=self.sample_rate, return_tensors="pt"
            )
        elif hasattr(self.processor, "apply_transcription_request"):
            made = self.processor.apply_transcription_request(signal)
        else:
            made = self.processor(signal, sampling_rate=self.sample_rate, return_tensors="pt")
        tensors = {name: torch.as_tensor(value) for name, value in made.items() if name in self.accepted}
        return {
            name: tensor.to(device, dtype if tensor.is_floating_point() else None) for name, tensor in tensors.items()
        }


class OwnPrompt(Prompt):
    """What each sequence begins with here: Whisper's prompts, or the same for every language."""

    def common(self) -> tuple[int, ...]:
        """Refuse to detect a language, as one utterance's prompt is all that this path knows."""
        raise UsageError(NO_DETECTION)


def layout_of(model_type: str, name: str) -> Layout:
    """Find how models of a kind are built, by the classes of transformers that load them.

    Raises:
        ModelError: none makes text of speech, or not in a way that fits.
    """
    from transformers.models.auto import modeling_auto as auto

    if model_type in UNFIT:
        raise ModelError(
            f"model {name!r} is of the kind {model_type!r}, which the generic path does not serve: "
            f"{UNFIT[model_type]}; take another model, or write a family for the kind (docs/models.md)"
        )
    if model_type in auto.MODEL_FOR_CTC_MAPPING_NAMES:
        return "ctc"
    if model_type in auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES:
        return "encoder-decoder"  # some are a decoder alone, which their config says
    if model_type in auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES:
        return "decoder"
    raise ModelError(
        f"model {name!r} is of the kind {model_type!r}; those that can be adapted are: "
        f"{', '.join(repr(kind) for kind in sorted(kinds()))}; and what transformers loads by "
        "AutoModelForSpeechSeq2Seq, by AutoModelForCTC, or by AutoModelForMultimodalLM if it hears; docs/models.md "
        "says how to add a kind"
    )


def read(folder: Path, layout: Layout, model_type: str) -> Parts:
    """Read a model's files as transformers does; weights from safetensors alone, and no code that comes with them.

    Raises:
        ModelError: weights are missing, or not of the network.
        Exception: whatever transformers raises for files that are missing or broken.
    """
    import transformers

    refuse_lacking(folder)
    kind = {
        "ctc": transformers.AutoModelForCTC,
        "encoder-decoder": transformers.AutoModelForSpeechSeq2Seq,
        "decoder": transformers.AutoModelForMultimodalLM,
    }[layout]
    # What masks features in training alone; published CTC models lack it.
    masked = f"{model_type.replace('-', '_')}.masked_spec_embed"
    network = read_network(kind, folder, computed=[masked], trust_remote_code=False)
    if layout == "ctc" or network.config.is_encoder_decoder:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return Parts(network, extractor, tokenizer)
    processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    return Parts(network, processor, getattr(processor, "tokenizer", None))


def settings_of(parts: Parts) -> dict[str, Any]:
    """All besides the weights that can change a result, as JSON has it."""
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
    """Prepare a model, whose network is moved and changed.

    Raises:
        ModelError: if it hears nothing, or names no end token.
    """
    network, config = parts.network, parts.network.config
    if layout == "encoder-decoder" and not config.is_encoder_decoder:
        layout = "decoder"
    network, norms = network.to(device, precision.weights).requires_grad_(False), _norms(network)
    for parameter in (*norms.values(), *_features(network).values()):
        parameter.data = parameter.data.to(precision.sums)  # what is adapted would be rounded
    vocabulary = int(config.get_text_config(decoder=True).vocab_size)
    generation = None if layout == "ctc" else _settled(name, network)
    ends = (int(config.pad_token_id or 0),) if generation is None else tuple(generation.eos_token_id)
    suppressed = [[], []] if generation is None else [generation.suppress_tokens, generation.begin_suppress_tokens]
    return TransformersModel(
        name=name,
        digest=digest,
        front_end=_listener(name, parts, layout),
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
    return {name: found for name, found in network.named_parameters() if not _FEATURES.isdisjoint(name.split("."))}


def _norms(network: Any) -> dict[str, torch.nn.Parameter]:
    return {
        f"{module}.{part}" if module else part: parameter
        for module, norm in network.named_modules()
        if NORM.fullmatch(type(norm).__name__)
        for part, parameter in norm.named_parameters(recurse=False)
    }


def _settled(name: str, network: Any) -> Any:
    # The generation config, with those settings taken out that methods decide: how many sequences, chosen how.
    generation = network.generation_config
    ends = generation.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    if not ends:
        raise ModelError(
            f"model {name!r} names no token at which a transcript ends; write eos_token_id into generation_config.json"
        )
    generation.eos_token_id = ends
    if generation.pad_token_id is None:
        generation.pad_token_id = ends[0]
    for setting in ("temperature", "top_k", "top_p", "min_p", "typical_p", "max_length", "max_new_tokens", "max_time"):
        setattr(generation, setting, None)
    # The place of sound is no text; one that is written would be taken for sound when its sequence is scored.
    place = getattr(network.config, "audio_token_id", getattr(network.config, "audio_token_index", None))
    if place is not None:
        generation.suppress_tokens = sorted({int(place), *(generation.suppress_tokens or [])})
    generation.do_sample, generation.num_beams, generation.num_return_sequences = False, 1, 1
    return generation


def _listener(name: str, parts: Parts, layout: Layout) -> Listener:
    processor = parts.extractor
    extractor = getattr(processor, "feature_extractor", getattr(processor, "audio_processor", processor))
    if layout == "decoder" and extractor is processor:
        raise ModelError(f"model {name!r} hears nothing: its processor makes no features of sound; take one that does")
    rate = getattr(extractor, "sampling_rate", None)
    accepted = frozenset(inspect.signature(parts.network.forward).parameters)
    return Listener(
        processor=processor,
        request=_request(processor) if layout == "decoder" else None,
        accepted=accepted,
        sample_rate=int(rate or 16_000),
        shortest=_shortest(parts.network),
        longest=int(getattr(extractor, "n_samples", None) or sys.maxsize),
    )


def _request(processor: Any) -> str | None:
    # The text around the sound, for a processor that does not make it itself.
    token = getattr(processor, "audio_token", None)
    if token is None or hasattr(processor, "apply_transcription_request"):
        return None
    if not getattr(processor, "chat_template", None):
        return f"{token}{INSTRUCTION}"
    said: Any = [{"type": "audio", "audio": ""}, {"type": "text", "text": INSTRUCTION}]
    text = processor.apply_chat_template([{"role": "user", "content": said}], add_generation_prompt=True)
    if token not in text:  # templates of text alone
        said = f"{token}{INSTRUCTION}"
        text = processor.apply_chat_template([{"role": "user", "content": said}], add_generation_prompt=True)
    return str(text)


def _shortest(network: Any) -> int:
    # Samples of the shortest waveform of which convolutions over samples leave a frame.
    encoder = network.get_encoder() if network.config.is_encoder_decoder else network
    frames = getattr(encoder, "_get_feat_extract_output_lengths", None)
    if frames is None or encoder.main_input_name != "input_values":
        return 1
    few, enough = 0, 16_000
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if int(frames(torch.tensor(middle))) >= 1 else (middle, enough)
    return enough


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
    # Beginnings that are the same for all languages transformers adds by itself.
    if network.config.model_type == "whisper":
        multilingual = network.config.vocab_size >= MULTILINGUAL
        return OwnPrompt(Prompt.of(generation, tokenizer.get_vocab(), multilingual=multilingual).tokens)
    start = generation.decoder_start_token_id if layout == "encoder-decoder" else None
    return OwnPrompt({ANY_LANGUAGE: () if start is None else (int(start),)})


def _plain(value: Any) -> Any:
    # Without what says where files came from, and how they were stored.
    if isinstance(value, dict):
        strange = {"_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "_commit_hash"}
        return {str(key): _plain(item) for key, item in value.items() if key not in strange}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
