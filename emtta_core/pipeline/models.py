"""The model of a run, loaded once per process and shared by its cells, and its digest, cached on this machine."""

import os
import platform
import threading
from contextlib import suppress
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emtta_core import cache
from emtta_core.errors import ModelError, UsageError
from emtta_core.hub import UnreachableHubError
from emtta_core.model import hub_model
from emtta_core.model.model_files import BUILT_IN, NO_DETECTION, NO_STREAM, folder_of, path_of
from emtta_core.names import FAMILIES
from emtta_core.pipeline.job import Job
from emtta_core.suite import ModelChoice, Suite

if TYPE_CHECKING:
    from emtta_core.model import Model

KIND = "digests"
"""Its folder in the cache."""


def cached_digest(folder: Path) -> str | None:
    """The cached digest of the model in a folder; None if there is none, or a file has changed since."""
    try:
        known = cache.load(KIND, str(folder.resolve()))
        return str(known["digest"]) if known is not None and known["of"] == _state(folder) else None
    except (OSError, KeyError):
        return None


def cache_digest(folder: Path, digest: str) -> None:
    """Cache the digest of the model in a folder, unless a file in it changed just now."""
    with suppress(OSError):  # a cache that cannot be written only costs time
        state = _state(folder)
        newest = max((modified for _, _, modified in state["files"]), default=0)
        if cache.is_stable(newest):
            key = str(folder.resolve())
            cache.save(KIND, key, {"folder": key, "of": state, "digest": digest})


def _state(folder: Path) -> dict[str, Any]:
    # What a digest depends on: the files, the packages that read them, and the model families.
    files = sorted([item.name, item.stat().st_size, item.stat().st_mtime_ns] for item in os.scandir(folder))
    plugins = sorted(
        f"{point.name} {point.dist.version if point.dist else ''}" for point in entry_points(group=FAMILIES)
    )
    families = [*plugins, *BUILT_IN]
    return {"files": files, "transformers": version("transformers"), "emtta": version("emtta"), "families": families}


_lock = threading.Lock()
_loaded: dict[str, "Model"] = {}


def digest_of(choice: ModelChoice) -> str:
    """The digest of the model that a suite names; computing it uses no GPU.

    It is cached until a file of the model changes, so that the model need not be loaded.

    Raises:
        ModelError: there is no such model, or it cannot be adapted.
    """
    local = folder_of(choice.name)
    folder = hub_model.fetch(choice.name, choice.revision) if local is None else local
    # The code of a plug-in family may change, and so may the base model of an adapter.
    cacheable = choice.family is None and hub_model.base_of(folder) is None
    found = cached_digest(folder) if cacheable else None
    if found is None:
        found = _model_of(choice.model_copy(update={"device": "cpu", "precision": "float32"})).digest
        if cacheable:
            cache_digest(folder, found)
    return found


def path_of_choice(choice: ModelChoice) -> tuple[str, str | None] | None:
    """The kind of a suite's model, and its layout on the generic path; None if it has not been fetched yet.

    Raises:
        ModelError: there is no such model, or it cannot be adapted.
    """
    folder = folder_of(choice.name) or hub_model.folder_of_commit(choice.name, choice.revision)
    return None if folder is None else path_of(choice.name, hub_model.base_of(folder) or folder, choice.family)


def check_path(suite: Suite) -> None:
    """Refuse settings and methods that the path of the suite's model does not support, judging by its config.json.

    Raises:
        UsageError: names the first unsupported setting or method, and what is supported.
    """
    found = path_of_choice(suite.model)
    if found is None or found[1] is None:
        return
    if suite.model.language == "detect":
        raise UsageError(NO_DETECTION)
    if any(suite.stream_of(choice) is not None for choice in suite.methods):
        raise UsageError(NO_STREAM)
    if found[1] == "ctc":
        from emtta_core.adaptation import ctc

        for choice in suite.methods:
            ctc.check(suite.model.name, choice.method())


def model_to_fetch(choice: ModelChoice) -> hub_model.Download | None:
    """What would be fetched for a suite's model; None if nothing would be, or the hub does not answer.

    Raises:
        ModelError: there is no such model.
    """
    if folder_of(choice.name) is not None or hub_model.is_cached(choice.name, choice.revision):
        return None
    try:
        found = hub_model.find_download(choice.name, choice.revision)
    except UnreachableHubError:
        return None  # fetching it reports the error
    return found if found.missing else None


def model_for(job: Job) -> "Model":
    """Load the model of a job; only the last one loaded stays in memory.

    Raises:
        ModelError: there is no such model, it cannot be adapted, or it is not the one with which the run was planned.
        UsageError: there is no such device or precision.
    """
    model = _model_of(job.model)
    if model.digest != job.model_digest:
        raise ModelError(
            f"the model {job.model.name!r} on {platform.node()} has the digest {model.digest}, but the run was planned "
            f"with {job.model_digest}; restore the model (every machine needs the same files), or start a new run"
        )
    return model


def _model_of(choice: ModelChoice) -> "Model":
    from emtta_core.model import load_model  # imports torch, which a cached digest does not need

    key = choice.model_dump_json()
    with _lock:
        if key not in _loaded:
            _loaded.clear()
            _loaded[key] = load_model(
                choice.name,
                device=choice.device,
                precision=choice.precision,
                revision=choice.revision,
                family=choice.family,
                tokens_per_second=choice.tokens_per_second,
            )
        return _loaded[key]
