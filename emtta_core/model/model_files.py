"""Finding a model's folder by name, and checking it for missing, damaged and unusable files."""

import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from emtta_core.errors import ModelError, in_words
from emtta_core.input_files import MAX_PARAMETERS, MEBIBYTE, check_plain, limit, pointer_at, read_plain
from emtta_core.names import DEMO, FAMILIES

_JSON = frozenset(
    {
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    }
)
"""The JSON files that a model is read from."""

SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
"""The name of one of several weight files."""

_SIZES = re.compile(
    r"d_model|hidden_size|vocab_size|num_mel_bins|max_(?:source|target)_positions|intermediate_size|(?:encoder|decoder)_ffn_dim"
    r"|(?:(?:encoder_|decoder_)?num_hidden_|encoder_|decoder_|num_)layers|(?:encoder|decoder|num)_attention_heads"
)
"""The names of sizes, whole numbers above 0, in a config.json or the config of a part of the model in it."""

_MAX_SIZE = 10**18
"""A size that no model has; larger ones count as this, as they may exceed the range of floats."""

_MAX_RATIO = 4
"""How many times the parameters in the weights a config.json may ask for; a config.json of another size of the same
model is refused later, with the names of the weights."""

BUILT_IN = {
    "moonshine": "emtta_core.model.moonshine:FAMILY",
    "speech_to_text": "emtta_core.model.speech2text:FAMILY",
    "whisper": "emtta_core.model.whisper:FAMILY",
}
"""The built-in families, by the `model_type` in a model's config.json."""


TRANSFORMERS = "transformers"
"""The family by which a suite selects the generic path, whatever the model's kind."""

Layout = Literal["encoder-decoder", "decoder", "ctc"]
"""How a network is built: what generates its text, and from what."""

NO_DETECTION = (
    "languages are not detected on the generic path; set language = 'corpus' in the suite's [model], or use a "
    "multilingual Whisper without family = 'transformers'"
)
NO_STREAM = (
    "on the generic path each utterance is a separate episode, and streams are not supported; omit "
    'stream, or set stream = { reset = "utterance" } for the method'
)
"""Error messages for what the generic path does not support."""

_LARGEST_JSON = 256 * MEBIBYTE
_LONGEST_HEADER = 256 * MEBIBYTE


def folder_of(name: str) -> Path | None:
    """Find the folder that `name` refers to; None for a hub id.

    Raises:
        ModelError: if there is no such folder.
    """
    if name == DEMO:
        folder = Path(str(resources.files("emtta_core.model") / "demo"))
        if not (folder / "model.safetensors").is_file():
            raise ModelError(
                f"the demo checkpoint is not in {folder}; train it again with "
                f"emtta demo train --out {shlex.quote(str(folder))}"
            )
        return folder
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"model {name!r} is a file; name the folder that contains config.json and model.safetensors")
    parts = name.split("/")
    if len(parts) > 2 or folder.is_absolute() or parts[0] in {".", "..", "~", ""}:
        raise ModelError(
            f"no folder {name!r}; use 'demo', a folder with config.json and model.safetensors, or a hub id such as "
            "'openai/whisper-base'"
        )
    return None


def kinds() -> dict[str, str]:
    """The location of the family of each kind of model, built-in or from an installed package, by `model_type`."""
    return {point.name: point.value for point in entry_points(group=FAMILIES)} | BUILT_IN


def path_of(name: str, folder: Path, family: str | None = None) -> tuple[str, Layout | None]:
    """Determine a model's kind, and its layout if it takes the generic path (else None), from its config.json alone.

    Raises:
        ModelError: config.json is missing or broken, or the kind cannot be adapted.
    """
    try:
        kind = str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"model {name!r}: its config.json is missing or broken, or names no model_type") from error
    if family != TRANSFORMERS and (family is not None or kind in kinds()):
        return kind, None
    from emtta_core.model.transformers_model import layout_of  # imports torch

    return kind, layout_of(kind, name)


def missing_files(folder: Path) -> tuple[str, ...]:
    """Name the files that a folder lacks of those that a model is read from; () if it is complete.

    transformers silently uses an empty tokenizer if there is none, and suppresses no tokens without a generation
    config; in either case every transcript would be wrong.
    """
    names = {file.name for file in folder.iterdir() if file.is_file()}
    present = {
        "config.json": "config.json" in names,
        "generation_config.json": "generation_config.json" in names or not _needs_generation_config(folder),
        "preprocessor_config.json": _has_features(folder, names),
        "tokenizer.json (or vocab.json and merges.txt)": _has_tokenizer(folder, names),
    }
    return (*(name for name, is_present in present.items() if not is_present), *_missing_weights(folder, names))


