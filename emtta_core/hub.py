"""The Hugging Face hub, from which models and data sets come: commits, listings, files, and its errors in words.

A commit never changes, so its listing is cached. Where the hub does not answer, a branch of a data set is the commit
that it was when the hub was last asked. Nothing that lies on the hub is ever run.
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
"""Seconds that the hub has to describe a model or a data set; `resolve_revision` and `snapshot_download` of
`huggingface_hub` set no limit, and would wait for ever for a hub that accepts and says nothing."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRANSIENT = frozenset({408, 429})
"""Statuses below 500 that may pass: request timeout and too many requests."""
_NO_ACCESS = frozenset({401, 403})
_BLOCK = 1 << 20
"""Bytes read ahead of a file that is read over the network."""

_ELSEWHERE = {
    "model": "without a network, download it elsewhere and give its folder as the model's name",
    "dataset": "connect to the network and try again, or put the extracted corpus into a folder that EMTTA_CORPORA "
    "names (see docs/corpora.md)",
}


class UnreachableHubError(EmttaError, ConnectionError):
    """The hub does not answer, which may pass."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a repository at one commit."""

    commit: str
    sizes: dict[str, int]  # bytes of each file by path
    blobs: dict[str, str]  # git's id of each file's content by path
    licence: str | None  # as the card says
    configs: list[dict[str, Any]]  # a data set's configurations, as the card's YAML has them
    gated: bool  # whether terms must be accepted first


