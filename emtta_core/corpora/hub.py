"""Data sets on the Hugging Face hub: which commit a revision is, what lies in it, and its files.

A commit never changes, so what was asked of one is remembered. Without a network a branch is what it was when the hub
was last asked, and files are those that were fetched; nothing there is ever run.
"""

import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from emtta_core import cache
from emtta_core.errors import CorpusError, EmttaError, UsageError

log = logging.getLogger("emtta.corpora")

HUB = "https://huggingface.co"
_KIND = "hub"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BLOCK = 1 << 20
"""Bytes read ahead of a file that is read over the network."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A data set on the hub at a revision.

    Attributes:
        name: as in `openslr/librispeech_asr`.
        revision: a branch, a tag, or a commit.
    """

    name: str
    revision: str

    @property
    def url(self) -> str:
        """Its page."""
        return f"{endpoint()}/datasets/{self.name}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit."""
        return _COMMIT.fullmatch(self.revision) is not None


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a data set at one commit.

    Attributes:
        files: bytes by path.
        configs: what the data set's card says of its configurations, as YAML has it.
        gated: whether terms must be accepted first.
    """

    files: dict[str, int]
    configs: list[dict[str, Any]]
    gated: bool


def endpoint() -> str:
    """Return the hub's address: the usual one, or what `HF_ENDPOINT` says."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def pin(repository: Repository) -> Repository:
    """Return the data set at the commit that its revision is now.

    Without a network it is the commit that it was when the hub was last asked.

    Raises:
        CorpusError: the data set is not there, or the hub cannot be reached and was never asked.
        UsageError: there is no such revision.
    """
    if repository.is_pinned:
        return repository
    key = f"{endpoint()}/{repository.name}@{repository.revision}"
    try:
        commit = _ask(repository)
    except HubUnreachableError as error:
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
        CorpusError: the data set is not there, or the hub cannot be reached.
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
        refuse_full_disk(needed, f"{len(missing)} files of {repository.name}")
    with _explained(repository):
        return [
            Path(
                fetched(repository, path)
                or huggingface_hub.hf_hub_download(
                    repository.name, path, repo_type="dataset", revision=repository.revision, endpoint=endpoint()
                )
            )
            for path in paths
        ]


def fetched(repository: Repository, path: str) -> Path | None:
    """Return a file of a pinned data set on this machine; None where it was not fetched."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(
        repository.name, path, revision=repository.revision, repo_type="dataset"
    )
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None


def refuse_gated(repository: Repository) -> None:
    """Raise a CorpusError where a pinned data set is gated and no token is set; whether one opens it shows later."""
    import huggingface_hub

    if listing(repository).gated and huggingface_hub.get_token() is None:
        raise _gated(repository)


def refuse_full_disk(needed: int, what: str) -> None:
    """Raise a CorpusError where so many bytes would not fit on the disk that the hub's files are fetched to."""
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in [place, *place.parents] if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise CorpusError(
            f"{what} take {needed / 1e9:.1f} GB, and there is {free / 1e9:.1f} GB free at {place}; make room, or set "
            "HF_HUB_CACHE to a folder on another disk"
        )


@contextmanager
def opened(repository: Repository, path: str) -> Iterator[BinaryIO]:
    """Open a file of a pinned data set over the network, of which no more is read than is asked for."""
    import huggingface_hub

    with _explained(repository):
        files = huggingface_hub.HfFileSystem(endpoint=endpoint())
        with files.open(f"datasets/{repository.name}@{repository.revision}/{path}", block_size=_BLOCK) as file:
            yield file


class HubUnreachableError(CorpusError, ConnectionError):
    """The hub does not answer, which may pass."""


_last: dict[str, dict[str, Any]] = {}
"""What the hub said in this process, by commit, should the cache be closed to writers."""


def _ask(repository: Repository) -> str:
    """Ask the hub for a data set, remember what lies in it, and return its commit."""
    import huggingface_hub

    with _explained(repository):
        info = huggingface_hub.HfApi(endpoint=endpoint()).dataset_info(
            repository.name, revision=repository.revision, files_metadata=True
        )
    card = info.card_data.to_dict() if info.card_data is not None else {}
    found = {
        "files": {file.rfilename: int(file.size or 0) for file in info.siblings or ()},
        "configs": [config for config in card.get("configs") or () if isinstance(config, dict)],
        "gated": bool(info.gated),
    }
    key = _commit_key(Repository(repository.name, str(info.sha)))
    _last[key] = found
    cache.remember(_KIND, key, found)
    return str(info.sha)


def _commit_key(repository: Repository) -> str:
    """Return under which key it is remembered what lies in a pinned data set."""
    return f"{endpoint()}/{repository.name}@{repository.revision}/files"


@contextmanager
def _explained(repository: Repository) -> Iterator[None]:
    """Say in words what the hub's library raises inside the `with` block."""
    from huggingface_hub import constants, errors

    try:
        yield
    except EmttaError:
        raise
    except errors.GatedRepoError as error:
        raise _gated(repository) from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(
            f"the data set {repository.name} has no revision {repository.revision!r}; give a branch (main), a tag, or "
            f"a commit of those at {repository.url}/commits/main"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CorpusError(
            f"there is no data set {repository.name} at {endpoint()}, or it is private and HF_TOKEN gives no access"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise HubUnreachableError(_unreachable(repository, "HF_HUB_OFFLINE is set")) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "nothing"
        kind = HubUnreachableError if isinstance(status, int) and status >= 500 else CorpusError
        raise kind(f"the hub at {endpoint()} answers {status} when asked for {repository.name}: {error}") from error
    except errors.LocalEntryNotFoundError as error:
        raise HubUnreachableError(_unreachable(repository, "it does not answer")) from error
    except errors.EntryNotFoundError as error:
        raise CorpusError(f"a file of the data set {repository.name} is gone from {repository.url}: {error}") from error
    except (errors.HTTPError, ConnectionError, TimeoutError, socket.gaierror) as error:
        raise HubUnreachableError(_unreachable(repository, str(error) or type(error).__name__)) from error
    except OSError as error:
        raise CorpusError(
            f"the data set {repository.name} cannot be kept at {constants.HF_HUB_CACHE}: {error.strerror or error}; "
            "set HF_HUB_CACHE to a folder that can be written"
        ) from error


def _gated(repository: Repository) -> CorpusError:
    """Return the refusal of a data set whose terms must be accepted."""
    import huggingface_hub

    token = "no token is set" if huggingface_hub.get_token() is None else "the token in use has no access to it"
    return CorpusError(
        f"the data set {repository.name} is gated, and {token}; accept its terms at {repository.url}, make a token "
        f"at {HUB}/settings/tokens, and set HF_TOKEN to it"
    )


def _unreachable(repository: Repository, reason: str) -> str:
    """Return what to say where the hub cannot be asked."""
    return (
        f"the data set {repository.name} cannot be had from {endpoint()}: {reason}; connect to the network and try "
        "again, or put the extracted corpus into a folder that EMTTA_CORPORA names (see docs/corpora.md)"
    )