ADAPTER = "adapter_config.json"
"""The file that identifies a PEFT adapter, such as LoRA."""


def unmerged(where: str, instead: str) -> ModelError:
    """The error for an adapter that cannot be merged into its model.

    Args:
        where: the folder or the model, for the message.
        instead: what to do to have it merged on loading.
    """
    return ModelError(
        f"{where} has {ADAPTER}: it contains a PEFT adapter (such as LoRA), and the model would run without it; "
        f"{instead}, or merge the two, and name the folder of the result: "
        "PeftModel.from_pretrained(BASE, ADAPTER).merge_and_unload().save_pretrained(FOLDER), with the tokenizer and "
        "preprocessor_config.json of the base model copied into it"
    )


def adapter_of(folder: Path) -> dict[str, Any] | None:
    """The settings of the adapter in a folder; None if there is none.

    Raises:
        ModelError: it cannot be merged into its model: PEFT is not installed, or a file or a setting is missing.
    """
    if not any((folder / name).exists() for name in (ADAPTER, "adapter_model.safetensors", "adapter_model.bin")):
        return None
    if find_spec("peft") is None:
        raise unmerged(f"the model folder {folder}", "to have it merged on loading, pip install 'emtta[peft]'")
    settings = _settings(folder / ADAPTER)
    if not settings.get("base_model_name_or_path") or not (folder / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"the model folder {folder} has an adapter, but lacks a readable {ADAPTER} with base_model_name_or_path, "
            "or adapter_model.safetensors (pickled weights, adapter_model.bin, are not read); save the adapter again "
            "with its save_pretrained"
        )
    return settings


def refuse_unusable(folder: Path) -> None:
    """Refuse a folder with unsupported or contradictory content; says what to do.

    Raises:
        ModelError: it has quantised weights, the weights of two models, or a config.json whose sizes do not match its
            weights.
    """
    names = {file.name for file in folder.iterdir()}
    shards = sorted(name for name in names if SHARD.fullmatch(name))
    if shards and "model.safetensors" in names:
        raise ModelError(
            f"the model folder {folder} has model.safetensors and {shards[0]}: the weights of two models, one of which "
            "would not be read; remove one of them"
        )
    config = _settings(folder / "config.json")
    if config.get("quantization_config"):
        raise ModelError(
            f"the model folder {folder} has quantised weights (quantization_config in its config.json), which are not "
            "supported; load the model in transformers, dequantize() and save_pretrained() it, or use the original "
            "model"
        )
    _check_sizes(folder, config)


def _check_sizes(folder: Path, config: Mapping[str, Any]) -> None:
    # Refuse a config.json that asks for far more parameters than the weights have, before transformers allocates them.
    parts = list(_parts(config))
    sizes = [(name, value) for part in parts for name, value in part.items() if _SIZES.fullmatch(name)]
    for name, value in sizes:
        if isinstance(value, bool) or not isinstance(value, int | None) or (value is not None and value < 1):
            raise ModelError(
                f"the model folder {folder}: {name} is {value!r} in its config.json; it must be a whole number above "
                "0: take config.json and weights from the same model"
            )
    needed, stored, maximum = (
        sum(map(_configured_parameters, parts)),
        _stored_parameters(folder),
        limit(MAX_PARAMETERS),
    )
    if stored is not None and needed > _MAX_RATIO * stored:
        raise ModelError(
            f"the model folder {folder}: its config.json asks for about {needed:.3g} parameters, but its weights have "
            f"{stored:.3g}; take config.json and weights from the same model"
        )
    if needed > maximum:
        raise ModelError(
            f"the model folder {folder}: its config.json asks for about {needed:.3g} parameters, and the limit is "
            f"{maximum:.3g}; set {MAX_PARAMETERS} to more if this is correct"
        )


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    # A config and those of the model's parts in it, such as text_config and audio_config.
    yield config
    for value in config.values():
        if isinstance(value, dict):
            yield from _parts(value)


