"""Loading a model from the demo checkpoint, a folder, or the Hugging Face hub."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from emtta_core.errors import EmttaError, ModelError, UsageError, in_words
from emtta_core.faults import is_out_of_memory
from emtta_core.model import hub_model, transformers_model
from emtta_core.model.family import Family, Parts, family_of
from emtta_core.model.model_files import Layout, folder_of, path_of, refuse_unusable
from emtta_core.model.speech_model import Model, SpeechModel
from emtta_core.model.weights import choose_precision


def load_model(
    name: str | Path,
    *,
    device: str = "auto",
    precision: str = "float32",
    revision: str | None = None,
    family: str | None = None,
    tokens_per_second: float | None = None,
) -> Model:
    """Load a speech model with its feature extractor, tokenizer and generation config.

    A kind with a family becomes a `SpeechModel`, on the fast path; any other that transformers loads becomes a
    `TransformersModel`, on the generic path.

    Weights are read only from safetensors files, and no code that comes with a model is run.

    Args:
        name: "demo", a folder in the layout of `from_pretrained`, or a hub id such as "openai/whisper-base".
        device: "cpu", "cuda", "cuda:1", …; "auto": the first GPU if there is one.
        precision: one of `emtta_core.model.weights.PRECISIONS`.
        revision: for a hub id, a branch, tag or commit; None: the main branch.
        family: how to read it, as `module:object`, or "transformers" for the generic path; None: by the `model_type`
            in its config.json.
        tokens_per_second: the maximum number of tokens of a candidate or a hypothesis per second of audio; 12 more are
            always allowed, but never more than the decoder's positions. None: as many as the language needs, at least
            12.

    Raises:
        ModelError: if there is no such model, one of its files is missing or broken, or its kind is unknown.
        UsageError: for an unknown device, precision or family, or tokens_per_second not above zero.
    """
    if tokens_per_second is not None and not tokens_per_second > 0:
        raise UsageError(
            f"tokens_per_second is {tokens_per_second!r}; it must be above 0, or omitted for what the language needs"
        )
    choose_precision(precision, choose_device(device))
    name = str(name)
    local = folder_of(name)
    folder = hub_model.fetch(name, revision) if local is None else local
    kind, parts = _read(name, folder, family)
    model: Model
    if isinstance(kind, str):
        digest = _digest(transformers_model.settings_of(parts), parts.network.state_dict())
        target = choose_device(device)
        chosen = choose_precision(precision, target)
        model = transformers_model.make(name, parts, kind, digest=digest, device=target, precision=chosen)
    else:
        model = from_parts(kind, parts, name=name, device=device, precision=precision)
    return replace(model, policy=replace(model.policy, tokens_per_second=tokens_per_second))


def from_transformers(
    network: Any, extractor: Any, tokenizer: Any, *, name: str, device: str = "auto", precision: str = "float32"
) -> SpeechModel:
    """Make a model from transformers' own objects, which are not changed.

    Args:
        network: for example a `WhisperForConditionalGeneration`, with its generation config.
        extractor: its feature extractor.
        tokenizer: its tokenizer.
        name: its name in messages.
        device: as for `load_model`.
        precision: as for `load_model`.

    Raises:
        ModelError: if its parts do not fit together, or its kind is unknown.
        UsageError: for an unknown device or precision.
    """
    family = family_of(network.config.model_type, name)
    return from_parts(family, Parts(network, extractor, tokenizer), name=name, device=device, precision=precision)


def from_parts(
    family: Family, parts: Parts, *, name: str, device: str = "auto", precision: str = "float32"
) -> SpeechModel:
    """Make a model of a family from its parts, which are not changed; see `from_transformers`."""
    target = choose_device(device)
    chosen = choose_precision(precision, target)
    prepared = family.make(name, parts, device=target, precision=chosen)
    return SpeechModel(
        name=name,
        digest=_digest(prepared.settings, parts.network.state_dict()),
        weights=prepared.weights,
        front_end=prepared.front_end,
        policy=prepared.policy,
        prompt=prepared.prompt,
        tokenizer=parts.tokenizer,
        precision=chosen,
    )


def choose_device(name: str) -> torch.device:
    """Find a device by its name; "auto" is the first GPU if there is one, otherwise the CPU.

    Raises:
        UsageError: if there is no such device, or it cannot be used; says why.
        RuntimeError: torch's error if the device has no memory left.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        raise UsageError(
            f"device {name!r} cannot be used on this machine ({in_words(error)}); use 'auto', 'cpu', or 'cuda' on "
            "one with a free GPU"
        ) from error
    return device


def _read(name: str, folder: Path, requested: str | None) -> tuple[Family | Layout, Parts]:
    from transformers import PreTrainedConfig
    from transformers.utils import logging

    base = hub_model.base_of(folder)
    if base is not None:
        reader, parts = _read(name, base, requested)
        return reader, replace(parts, network=_merged(parts.network, folder))
    refuse_unusable(folder)
    if not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin")):
        raise ModelError(hub_model.no_safetensors(name))
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        config, _ = PreTrainedConfig.get_config_dict(str(folder), local_files_only=True)
        if "model_type" not in config:
            raise ValueError("its config.json is missing or names no model_type")
        kind = str(config["model_type"])
        _, layout = path_of(name, folder, requested)
        if layout is not None:
            return layout, transformers_model.read(folder, layout, kind)
        family = family_of(kind, name, requested)
        return family, family.read(folder)
    except EmttaError:
        raise
    except Exception as error:  # what the hub client, safetensors and the parsers raise has no common base
        what = " ".join(str(error).split())
        raise ModelError(
            f"cannot read model {name!r} ({what}); its folder{'' if str(folder) == name else f' {folder}'} must hold "
            "config.json, generation_config.json, preprocessor_config.json, tokenizer.json (or vocab.json and "
            "merges.txt) and model.safetensors (or model.safetensors.index.json and its shards)"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()


def _merged(network: Any, folder: Path) -> Any:
    # The network with the adapter in a folder merged into its weights.
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(network, str(folder)).merge_and_unload().eval()
    except Exception as error:  # what PEFT raises has no common base
        raise ModelError(
            f"the adapter in {folder} does not fit the model that it names ({in_words(error)}); use the model that it "
            "was trained on"
        ) from error


def _digest(settings: dict[str, Any], state: dict[str, torch.Tensor]) -> str:
    # The digest of everything that can change a result, whatever files it came from.
    content = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for key, tensor in sorted(state.items()):
        content.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]
