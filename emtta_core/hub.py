"""The Hugging Face hub, in what models and data sets have in common: its address, its errors in words, and the disk."""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from emtta_core.errors import EmttaError, UsageError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

HUB = "https://huggingface.co"
COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT = 10.0
"""Seconds that the hub has to say what a model or a data set is."""

_PASSING = frozenset({408, 429})
"""Answers below 500 that may pass: a request that took too long, and too many of them."""
_CLOSED = frozenset({401, 403})
"""Answers to whoever has no access."""

Kind = Literal["model", "dataset"]


class UnreachableHubError(EmttaError, ConnectionError):
    """The hub does not answer, which may pass."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the hub is asked for, as its refusal names it."""

    what: str  # as in `model 'openai/whisper-base'`
    url: str  # its page
    revision: str | None  # which of it; None where that is the main branch
    refusal: type[EmttaError]  # the error that says that it cannot be had
    elsewhere: str  # what to do where the hub cannot be reached

    def gated(self) -> EmttaError:
        """Return the refusal of what has terms that must be accepted."""
        import huggingface_hub

        token = "no token is set" if huggingface_hub.get_token() is None else "the token in use has no access to it"
        return self.refusal(
            f"{self.what} is gated, and {token}; accept its terms at {self.url}, make a token at "
            f"{HUB}/settings/tokens, and set HF_TOKEN to it"
        )

    def unreachable(self, reason: str) -> UnreachableHubError:
        """Return what to say where the hub cannot be asked."""
        return UnreachableHubError(f"{self.what} cannot be downloaded from {endpoint()}: {reason}; {self.elsewhere}")

    def answered(self, error: "HfHubHTTPError") -> EmttaError:
        """Return what to say of an answer that is an error: that the hub is unreachable where it may pass."""
        status = error.response.status_code if error.response is not None else 0
        said = f"the hub at {endpoint()} answers {status} when asked for {self.what}: {' '.join(str(error).split())}"
        if status >= 500 or status in _PASSING:
            return UnreachableHubError(said)
        if status in _CLOSED:
            said += f"; look at HF_TOKEN: it may have expired, or be without access; make one at {HUB}/settings/tokens"
        return self.refusal(said)


def endpoint() -> str:
    """Return the hub's address: the usual one, or what `HF_ENDPOINT` says."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def free_bytes() -> tuple[int, Path]:
    """Return how much room there is where the hub's files are kept, and where that is."""
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in [place, *place.parents] if folder.exists())
    return shutil.disk_usage(there).free, place


def refuse_full_disk(size: int, what: str, refusal: type[EmttaError]) -> None:
    """Raise the refusal where `size` bytes do not fit on the disk that the hub's files are kept on."""
    free, place = free_bytes()
    if size > free:
        raise refusal(
            f"{what} takes {size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free at {place}; make room, or set "
            "HF_HUB_CACHE to a folder on another disk"
        )


def cached(kind: Kind, name: str, path: str, revision: str) -> Path | None:
    """Return a file of the hub's on this machine; None where it was not fetched, or the hub can have no such name."""
    import huggingface_hub

    try:
        found = huggingface_hub.try_to_load_from_cache(name, path, revision=revision, repo_type=kind)
    except huggingface_hub.errors.HFValidationError:
        return None
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None


@contextmanager
def explained(asked: Asked) -> Iterator[None]:
    """Say in words what the hub's library raises inside the `with` block.

    Raises:
        UnreachableHubError: the hub does not answer.
        UsageError: there is no such revision, or there can be no such name.
        EmttaError: the `refusal`, for whatever else keeps it from being had.
    """
    from huggingface_hub import constants, errors

    what = asked.what
    try:
        yield
    except EmttaError:
        raise
    except errors.HFValidationError as error:
        raise UsageError(
            f"the hub can have no {what}; a name there is OWNER/NAME, of letters, digits, '.', '_' and '-' (no '--' or "
            "'..', none of '.' and '-' at its ends), with at most 96 characters"
        ) from error
    except errors.GatedRepoError as error:
        raise asked.gated() from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(
            f"{what} has no revision {asked.revision!r}; give a branch (main), a tag, or a commit of those at "
            f"{asked.url}/commits/main"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise asked.refusal(
            f"there is no {what} at {endpoint()}, or it is private and HF_TOKEN gives no access"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise asked.unreachable("HF_HUB_OFFLINE is set") from error
    except errors.LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise asked.answered(error.__cause__) from error
        raise asked.unreachable("it does not answer") from error
    except errors.EntryNotFoundError as error:
        raise asked.refusal(f"a file of {what} is gone from {asked.url}: {' '.join(str(error).split())}") from error
    except errors.HfHubHTTPError as error:
        raise asked.answered(error) from error
    except (errors.HTTPError, ConnectionError, TimeoutError, socket.gaierror) as error:
        raise asked.unreachable(" ".join(str(error).split()) or type(error).__name__) from error
    except OSError as error:
        raise asked.refusal(
            f"{what} cannot be kept at {constants.HF_HUB_CACHE}: {error.strerror or error}; set HF_HUB_CACHE to a "
            "folder that can be written"
        ) from error