def _configured_parameters(part: Mapping[str, Any]) -> float:
    # Approximately how many parameters a config, without nested ones, asks for; 0 if it names no such sizes.
    def size(*names: str) -> float:
        value = next((part[name] for name in names if part.get(name) is not None), 0)
        return float(min(value, _MAX_SIZE))

    width = size("d_model", "hidden_size")
    layers = 0.0
    for half, attentions in (("encoder", 1), ("decoder", 2)):
        inside = attentions * 4 * width**2 + 2 * width * size(f"{half}_ffn_dim", "intermediate_size")
        layers += size(f"{half}_layers", f"{half}_num_hidden_layers") * inside
    if not layers:
        layers = size("num_hidden_layers", "num_layers") * (2 * width**2 + 2 * width * size("intermediate_size"))
    return layers + width * size("vocab_size") + width * (size("max_source_positions") + size("max_target_positions"))


def _stored_parameters(folder: Path) -> int | None:
    # How many parameters the weights have, by the headers of their files; None if these cannot be read.
    count = 0
    try:
        for path in folder.glob("*.safetensors"):
            size = check_plain(path).st_size
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if length > min(size, _LONGEST_HEADER):
                    return None
                header = json.loads(file.read(length))
            tensors = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
            count += sum(math.prod(shape) for shape in tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # reading them will report why
    return count or None


def check_complete(folder: Path) -> None:
    """Raise a ModelError if a folder lacks a file that a model is read from, or one is damaged; says what to do."""
    for name in sorted(file.name for file in folder.iterdir() if file.suffix == ".json"):
        try:
            check_plain(folder / name, max_bytes=_LARGEST_JSON)
        except OSError as error:
            raise ModelError(
                f"the model folder {folder}: {name} cannot be read: {error.strerror}; replace it"
            ) from error
    files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    for file in files:
        pointer = pointer_at(file)
        if pointer is not None:
            raise ModelError(f"the model's file {file} cannot be read: {pointer}")
    refuse_unusable(folder)
    missing = missing_files(folder)
    if missing:
        raise ModelError(
            f"the model folder {folder} lacks {', '.join(missing)}; copy what training does not write beside the "
            "weights from the model that it started from"
        )
    for file in files:
        fault = _fault(file)
        if fault is not None:
            raise ModelError(f"the model's file {file} is cut off or damaged ({fault}); get it again")


def _fault(file: Path) -> str | None:
    # What is wrong with a JSON file, or with weights, whose length is checked against their header.
    from safetensors import SafetensorError, safe_open

    try:
        if file.name in _JSON:
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".safetensors":
            with safe_open(file, framework="np"):
                pass
    except (OSError, ValueError, SafetensorError) as error:
        return in_words(error)
    return None


def _has_features(folder: Path, names: set[str]) -> bool:
    # Since release 5, transformers writes the feature extractor's settings there (processing_utils.py).
    return "preprocessor_config.json" in names or (
        "processor_config.json" in names and "feature_extractor" in _settings(folder / "processor_config.json")
    )


def _has_tokenizer(folder: Path, names: set[str]) -> bool:
    is_ctc = "vocab.json" in names and any(  # a CTC model's classes need no merges
        str(name).endswith("ForCTC") for name in _settings(folder / "config.json").get("architectures") or ()
    )
    return (
        is_ctc
        or not names.isdisjoint({"tokenizer.json", "vocab.txt"})
        or {"vocab.json", "merges.txt"} <= names
        or any(name.endswith(".model") for name in names)
    )


def _needs_generation_config(folder: Path) -> bool:
    # For a Whisper, if nothing else says which tokens are suppressed. In older fine-tuned models config.json has the
    # lists, which may be empty.
    config = _settings(folder / "config.json")
    lists = (config.get("suppress_tokens"), config.get("begin_suppress_tokens"))
    return config.get("model_type") == "whisper" and lists == (None, None)


def _missing_weights(folder: Path, names: set[str]) -> list[str]:
    if "model.safetensors" in names:
        return []
    index = "model.safetensors.index.json"
    if index not in names:
        return [f"model.safetensors (or {index} and its shards)"]
    shards = _settings(folder / index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        return [f"the names of its shards in {index}"]
    return sorted({str(shard) for shard in shards.values()} - names)


def _settings(file: Path) -> dict[str, Any]:
    # A JSON object; empty if the file is missing or broken, which is reported when it is read.
    try:
        settings = json.loads(read_plain(file, max_bytes=_LARGEST_JSON))
    except (OSError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}
