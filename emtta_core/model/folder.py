"""The folder that the name of a model means, and what it lacks of the files that a model is read from."""

import json
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

from emtta_core.errors import ModelError, first_line
from emtta_core.names import DEMO
from emtta_core.pointers import pointer_at

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
"""The files of JSON that a model is read from."""


def folder_of(name: str) -> Path | None:
    """Return the folder that `name` means, None for a hub id.

    Raises:
        ModelError: if there is no such folder.
    """
    if name == DEMO:
        folder = Path(str(resources.files("emtta_core.model") / "demo"))
        if not (folder / "model.safetensors").is_file():
            raise ModelError(
                f"the demo checkpoint is not in {folder}; this makes it anew: "
                f"emtta demo train --out {shlex.quote(str(folder))}"
            )
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


def lacking(folder: Path) -> tuple[str, ...]:
    """Return what a folder lacks of the files that a model is read from, as messages name it; () where it is whole.

    Without a tokenizer transformers takes an empty one, and without a generation config it suppresses no token: neither
    is refused there, and no transcript would be right.
    """
    there = {file.name for file in folder.iterdir() if file.is_file()}
    found = {
        "config.json": "config.json" in there,
        "generation_config.json": "generation_config.json" in there or not _needs_generation_config(folder),
        "preprocessor_config.json": _has_features(folder, there),
        "tokenizer.json (or vocab.json and merges.txt)": _has_tokenizer(there),
    }
    return (*(name for name, is_there in found.items() if not is_there), *_lacking_weights(folder, there))


def refuse_lacking(folder: Path) -> None:
    """Raise a ModelError where a folder lacks a file that a model is read from, or one is damaged; says what to do."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    for file in files:
        pointer = pointer_at(file)
        if pointer is not None:
            raise ModelError(f"the model's file {file} cannot be read: {pointer}")
    lacks = lacking(folder)
    if lacks:
        raise ModelError(
            f"the model folder {folder} lacks {', '.join(lacks)}; what training does not write beside the weights, "
            "copy from the model that it began with"
        )
    for file in files:
        fault = _fault(file)
        if fault is not None:
            raise ModelError(f"the model's file {file} is cut off or damaged ({fault}); get it anew")


def _fault(file: Path) -> str | None:
    """Say what is wrong with a file of JSON, or with the header of weights, against which its length is checked."""
    from safetensors import SafetensorError, safe_open

    try:
        if file.name in _JSON:
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".safetensors":
            with safe_open(file, framework="np"):
                pass
    except (OSError, ValueError, SafetensorError) as error:
        return first_line(error)
    return None


def _has_features(folder: Path, there: set[str]) -> bool:
    """Return whether there is what makes features of audio."""
    # since release 5 transformers writes the features' settings there (processing_utils.py)
    return "preprocessor_config.json" in there or (
        "processor_config.json" in there and "feature_extractor" in _settings(folder / "processor_config.json")
    )


def _has_tokenizer(there: set[str]) -> bool:
    """Return whether there is what makes text of tokens."""
    return (
        not there.isdisjoint({"tokenizer.json", "vocab.txt"})
        or {"vocab.json", "merges.txt"} <= there
        or any(name.endswith(".model") for name in there)
    )


def _needs_generation_config(folder: Path) -> bool:
    """Return whether a Whisper needs a generation config, since nothing else says which tokens are suppressed.

    In older fine-tuned models config.json has the lists, of which an empty one is one too.
    """
    config = _settings(folder / "config.json")
    lists = (config.get("suppress_tokens"), config.get("begin_suppress_tokens"))
    return config.get("model_type") == "whisper" and lists == (None, None)


def _lacking_weights(folder: Path, there: set[str]) -> list[str]:
    """Return what there is not of the weights in safetensors."""
    if "model.safetensors" in there:
        return []
    index = "model.safetensors.index.json"
    if index not in there:
        return [f"model.safetensors (or {index} and its shards)"]
    shards = _settings(folder / index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        return [f"the names of its shards in {index}"]
    return sorted({str(shard) for shard in shards.values()} - there)


def _settings(file: Path) -> dict[str, Any]:
    """Return what stands in a file of JSON; nothing where it is missing or broken, which whoever reads it says."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