_listings: dict[str, Listing] = {}
"""The listings of this process, for where the cache cannot be written."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A model or a data set on the hub at a revision.

    Its methods raise `UnreachableHubError` where the hub does not answer, `UsageError` for a name or a revision that
    cannot be, and `ModelError` or `CorpusError` for whatever else keeps it from being had.
    """

    kind: Literal["model", "dataset"]
    name: str  # as in `openai/whisper-base`
    revision: str = MAIN  # a branch, a tag, or a commit

    def __str__(self) -> str:
        return f"model {self.name!r}" if self.kind == "model" else f"data set {self.name}"

    @property
    def url(self) -> str:
        """Its page."""
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit."""
        return _COMMIT.fullmatch(self.revision) is not None

    def ask(self) -> Listing:
        """Ask the hub what the revision is now, and cache the answer."""
        import huggingface_hub

        with self._errors_in_words():
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
        """The repository at the commit that its revision is now, or was when the hub last answered."""
        if self.is_pinned:
            return self
        try:
            commit = self.ask().commit
        except UnreachableHubError as error:
            known = cache.load("hub", self._key)
            if known is None:
                raise
            commit = str(known["commit"])
            log.warning("%s; going on with %s, the last one known of %s", error, commit, self.revision)
        return replace(self, revision=commit)

    def listing(self) -> Listing:
        """What lies in a pinned repository; the hub is asked once."""
        known = cache.load("hub", self._key)
        return Listing(**known) if known is not None else _listings.get(self._key) or self.ask()

    def cached(self, path: str) -> Path | None:
        """A file that was fetched to this machine, else None."""
        import huggingface_hub

        try:
            found = huggingface_hub.try_to_load_from_cache(self.name, path, revision=self.revision, repo_type=self.kind)
        except huggingface_hub.errors.HFValidationError:  # the hub can have no such name
            return None
        return Path(found) if isinstance(found, str) and Path(found).is_file() else None

    def missing(self, paths: Sequence[str]) -> dict[str, int]:
        """Bytes of each file of a pinned repository that is yet to be fetched."""
        missing = [path for path in paths if self.cached(path) is None]
        sizes = self.listing().sizes if missing else {}
        return {path: sizes[path] for path in missing}

    def fetch(self, paths: Sequence[str]) -> list[Path]:
        """Fetch files of a pinned repository one after another, where they are not on this machine yet."""
        refuse_full_disk(sum(self.missing(paths).values()), f"what is fetched of {self.name}", self._refusal)
        return [self._download(path) for path in paths]

    def note_branch(self, path: str) -> None:
        """Have the library note which commit a branch is, so that it is found without a network.

        It does so when a file is asked for by the branch; of a file that was fetched only the header is asked for.
        """
        with suppress(UnreachableHubError):
            self._download(path)

    def refuse_gated(self) -> None:
        """Refuse a pinned repository that is gated where no token is set; whether a token opens it shows later."""
        import huggingface_hub

        if self.listing().gated and huggingface_hub.get_token() is None:
            raise self._gated()

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open a file of a pinned data set over the network; no more is read than is asked for."""
        import huggingface_hub

        with self._errors_in_words():
            files = huggingface_hub.HfFileSystem(endpoint=endpoint())
            with files.open(f"datasets/{self.name}@{self.revision}/{path}", block_size=_BLOCK) as file:
                yield file

    def _download(self, path: str) -> Path:
        import huggingface_hub

        with self._errors_in_words():
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
    def _errors_in_words(self) -> Iterator[None]:
        # What the hub's library raises inside the `with` block, said in words.
        from huggingface_hub import constants, errors

        try:
            yield
        except EmttaError:
            raise
        except errors.HFValidationError as error:
            raise UsageError(
                f"the hub can have no {self}; a name there is OWNER/NAME, of letters, digits, '.', '_' and '-' (no "
                "'--' or '..', none of '.' and '-' at its ends), with at most 96 characters"
            ) from error
        except errors.GatedRepoError as error:
            raise self._gated() from error
        except errors.RevisionNotFoundError as error:
            raise UsageError(
                f"{self} has no revision {self.revision!r}; give a branch (main), a tag, or a commit of those at "
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
                raise self._answered(error.__cause__) from error
            raise self._unreachable("it does not answer") from error
        except errors.EntryNotFoundError as error:
            raise self._refusal(f"a file of {self} is gone from {self.url}: {' '.join(str(error).split())}") from error
        except errors.HfHubHTTPError as error:
            raise self._answered(error) from error
        except (errors.HTTPError, ConnectionError, TimeoutError, socket.gaierror) as error:
            raise self._unreachable(" ".join(str(error).split()) or type(error).__name__) from error
        except OSError as error:
            raise self._refusal(
                f"{self} cannot be kept at {constants.HF_HUB_CACHE}: {error.strerror or error}; set HF_HUB_CACHE to a "
                "folder that can be written"
            ) from error

    def _gated(self) -> EmttaError:
        import huggingface_hub

        token = "no token is set" if huggingface_hub.get_token() is None else "the token in use has no access to it"
        return self._refusal(
            f"{self} is gated, and {token}; accept its terms at {self.url}, make a token at {HUB}/settings/tokens, "
            "and set HF_TOKEN to it"
        )

    def _unreachable(self, reason: str) -> UnreachableHubError:
        return UnreachableHubError(f"{self} cannot be downloaded from {endpoint()}: {reason}; {_ELSEWHERE[self.kind]}")

    def _answered(self, error: "HfHubHTTPError") -> EmttaError:
        status = error.response.status_code if error.response is not None else 0
        message = f"the hub at {endpoint()} answers {status} when asked for {self}: {' '.join(str(error).split())}"
        if status >= 500 or status in _TRANSIENT:
            return UnreachableHubError(message)
        if status in _NO_ACCESS:
            message += f"; look at HF_TOKEN: it may have expired, or lack access; make one at {HUB}/settings/tokens"
        return self._refusal(message)


def endpoint() -> str:
    """The hub's address: the usual one, or what `HF_ENDPOINT` says."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def free_bytes() -> tuple[int, Path]:
    """How much room there is where the hub's files are kept, and where that is."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
    return shutil.disk_usage(existing).free, folder


def refuse_full_disk(size: int, what: str, refusal: type[EmttaError]) -> None:
    """Raise the refusal where `size` bytes do not fit on the disk that the hub's files are kept on."""
    free, folder = free_bytes()
    if size > free:
        raise refusal(
            f"{what} takes {size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free at {folder}; make room, or set "
            "HF_HUB_CACHE to a folder on another disk"
        )
