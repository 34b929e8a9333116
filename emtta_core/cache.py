"""What emtta remembers on this machine between two runs: small JSON files in the user's cache.

Nothing here is a result. A cache that cannot be read or written costs time alone.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs

from emtta_core.atomic_write import write_bytes
from emtta_core.errors import StoreError

CACHE = "EMTTA_CACHE"
"""The environment variable that names another folder than the user's cache."""

SETTLED = 2.0
"""Seconds without a change after which a file's time tells one content from another, however coarse the clock."""


def recall(kind: str, key: str) -> dict[str, Any] | None:
    """Return what is remembered of `key`; None where that is nothing, or cannot be read."""
    try:
        known = json.loads(_file(kind, key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None


def remember(kind: str, key: str, content: dict[str, Any]) -> None:
    """Remember `content` of `key`.

    Args:
        kind: the folder in the cache.
        key: what the content is about.
        content: plain JSON values.
    """
    with suppress(OSError, StoreError):
        write_bytes(_file(kind, key), json.dumps(content, indent=2).encode())


def is_settled(modified_ns: int) -> bool:
    """Return whether a file that was changed at this time, in nanoseconds since 1970, has rested for long enough."""
    return time.time() - modified_ns / 1e9 > SETTLED


def _file(kind: str, key: str) -> Path:
    cache = Path(os.environ.get(CACHE) or platformdirs.user_cache_path("emtta"))
    return cache / kind / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
