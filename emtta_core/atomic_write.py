"""Atomic writes: a file is written under a temporary name, flushed to disk, and then renamed.

Readers see either the old state or the new one, and a killed writer leaves at most a temporary file, whose name ends in
`.tmp` and which readers ignore. The cost is one `fsync` per file and one per folder, some 5 ms together on a common
disk.
"""

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from emtta_core.errors import StoreError

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
"""The pattern of temporary file names."""

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically, replacing an existing one; raises StoreError if it cannot be written."""
    with _temporary(path, content) as temporary:
        temporary.replace(path)


def write_new_bytes(path: Path, content: bytes) -> bool:
    """Write a file atomically unless it exists; return whether it was written. Raises StoreError if that fails."""
    if not content:  # an empty file is complete as soon as it exists
        with explaining_write_errors(path), contextlib.suppress(FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
            return True
        return False
    with _temporary(path, content) as temporary:
        try:
            path.hardlink_to(temporary)  # unlike a rename, this fails if the file exists
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if path.exists():  # without hard links, there is a gap between this line and the next
                return False
            temporary.replace(path)
    return True


@contextlib.contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[Path]:
    # Yield a flushed file with `content` in the folder of `path`; remove it if it is not renamed.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with explaining_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            _flush(temporary)
            yield temporary
            with contextlib.suppress(OSError):  # some network file systems cannot flush a folder
                _flush(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def explaining_write_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` in the `with` block into a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; "
            "choose a writable store, free some space, or fix the permissions"
        ) from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
