"""Loading a Whisper from the demo checkpoint, a folder, or the Hugging Face hub."""

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from emtta_core.errors import ModelError, UsageError
from emtta_core.model.mel import LogMel
from emtta_core.model.policy import DecodingPolicy
from emtta_core.model.precision import choose_precision
from emtta_core.model.prompt import Prompt
from emtta_core.model.speech_model import SpeechModel
from emtta_core.model.weights import prepare

DEMO = "demo"
"""The name of the checkpoint that comes with the package."""


def load_model(
    name: str | Path, *, device: str = "auto", precision: str = "float32", revision: str | None = None
) -> SpeechModel:
    """Load a Whisper with its feature extractor, tokenizer and generation config.

    Weights are read from safetensors files alone, and no code that comes with a model is run.

    Args:
        name: "demo", a folder in the layout of `from_pretrained`, or a hub id such as "openai/whisper-base".
        device: "cpu", "cuda", "cuda:1", …; "auto" takes the first GPU if there is one.
        precision: one of `emtta_core.model.precision.PRECISIONS`.
        revision: of a hub id: a branch, tag or commit.

    Raises:
        ModelError: if there is no such model, a file of it is missing or broken, or it is not a Whisper.
        UsageError: for a device or a precision that there is not.
    """
    choose_precision(precision, choose_device(device))
    name = str(name)
    network, extractor, tokenizer = _read(name, folder_of(name), revision)
    return from_transformers(network, extractor, tokenizer, name=name, device=device, precision=precision)


def from_transformers(
    network: Any, extractor: Any, tokenizer: Any, *, name: str, device: str = "auto", precision: str = "float32"
) -> SpeechModel:
    """Take a Whisper from transformers' own objects, which are not changed.

    Args:
        network: a `WhisperForConditionalGeneration` with its generation config.
        extractor: its `WhisperFeatureExtractor`.
        tokenizer: its `WhisperTokenizer`.
        name: what to call it.
        device: as for `load_model`.
        precision: as for `load_model`.

    Raises:
        ModelError: if its parts do not fit together, or it has something that the forward pass does not know.
        UsageError: for a device or a precision that there is not.
    """
    target = choose_device(device)
    chosen = choose_precision(precision, target)
    generation, config = network.generation_config, network.config
    mel, prompt = LogMel.of(extractor), Prompt.of(generation)
    _check(name, config, generation, mel, len(tokenizer))
    return SpeechModel(
        name=name,
        digest=_digest(network, mel, prompt, tokenizer),
        weights=prepare(network, device=target, precision=chosen),
        mel=mel,
        policy=DecodingPolicy.of(generation, config, device=target, dtype=chosen.sums),
        prompt=prompt,
        tokenizer=tokenizer,
        precision=chosen,
    )


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first GPU if there is one, else the CPU.

    Raises:
        UsageError: if there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"no device {name!r} on this machine; use 'auto', 'cpu', or 'cuda' on one with a GPU"
        ) from error
    return device


def folder_of(name: str) -> Path | None:
    """Return the folder that `name` means, None for a hub id.

    Raises:
        ModelError: if there is no such folder.
    """
    if name == DEMO:
        folder = Path(str(resources.files("emtta_core.model") / "demo"))
        if not (folder / "model.safetensors").is_file():
            raise ModelError(f"the demo checkpoint is not in {folder}; `emtta demo train` makes it")
        return folder
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"model {name!r} is a file; give the folder that holds config.json and model.safetensors")
    parts = name.split("/")
    if len(parts) > 2 or folder.is_absolute() or parts[0] in {".", "..", "~", ""}:
        raise ModelError(
            f"no folder {name!r}; give 'demo', a folder with config.json and model.safetensors, or a hub id such as "
            "'openai/whisper-base'"
        )
    return None


def _read(name: str, folder: Path | None, revision: str | None) -> tuple[Any, Any, Any]:
    """Return the network, the feature extractor and the tokenizer.

    Raises:
        ModelError: if one of them cannot be had.
    """
    from transformers import AutoConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer
    from transformers.utils import logging

    source = name if folder is None else str(folder)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        if config.model_type != "whisper":
            raise ModelError(f"model {name!r} is of the kind {config.model_type!r}; only 'whisper' can be adapted")
        network = WhisperForConditionalGeneration.from_pretrained(
            source, revision=revision, use_safetensors=True, attn_implementation="sdpa", dtype=torch.float32
        )
        extractor = WhisperFeatureExtractor.from_pretrained(source, revision=revision)
        tokenizer = WhisperTokenizer.from_pretrained(source, revision=revision)
    except ModelError:
        raise
    except Exception as error:  # what the hub client, safetensors and the parsers raise has no common base
        what = " ".join(str(error).split())
        if folder is None:
            raise ModelError(
                f"cannot get model {name!r} from the Hugging Face hub ({what}); without a network, download it "
                "elsewhere and give its folder"
            ) from error
        raise ModelError(
            f"cannot read model {name!r} ({what}); its folder must hold config.json, generation_config.json, "
            "preprocessor_config.json, tokenizer.json and model.safetensors"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    return network.eval(), extractor, tokenizer


def _check(name: str, config: Any, generation: Any, mel: LogMel, vocabulary: int) -> None:
    """Refuse a model whose parts do not fit together, or that the forward pass does not know.

    Raises:
        ModelError: naming the parts and their sizes.
    """
    if config.activation_function != "gelu":
        raise ModelError(f"model {name!r} has the activation {config.activation_function!r}; only 'gelu' is known")
    if mel.frames != 2 * config.max_source_positions:
        raise ModelError(
            f"model {name!r}: its feature extractor makes {mel.frames} frames but its encoder takes "
            f"{2 * config.max_source_positions}"
        )
    if mel.filters.shape[1] != config.num_mel_bins:
        raise ModelError(
            f"model {name!r}: its feature extractor makes {mel.filters.shape[1]} mel bins but its encoder takes "
            f"{config.num_mel_bins}"
        )
    if vocabulary > config.vocab_size:
        raise ModelError(f"model {name!r}: its tokenizer knows {vocabulary} tokens, its decoder {config.vocab_size}")
    if generation.decoder_start_token_id is None or generation.eos_token_id is None:
        raise ModelError(f"model {name!r}: its generation_config.json names no decoder_start_token_id or eos_token_id")


def _digest(network: Any, mel: LogMel, prompt: Prompt, tokenizer: Any) -> str:
    """Return the digest of all that can change a result, whatever files it came from."""
    config, generation = network.config, network.generation_config
    settings = {
        "heads": [config.encoder_attention_heads, config.decoder_attention_heads],
        "positions": [config.max_source_positions, config.max_target_positions],
        "mel": [mel.sample_rate, mel.samples, mel.fft, mel.hop, mel.filters.tolist()],
        "prompt": prompt.tokens,
        "end": generation.eos_token_id,
        "suppress": [generation.suppress_tokens, generation.begin_suppress_tokens],
        "vocabulary": tokenizer.get_vocab(),
    }
    content = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for key, tensor in sorted(network.state_dict().items()):
        content.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        content.update(tensor.detach().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]
