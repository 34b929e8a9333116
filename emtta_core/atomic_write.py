"""Atomic writing: a file is written beside its place, flushed to the disk, and then named in one step.

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
    """Write a file in one step, replacing one that is there.

    Raises:
        StoreError: it cannot be written.
    """
    with _temporary(path, content) as temporary:
        temporary.replace(path)


def write_new_bytes(path: Path, content: bytes) -> bool:
    """Write a file in one step unless it is there; return whether it was written.

    Raises:
        StoreError: it cannot be written.
    """
    if not content:
        return _touch_new(path)
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
    # A temporary file beside `path` that holds `content` for good; remove it if it is still there.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        _flush(temporary)
        yield temporary
        with contextlib.suppress(OSError):  # some network file systems cannot flush a folder
            _flush(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _touch_new(path: Path) -> bool:
    # Make an empty file unless it is there; it is whole as soon as it is there.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError as error:
        raise unwritable(path, error) from error
    return True


def unwritable(path: Path, error: OSError) -> StoreError:
    """The error for a file that cannot be written."""
    return StoreError(
        f"cannot write {path}: {error.strerror or error}; "
        "choose a store that can be written, or make room or permission for it"
    )


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
