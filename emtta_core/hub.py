"""The Hugging Face hub, the source of models and data sets: commits, listings, files, and readable errors.

A commit never changes, so its listing is cached. If the hub does not answer, a data set's branch resolves to the commit
it had when the hub was last asked. No code from the hub is ever run.
"""

import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from emtta_core import cache
from emtta_core.errors import CorpusError, EmttaError, ModelError, UsageError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

log = logging.getLogger("emtta.hub")

HUB = "https://huggingface.co"
MAIN = "main"
TIMEOUT = 10.0
"""Time limit in seconds for the hub to describe a model or data set; `huggingface_hub`'s `resolve_revision` and
`snapshot_download` set none, and would wait forever for a hub that accepts the connection but does not respond."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRANSIENT = frozenset({408, 429})
"""Transient HTTP statuses below 500: request timeout and too many requests."""
_NO_ACCESS = frozenset({401, 403})
_BLOCK = 1 << 20
"""Bytes to read ahead in a file that is read over the network."""

_OFFLINE = {
    "model": "without a network, download it elsewhere and give its folder as the model's name",
    "dataset": "connect to the network and try again, or put the extracted corpus into a folder that EMTTA_CORPORA "
    "names (see docs/corpora.md)",
}


class UnreachableHubError(EmttaError, ConnectionError):
    """The hub does not answer, which may be temporary."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The contents of a repository at one commit."""

    commit: str
    sizes: dict[str, int]  # size of each file in bytes, by path
    blobs: dict[str, str]  # git's id of each file's content, by path
    licence: str | None  # from the card
    configs: list[dict[str, Any]]  # a data set's configurations, from the card's YAML
    gated: bool  # whether its terms must be accepted first


