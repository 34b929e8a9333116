"""Data sets on the Hugging Face hub: which commit a revision is, what lies in it, and its files.

A commit never changes, so what was asked of one is remembered. Without a network a branch is what it was when the hub
was last asked, and files are those that were fetched; nothing there is ever run.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from emtta_core import cache, hub
from emtta_core.errors import CorpusError

log = logging.getLogger("emtta.corpora")

_KIND = "hub"
_ELSEWHERE = (
    "connect to the network and try again, or put the extracted corpus into a folder that EMTTA_CORPORA names (see "
    "docs/corpora.md)"
)
_BLOCK = 1 << 20
"""Bytes read ahead of a file that is read over the network."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A data set on the hub at a revision."""

    name: str  # as in `openslr/librispeech_asr`
    revision: str  # a branch, a tag, or a commit

    @property
    def url(self) -> str:
        """Its page."""
        return f"{hub.endpoint()}/datasets/{self.name}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit."""
        return hub.COMMIT.fullmatch(self.revision) is not None

    @property
    def asked(self) -> hub.Asked:
        """It, as the hub is asked for it."""
        return hub.Asked(f"data set {self.name}", self.url, self.revision, CorpusError, _ELSEWHERE)


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a data set at one commit."""

    files: dict[str, int]  # bytes by path
    contents: dict[str, str]  # what git calls the content of each file, by path: it changes with the content alone
    configs: list[dict[str, Any]]  # what the data set's card says of its configurations, as YAML has it
    gated: bool  # whether terms must be accepted first


def pin(repository: Repository) -> Repository:
    """Return the data set at the commit that its revision is now.

    Without a network it is the commit that it was when the hub was last asked.

    Raises:
        UnreachableHubError: the hub cannot be reached, and was never asked.
        CorpusError: the data set is not there.
        UsageError: there is no such revision.
    """
    if repository.is_pinned:
        return repository
    key = f"{hub.endpoint()}/{repository.name}@{repository.revision}"
    try:
        commit = _ask(repository)
    except hub.UnreachableHubError as error:
        known = cache.recall(_KIND, key)
        if known is None:
            raise
        commit = str(known["commit"])
        log.warning("%s; going on with %s, the last one known of %s", error, commit, repository.revision)
    cache.remember(_KIND, key, {"commit": commit})
    return Repository(repository.name, commit)


def listing(repository: Repository) -> Listing:
    """Return what lies in a pinned data set.

    Raises:
        UnreachableHubError: the hub cannot be reached.
        CorpusError: the data set is not there.
    """
    key = _commit_key(repository)
    known = cache.recall(_KIND, key)
    if known is None:
        _ask(repository)
        known = cache.recall(_KIND, key) or _last[key]
    return Listing(**known)


def fetch(repository: Repository, paths: Sequence[str]) -> list[Path]:
    """Return files of a pinned data set on this machine, fetched where they are not yet.

    Raises:
        CorpusError: they cannot be had, or there is too little room on the disk for them.
    """
    import huggingface_hub

    missing = [path for path in paths if fetched(repository, path) is None]
    if missing:
        needed = sum(listing(repository).files[path] for path in missing)
        hub.refuse_full_disk(needed, f"what is fetched of {repository.name}", CorpusError)
    with hub.explained(repository.asked):
        return [
            Path(
                fetched(repository, path)
                or huggingface_hub.hf_hub_download(
                    repository.name, path, repo_type="dataset", revision=repository.revision, endpoint=hub.endpoint()
                )
            )
            for path in paths
        ]


def fetched(repository: Repository, path: str) -> Path | None:
    """Return a file of a pinned data set on this machine; None where it was not fetched."""
    return hub.cached("dataset", repository.name, path, repository.revision)


def refuse_gated(repository: Repository) -> None:
    """Raise a CorpusError where a pinned data set is gated and no token is set; whether one opens it shows later."""
    import huggingface_hub

    if listing(repository).gated and huggingface_hub.get_token() is None:
        raise repository.asked.gated()


@contextmanager
def opened(repository: Repository, path: str) -> Iterator[BinaryIO]:
    """Open a file of a pinned data set over the network, of which no more is read than is asked for."""
    import huggingface_hub

    with hub.explained(repository.asked):
        files = huggingface_hub.HfFileSystem(endpoint=hub.endpoint())
        with files.open(f"datasets/{repository.name}@{repository.revision}/{path}", block_size=_BLOCK) as file:
            yield file


_last: dict[str, dict[str, Any]] = {}
"""What the hub said in this process, by commit, should the cache be closed to writers."""


def _ask(repository: Repository) -> str:
    # Ask the hub for a data set, remember what lies in it, and return its commit.
    import huggingface_hub

    with hub.explained(repository.asked):
        info = huggingface_hub.HfApi(endpoint=hub.endpoint()).dataset_info(
            repository.name, revision=repository.revision, files_metadata=True, timeout=hub.TIMEOUT
        )
    card = info.card_data.to_dict() if info.card_data is not None else {}
    found = {
        "files": {file.rfilename: int(file.size or 0) for file in info.siblings or ()},
        "contents": {file.rfilename: str(file.blob_id or info.sha) for file in info.siblings or ()},
        "configs": [config for config in card.get("configs") or () if isinstance(config, dict)],
        "gated": bool(info.gated),
    }
    key = _commit_key(Repository(repository.name, str(info.sha)))
    _last[key] = found
    cache.remember(_KIND, key, found)
    return str(info.sha)


def _commit_key(repository: Repository) -> str:
    return f"{hub.endpoint()}/{repository.name}@{repository.revision}/contents"
