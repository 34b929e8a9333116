"""Atomic writing: a file is written under a temporary name, flushed to the disk, and then renamed.

Whoever reads meanwhile sees the old state or the new one, and a writer that is killed leaves at most a temporary file,
whose name ends in `.tmp` and is seen by no reader. The price is one `fsync` a file and one a folder, some 5 ms together
on a common disk.
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
"""The name of a temporary file."""

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step, replacing one that is there; StoreError when it cannot be written."""
    with _temporary(path, content) as temporary:
        temporary.replace(path)


def write_new_bytes(path: Path, content: bytes) -> bool:
    """Write a file in one step unless it is there; whether it was written. StoreError when it cannot be."""
    if not content:  # an empty file is whole as soon as it is there
        with explaining_write_errors(path), contextlib.suppress(FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
            return True
        return False
    with _temporary(path, content) as temporary:
        try:
            path.hardlink_to(temporary)  # which, unlike a rename, can refuse
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if path.exists():  # a file system without hard links leaves a gap between this line and the next
                return False
            temporary.replace(path)
    return True


@contextlib.contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[Path]:
    # Yield a file in the folder of `path` that holds `content` and is flushed; remove it if it is not renamed.
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
            "choose a store that can be written, or make room or permission for it"
        ) from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