_listings: dict[str, Listing] = {}
"""The listings of this process, in case the cache cannot be written."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A model or a data set on the hub at a revision.

    Its methods raise `UnreachableHubError` if the hub does not answer, `UsageError` for an invalid name or revision,
    and `ModelError` or `CorpusError` if it is not available for any other reason.
    """

    kind: Literal["model", "dataset"]
    name: str  # such as `openai/whisper-base`
    revision: str = MAIN  # a branch, a tag, or a commit

    def __str__(self) -> str:
        return f"model {self.name!r}" if self.kind == "model" else f"data set {self.name}"

    @property
    def url(self) -> str:
        """The URL of its page."""
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit."""
        return _COMMIT.fullmatch(self.revision) is not None

    def ask(self) -> Listing:
        """Ask the hub for the current listing of the revision, and cache it."""
        import huggingface_hub

        with self._reworded_errors():
            info = huggingface_hub.HfApi(endpoint=endpoint()).repo_info(
                self.name, repo_type=self.kind, revision=self.revision, files_metadata=True, timeout=TIMEOUT
            )
        card = info.card_data.to_dict() if info.card_data is not None else {}
        files = info.siblings or ()
        listing = Listing(
            commit=str(info.sha),
            sizes={file.rfilename: int(file.size or 0) for file in files},
            blobs={file.rfilename: str(file.blob_id or info.sha) for file in files},
            licence=str(card["license"]) if card.get("license") else None,
            configs=[config for config in card.get("configs") or () if isinstance(config, dict)],
            gated=bool(info.gated),
        )
        key = replace(self, revision=listing.commit)._key
        _listings[key] = listing
        cache.save("hub", key, asdict(listing))
        if not self.is_pinned:
            cache.save("hub", self._key, {"commit": listing.commit})
        return listing

    def pinned(self) -> "Repository":
        """The repository at the current commit of its revision, or the last known one if the hub does not answer."""
        if self.is_pinned:
            return self
        try:
            commit = self.ask().commit
        except UnreachableHubError as error:
            known = cache.load("hub", self._key)
            if known is None:
                raise
            commit = str(known["commit"])
            log.warning("%s; continuing with %s, the last known commit of %s", error, commit, self.revision)
        return replace(self, revision=commit)

    def listing(self) -> Listing:
        """The contents of a pinned repository; the hub is asked only once."""
        known = cache.load("hub", self._key)
        return Listing(**known) if known is not None else _listings.get(self._key) or self.ask()

    def cached(self, path: str) -> Path | None:
        """The local path of a file if it has been fetched, otherwise None."""
        import huggingface_hub

        try:
            cached = huggingface_hub.try_to_load_from_cache(
                self.name, path, revision=self.revision, repo_type=self.kind
            )
        except huggingface_hub.errors.HFValidationError:  # not a valid name on the hub
            return None
        return Path(cached) if isinstance(cached, str) and Path(cached).is_file() else None

    def missing(self, paths: Sequence[str]) -> dict[str, int]:
        """The size in bytes of each file of a pinned repository that has not been fetched yet."""
        missing = [path for path in paths if self.cached(path) is None]
        sizes = self.listing().sizes if missing else {}
        return {path: sizes[path] for path in missing}

    def fetch(self, paths: Sequence[str]) -> list[Path]:
        """Fetch files of a pinned repository one after another, unless they are on this machine already."""
        refuse_full_disk(sum(self.missing(paths).values()), f"the download of {self.name}", self._refusal)
        return [self._download(path) for path in paths]

    def note_branch(self, path: str) -> None:
        """Make the library record the commit of a branch, so that it is found without a network.

        It does so when a file is requested by branch; for a file that has been fetched, only the headers are requested.
        """
        with suppress(UnreachableHubError):
            self._download(path)

    def refuse_gated(self) -> None:
        """Refuse a gated pinned repository if no token is set; whether a token gives access shows later."""
        import huggingface_hub

        if self.listing().gated and huggingface_hub.get_token() is None:
            raise self._gated()

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open a file of a pinned data set over the network; only the requested parts are read."""
        import huggingface_hub

        with self._reworded_errors():
            files = huggingface_hub.HfFileSystem(endpoint=endpoint())
            with files.open(f"datasets/{self.name}@{self.revision}/{path}", block_size=_BLOCK) as file:
                yield file

    def _download(self, path: str) -> Path:
        import huggingface_hub

        with self._reworded_errors():
            return Path(
                huggingface_hub.hf_hub_download(
                    self.name, path, repo_type=self.kind, revision=self.revision, endpoint=endpoint()
                )
            )

    @property
    def _key(self) -> str:
        return f"{endpoint()}/{self.kind}/{self.name}@{self.revision}"

    @property
    def _refusal(self) -> type[EmttaError]:
        return ModelError if self.kind == "model" else CorpusError

    @contextmanager
    def _reworded_errors(self) -> Iterator[None]:
        # Convert the errors of the hub's library inside the `with` block to readable ones.
        from huggingface_hub import constants, errors

        try:
            yield
        except EmttaError:
            raise
        except errors.HFValidationError as error:
            raise UsageError(
                f"{self} has an invalid name; a name on the hub is OWNER/NAME, of letters, digits, '.', '_' and '-' "
                "(no '--' or '..', and no '.' or '-' at the ends), with at most 96 characters"
            ) from error
        except errors.GatedRepoError as error:
            raise self._gated() from error
        except errors.RevisionNotFoundError as error:
            raise UsageError(
                f"{self} has no revision {self.revision!r}; give a branch (main), a tag, or a commit listed at "
                f"{self.url}/commits/main"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise self._refusal(
                f"there is no {self} at {endpoint()}, or it is private and HF_TOKEN gives no access"
            ) from error
        except errors.OfflineModeIsEnabled as error:
            raise self._unreachable("HF_HUB_OFFLINE is set") from error
        except errors.LocalEntryNotFoundError as error:
            if isinstance(error.__cause__, errors.HfHubHTTPError):
                raise self._http_error(error.__cause__) from error
            raise self._unreachable("it does not answer") from error
        except errors.EntryNotFoundError as error:
            raise self._refusal(f"a file of {self} is gone from {self.url}: {' '.join(str(error).split())}") from error
        except errors.HfHubHTTPError as error:
            raise self._http_error(error) from error
        except (errors.HTTPError, ConnectionError, TimeoutError, socket.gaierror) as error:
            raise self._unreachable(" ".join(str(error).split()) or type(error).__name__) from error
        except OSError as error:
            raise self._refusal(
                f"{self} cannot be saved in {constants.HF_HUB_CACHE}: {error.strerror or error}; set HF_HUB_CACHE to a "
                "writable folder"
            ) from error

    def _gated(self) -> EmttaError:
        import huggingface_hub

        token = "no token is set" if huggingface_hub.get_token() is None else "the token in use has no access to it"
        return self._refusal(
            f"{self} is gated, and {token}; accept its terms at {self.url}, create a token at {HUB}/settings/tokens, "
            "and set HF_TOKEN to it"
        )

    def _unreachable(self, reason: str) -> UnreachableHubError:
        return UnreachableHubError(f"{self} cannot be downloaded from {endpoint()}: {reason}; {_OFFLINE[self.kind]}")

    def _http_error(self, error: "HfHubHTTPError") -> EmttaError:
        status = error.response.status_code if error.response is not None else 0
        message = f"the hub at {endpoint()} answers {status} when asked for {self}: {' '.join(str(error).split())}"
        if status >= 500 or status in _TRANSIENT:
            return UnreachableHubError(message)
        if status in _NO_ACCESS:
            message += f"; check HF_TOKEN: it may have expired or lack access; create one at {HUB}/settings/tokens"
        return self._refusal(message)


def endpoint() -> str:
    """The hub's URL: the default one, or `HF_ENDPOINT`."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def free_bytes() -> tuple[int, Path]:
    """The free space, in bytes, where the hub's files are stored, and the folder."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
    return shutil.disk_usage(existing).free, folder


def refuse_full_disk(size: int, what: str, refusal: type[EmttaError]) -> None:
    """Raise `refusal` if `size` bytes do not fit on the disk where the hub's files are stored."""
    free, folder = free_bytes()
    if size > free:
        raise refusal(
            f"{what} takes {size / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free at {folder}; free space, or set "
            "HF_HUB_CACHE to a folder on another disk"
        )
