"""A cache of small files, most of them JSON, in the user's cache folder, for what takes time to determine.

It holds no results. A cache that cannot be read or written only costs time.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from emtta_core.atomic_write import write_bytes
from emtta_core.errors import StoreError

CACHE = "EMTTA_CACHE"
"""The environment variable that overrides the cache folder."""

MIN_AGE = 2.0
"""Seconds without a change after which a further change shows in a file's time, however coarse the clock."""


def load(kind: str, key: str) -> dict[str, Any] | None:
    """The content cached under `key`; None if there is none or it cannot be read."""
    try:
        content = json.loads(_file(kind, key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def save(kind: str, key: str, content: dict[str, Any]) -> None:
    """Cache plain JSON values under `key`, in the cache folder `kind`."""
    with suppress(OSError, StoreError):
        write_bytes(_file(kind, key), json.dumps(content, indent=2).encode())


def is_stable(modified_ns: int) -> bool:
    """Whether a file changed at this time, in nanoseconds since 1970, has been unchanged for long enough."""
    return time.time() - modified_ns / 1e9 > MIN_AGE


def folder(kind: str) -> Path:
    """The cache folder for a kind of file; it may not exist."""
    import platformdirs  # not on a machine with only what the engine needs (benchmarks/gpu.sh)

    return Path(os.environ.get(CACHE) or platformdirs.user_cache_path("emtta")) / kind


def _file(kind: str, key: str) -> Path:
    return folder(kind) / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
