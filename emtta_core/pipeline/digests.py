"""The digests of the models on this machine, remembered: to say which model it is, it need not be loaded.

A digest is remembered with the names, sizes and times of the files that it was made from, as git does for the files of
a checkout. It names the run and no more: whoever adapts the model computes the digest of what was loaded, and compares.
"""

import os
from contextlib import suppress
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

from emtta_core import cache
from emtta_core.names import FAMILIES

KIND = "digests"
"""The folder in the cache."""


def recall(folder: Path) -> str | None:
    """Return the digest of the model in a folder; None where it is not known, or a file there has changed."""
    try:
        known = cache.recall(KIND, str(folder.resolve()))
        return str(known["digest"]) if known is not None and known["of"] == _state(folder) else None
    except (OSError, KeyError):
        return None


def remember(folder: Path, digest: str) -> None:
    """Remember the digest of the model in a folder, unless a file there was changed just now."""
    with suppress(OSError):  # a cache that cannot be written costs time alone
        state = _state(folder)
        newest = max((modified for _, _, modified in state["files"]), default=0)
        if cache.is_settled(newest):
            place = str(folder.resolve())
            cache.remember(KIND, place, {"folder": place, "of": state, "digest": digest})


def _state(folder: Path) -> dict[str, Any]:
    """Return what a digest depends on: the files, and the packages that read them."""
    files = sorted([item.name, item.stat().st_size, item.stat().st_mtime_ns] for item in os.scandir(folder))
    plugins = sorted(
        f"{point.name} {point.dist.version if point.dist else ''}" for point in entry_points(group=FAMILIES)
    )
    return {"files": files, "transformers": version("transformers"), "emtta": version("emtta"), "families": plugins}
