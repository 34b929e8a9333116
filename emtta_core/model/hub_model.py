"""Models on the Hugging Face hub: which commit a revision is, what would be fetched of it, and the folder it lies in.

Of a model's files those alone are fetched that are read: configuration, tokenizer, and weights in safetensors. A commit
that is here is read without asking the hub; a branch is what it was when it was last asked, where there is no network.
"""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emtta_core import hub
from emtta_core.errors import ModelError
from emtta_core.model.files import ADAPTER, SHARD, lacking, unmerged

log = logging.getLogger("emtta.model")

MAIN = "main"

_SMALL = re.compile(r"[^/]+\.(?:json|model)|merges\.txt|vocab\.txt")
"""Files besides the weights that a model is read from."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the hub has of a model at one commit."""

    name: str  # as in `openai/whisper-base`
    commit: str  # of the revision that was asked for
    licence: str  # as its card says
    sizes: Mapping[str, int]  # bytes of each file that is read
    missing: tuple[str, ...]  # those of them that are not on this machine

    @property
    def size(self) -> int:
        """Bytes that would be fetched."""
        return sum(self.sizes[path] for path in self.missing)

    @property
    def url(self) -> str:
        """Its page."""
        return _asked(self.name, self.commit).url

    def message(self) -> str:
        """What is announced before it is fetched: name, commit, licence, size, and the room for it."""
        free, folder = hub.free_bytes()
        return (
            f"model {self.name} at commit {self.commit[:12]}, licence {self.licence}: {self.size / 1e6:,.1f} MB to be "
            f"fetched from {self.url} into {folder}, where {free / 1e9:,.1f} GB are free"
        )

    def refuse_full_disk(self) -> None:
        """Raise a ModelError where it would not fit on the disk."""
        hub.refuse_full_disk(self.size, f"model {self.name!r}", ModelError)


def offer(name: str, revision: str | None) -> Offer:
    """Ask the hub for a model.

    Raises:
        UnreachableHubError: it does not answer; says what is missing of a model that is here in part.
        UsageError: the model has no such revision.
        ModelError: it has no such model, gives no access, or no weights in safetensors.
    """
    import huggingface_hub

    try:
        with hub.explained(_asked(name, revision)):
            info = huggingface_hub.HfApi(endpoint=hub.endpoint()).model_info(
                name, revision=revision, files_metadata=True, timeout=hub.TIMEOUT
            )
    except hub.UnreachableHubError as error:
        config = hub.cached("model", name, "config.json", revision or MAIN)
        lacks = () if config is None else lacking(config.parent)
        if config is None or not lacks:
            raise
        raise hub.UnreachableHubError(f"{error}; {config.parent} is here, and lacks {', '.join(lacks)}") from error
    there = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
    sizes = {path: there[path] for path in (*filter(_SMALL.fullmatch, there), *_weights(name, there))}
    licence = info.card_data.get("license") if info.card_data is not None else None
    commit = str(info.sha)
    missing = tuple(path for path in sizes if hub.cached("model", name, path, commit) is None)
    return Offer(name, commit, str(licence or "not named on its card"), sizes, missing)


def fetch(name: str, revision: str | None) -> Path:
    """Find the folder of a model, and fetch the model where it is not there yet.

    Raises:
        ModelError: it cannot be had, or there is too little room on the disk for it.
    """
    known = pinned(name, revision)
    if known is not None:
        return known
    try:
        offered = offer(name, revision)
    except hub.UnreachableHubError as error:
        known = folder_of_commit(name, revision or MAIN)
        if known is None:
            raise
        log.warning("%s; going on with commit %s of it, which is on this machine", error, known.name)
        return known
    if offered.missing:
        offered.refuse_full_disk()
        log.info("%s", offered.message())
    return _download(offered, revision)


def pinned(name: str, revision: str | None) -> Path | None:
    """The folder of a model of which the hub need not be asked: a commit that is on this machine."""
    return folder_of_commit(name, revision) if revision is not None and hub.COMMIT.fullmatch(revision) else None


def folder_of_commit(name: str, revision: str) -> Path | None:
    """The folder of a model on this machine, named by its commit; None where it does not hold all that is read.

    Others fetch into the same folder, and not always the whole of a model.
    """
    config = hub.cached("model", name, "config.json", revision)
    return None if config is None or lacking(config.parent) else config.parent


def _download(offered: Offer, revision: str | None) -> Path:
    # Fetch what is missing, the weights last, so that a folder with weights has all; return the folder.
    import huggingface_hub

    weights = [path for path in offered.sizes if path.endswith(".safetensors")]
    others = [path for path in offered.sizes if path not in weights]
    with hub.explained(_asked(offered.name, revision)):
        for path in (*others, *weights):
            file = huggingface_hub.hf_hub_download(offered.name, path, revision=offered.commit, endpoint=hub.endpoint())
        _record_branch(offered, revision or MAIN)
    return Path(file).parent


def _record_branch(offered: Offer, revision: str) -> None:
    # Record which commit a branch is, where the hub's own library does when it is asked for a branch. A cache that
    # cannot be written stays as it is, for the files can be read all the same.
    from huggingface_hub import constants, file_download

    if hub.COMMIT.fullmatch(revision):
        return
    folder = Path(constants.HF_HUB_CACHE) / file_download.repo_folder_name(repo_id=offered.name, repo_type="model")
    reference = folder / "refs" / revision
    try:
        if reference.is_file() and reference.read_text(encoding="utf-8") == offered.commit:
            return
        reference.parent.mkdir(parents=True, exist_ok=True)
        begun = reference.with_name(f"{reference.name}.{os.getpid()}.tmp")  # others may read it meanwhile
        begun.write_text(offered.commit, encoding="utf-8")
        begun.replace(reference)
    except OSError as error:
        log.info("it is not written down that %s of %s is %s: %s", revision, offered.name, offered.commit, error)


def _weights(name: str, there: Mapping[str, int]) -> list[str]:
    """Choose the files of weights, of those that are there.

    Raises:
        ModelError: there are none in safetensors, or they are those of an adapter.
    """
    if ADAPTER in there:
        raise unmerged(f"model {name!r}")
    if "model.safetensors" in there:
        return ["model.safetensors"]
    shards = [path for path in there if SHARD.fullmatch(path)]
    if not shards or "model.safetensors.index.json" not in there:
        raise ModelError(no_safetensors(name))
    return shards


def no_safetensors(name: str) -> str:
    """The refusal of a model without weights in safetensors."""
    return (
        f"model {name!r} has no weights in safetensors, and pickled ones (pytorch_model.bin) are not read, since "
        "reading them can run code; where you trust them, write them anew: "
        "AutoModelForSpeechSeq2Seq.from_pretrained(…).save_pretrained(FOLDER) in transformers, and give that folder"
    )


def _asked(name: str, revision: str | None) -> hub.Asked:
    elsewhere = "without a network, download it elsewhere and give its folder as the model's name"
    return hub.Asked(f"model {name!r}", f"{hub.endpoint()}/{name}", revision, ModelError, elsewhere)
