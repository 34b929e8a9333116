"""Crash-safe writing: a file is there whole, or it is not there.

A table is written to a temporary file beside its place, flushed to the disk, and then named in one step.
Whoever reads meanwhile sees the old state or the new one, and a writer that is killed leaves at most a
temporary file, whose name ends in `.tmp` and is seen by no reader. The price is one `fsync` a file and one a
folder, some 5 ms together on a common disk.
"""

import contextlib
import errno
import os
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emtta_core.errors import StoreError
from emtta_core.store.schema import AudioBytes

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def write_rows(path: Path, rows: Sequence[Any], schema: pa.Schema, *, replace: bool = False) -> Path:
    """Write records as one Parquet file.

    Args:
        path: where; its folders are made.
        rows: the records, of the class from which `schema` comes.
        schema: the columns.
        replace: whether a file that is there may be replaced. Rows of an attempt may not: they are final.

    Returns:
        `path`.

    Raises:
        StoreError: when the file cannot be written, or is there already and may not be replaced.
    """
    table = pa.Table.from_pylist([_plain(row, schema.names) for row in rows], schema=schema)
    with _placed(path, replace=replace) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def write_bytes(path: Path, content: bytes) -> Path:
    """Write `content` to `path` in one step, replacing what is there; StoreError when it cannot be."""
    with _placed(path, replace=True) as temporary:
        temporary.write_bytes(content)
    return path


def claim(path: Path) -> bool:
    """Create the empty file `path`; return False where it is there already, so that one caller alone gets True.

    Raises:
        StoreError: when it cannot be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError as error:
        raise _refused(path, error) from error
    return True


def sweep(root: Path, *, older_than: float = 86_400.0) -> int:
    """Delete the temporary files below `root` that killed writers left, and return how many there were.

    Args:
        root: a folder.
        older_than: seconds since the last change; a younger file may have a live writer.
    """
    count = 0
    for path in root.rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            ours = _TEMPORARY.fullmatch(path.name)  # the folder may hold more than a store
            if ours and time.time() - path.stat().st_mtime > older_than:
                path.unlink()
                count += 1
    return count


@contextlib.contextmanager
def _placed(path: Path, *, replace: bool) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there stands at `path` afterwards."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        if replace:
            temporary.replace(path)
        else:
            _place_new(temporary, path)
        with contextlib.suppress(OSError):  # some network file systems cannot flush a folder
            _flush(path.parent)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _place_new(temporary: Path, path: Path) -> None:
    """Give `temporary` its name, unless that is taken: a hard link, unlike a rename, can refuse."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():  # a file system without hard links leaves a gap between this line and the next
            raise _taken(path) from None
        temporary.replace(path)


def _refused(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot write {path}: {error.strerror or error}; "
        "choose a store that can be written, or make room or permission for it"
    )


def _taken(path: Path) -> StoreError:
    return StoreError(
        f"{path} is already there and rows of an attempt are final; "
        "does another process write the same run? Wait for it, or choose another run id"
    )


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(row: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return a record as the dictionary that Arrow takes, a nested record likewise."""
    values = {name: getattr(row, name) for name in names}
    return {name: asdict(value) if isinstance(value, AudioBytes) else value for name, value in values.items()}
