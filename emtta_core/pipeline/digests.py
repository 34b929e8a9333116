"""The digests of the models on this machine, remembered: to say which model it is, it need not be loaded.

A digest is remembered with the names, sizes and times of the files that it was made from, as git does for the files of
a checkout. It names the run and no more: whoever adapts the model computes the digest of what was loaded, and compares.
"""

import hashlib
import json
import logging
import os
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import platformdirs

from emtta_core.errors import StoreError
from emtta_core.store.folder import write_bytes

log = logging.getLogger("emtta.pipeline")

CACHE = "EMTTA_CACHE"
"""The environment variable that names another folder than the user's cache."""

SETTLED = 2.0
"""Seconds without a change after which a file's time tells one content from another, however coarse the clock."""


def recall(folder: Path) -> str | None:
    """Return the digest of the model in a folder; None where it is not known, or a file there has changed."""
    try:
        known = json.loads(_file(folder).read_text(encoding="utf-8"))
        return str(known["digest"]) if known["of"] == _state(folder) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(folder: Path, digest: str) -> None:
    """Remember the digest of the model in a folder, unless a file there was changed just now."""
    with suppress(OSError, StoreError):  # a cache that cannot be written costs time alone
        state = _state(folder)
        newest = max((modified for _, _, modified in state["files"]), default=0)
        if time.time() - newest / 1e9 > SETTLED:
            content = {"folder": str(folder.resolve()), "of": state, "digest": digest}
            write_bytes(_file(folder), json.dumps(content, indent=2).encode())


def _state(folder: Path) -> dict[str, Any]:
    """Return what a digest depends on: the files, and the library that reads them."""
    files = sorted([item.name, item.stat().st_size, item.stat().st_mtime_ns] for item in os.scandir(folder))
    return {"files": files, "transformers": version("transformers"), "emtta": version("emtta")}


def _file(folder: Path) -> Path:
    """Return where the digest of a folder's model is remembered."""
    cache = Path(os.environ.get(CACHE) or platformdirs.user_cache_path("emtta"))
    return cache / "digests" / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}.json"
