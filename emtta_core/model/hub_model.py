"""Models on the Hugging Face hub: what would be fetched of one, and its folder.

Only the files that are read are fetched: configuration, tokenizer, and weights in safetensors. A commit that is on this
machine is read without contacting the hub; without a network, a branch is at the commit last fetched.
"""

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from emtta_core import hub
from emtta_core.errors import ModelError
from emtta_core.hub import MAIN, Repository, UnreachableHubError
from emtta_core.model.model_files import ADAPTER, SHARD, adapter_of, folder_of, missing_files, unmerged

log = logging.getLogger("emtta.model")

_SMALL = re.compile(r"[^/]+\.(?:json|model)|merges\.txt|vocab\.txt|chat_template\.jinja")
"""Files besides the weights that a model is read from."""


@dataclass(frozen=True, slots=True)
class Download:
    """A model on the hub at one commit."""

    repository: Repository  # at that commit
    licence: str  # as stated on its card
    paths: tuple[str, ...]  # the files that are read, the weights last
    missing: Mapping[str, int]  # bytes of each of them that is not on this machine

    @property
    def size(self) -> int:
        """Bytes that would be fetched."""
        return sum(self.missing.values())

    def message(self) -> str:
        """The message before it is fetched: name, commit, licence, size, and free disk space."""
        model, (free, folder) = self.repository, hub.free_bytes()
        return (
            f"model {model.name} at commit {model.revision[:12]}, licence {self.licence}: {self.size / 1e6:,.1f} MB to "
            f"fetch from {model.url} into {folder}, where {free / 1e9:,.1f} GB are free"
        )

    def refuse_full_disk(self) -> None:
        """Raise a ModelError if it would not fit on the disk."""
        hub.refuse_full_disk(self.size, str(self.repository), ModelError)


def find_download(name: str, revision: str | None) -> Download:
    """Ask the hub for a model.

    Raises:
        UnreachableHubError: the hub does not answer; says what is missing of a partially fetched model.
        UsageError: the model has no such revision.
        ModelError: there is no such model, no access to it, or it has no weights in safetensors.
    """
    model = Repository("model", name, revision or MAIN)
    try:
        listing = model.ask()
    except UnreachableHubError as error:
        config = model.cached("config.json")
        missing = () if config is None else missing_files(config.parent)
        if config is None or not missing:
            raise
        raise UnreachableHubError(f"{error}; {config.parent} exists but lacks {', '.join(missing)}") from error
    # The weights come last, so that a folder with weights is complete.
    paths = (*filter(_SMALL.fullmatch, listing.sizes), *_weights(name, listing.sizes))
    pinned = replace(model, revision=listing.commit)
    return Download(pinned, listing.licence or "not named on its card", paths, pinned.missing(paths))


def fetch(name: str, revision: str | None) -> Path:
    """Fetch what is missing of a model, and return its folder.

    Raises:
        ModelError: it is not available, or there is too little disk space.
    """
    model = Repository("model", name, revision or MAIN)
    folder = folder_of_commit(name, model.revision)
    if folder is not None and model.is_pinned:
        return folder
    try:
        offered = find_download(name, revision)
    except UnreachableHubError as error:
        if folder is None:
            raise
        log.warning("%s; continuing with its commit %s, which is on this machine", error, folder.name)
        return folder
    if offered.missing:
        log.info("%s", offered.message())
    fetched = offered.repository.fetch(offered.paths)[-1].parent
    if folder != fetched:
        model.note_branch("config.json")
    return fetched


def is_cached(name: str, revision: str | None) -> bool:
    """Whether a model can be read without contacting the hub: its revision is a commit that is on this machine."""
    model = Repository("model", name, revision or MAIN)
    return model.is_pinned and folder_of_commit(name, model.revision) is not None


def folder_of_commit(name: str, revision: str | None) -> Path | None:
    """The folder of a model on this machine, named after its commit; None if it is incomplete.

    Other programs fetch into the same folder, and not always a complete model.
    """
    config = Repository("model", name, revision or MAIN).cached("config.json")
    return None if config is None or missing_files(config.parent) else config.parent


def base_of(folder: Path) -> Path | None:
    """The folder of the model that the adapter in a folder belongs to; None if the folder contains no adapter.

    Raises:
        ModelError: the adapter cannot be merged, or its model is not on this machine.
    """
    adapter = adapter_of(folder)
    if adapter is None:
        return None
    name, revision = str(adapter["base_model_name_or_path"]), adapter.get("revision")
    try:
        base = folder_of(name) or folder_of_commit(name, revision)
    except ModelError as error:
        raise ModelError(f"the adapter in {folder} belongs to the model {name!r}: {error}") from error
    if base is None:
        raise ModelError(
            f"the adapter in {folder} belongs to the model {name!r} at {revision or 'main'}, which is not on this "
            f"machine; fetch it with hf download {name}"
        )
    return base


def _weights(name: str, paths: Collection[str]) -> list[str]:
    if ADAPTER in paths:
        raise unmerged(f"model {name!r}", "to have it merged on loading, download its files and name their folder")
    if "model.safetensors" in paths:
        return ["model.safetensors"]
    shards = [path for path in paths if SHARD.fullmatch(path)]
    if not shards or "model.safetensors.index.json" not in paths:
        raise ModelError(no_safetensors(name))
    return shards


def no_safetensors(name: str) -> str:
    """The error message for a model without weights in safetensors."""
    return (
        f"model {name!r} has no weights in safetensors, and pickled ones (pytorch_model.bin) are not read, since "
        "reading them can run code; if you trust them, convert them with "
        "AutoModelForSpeechSeq2Seq.from_pretrained(…).save_pretrained(FOLDER) in transformers, and name that folder"
    )
