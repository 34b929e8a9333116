"""Checks on user-supplied files: regular files, within size limits, and not Git LFS or git-annex pointers.

Published recordings are looked for in local folders before the network is used: `EMTTA_CORPORA=/data` says that `/data`
holds published corpora, each under its usual name, such as `LibriSpeech/`, `mls_german/` or `MS-SNSD/`. So a suite
needs no machine-specific paths.
"""

import errno
import math
import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

from emtta_core.errors import UsageError

_SIGNATURES = {
    b"version https://git-lfs.github.com/spec/": ("Git LFS", "lfs pull"),
    b"version https://hawser.github.com/spec/": ("Git LFS", "lfs pull"),
    b"/annex/objects/": ("git-annex", "annex get ."),
}

LONGEST = 1024
"""Size in bytes of the longest pointer, one of Git LFS."""


def pointer_in(data: bytes, path: str | Path | None = None) -> str | None:
    """If content is a pointer instead of the file itself, a message that says so and what to do; otherwise None.

    Args:
        data: the file's content, or its beginning.
        path: the file's path, if it has one.
    """
    for beginning, (system, fetch) in _SIGNATURES.items():
        if data.startswith(beginning) and len(data) <= LONGEST:
            what = "get the file itself"
            folder = None if path is None else Path(path).absolute().parent
            if folder is not None and any((parent / ".git").exists() for parent in (folder, *folder.parents)):
                what = f"fetch it with: git -C {shlex.quote(str(folder))} {fetch}"
            return f"it is a {system} pointer ({len(data)} bytes), not the file that it stands for; {what}"
    return None


def pointer_at(path: Path) -> str | None:
    """Like `pointer_in`, for a file; None also if it cannot be read."""
    try:
        if not path.is_file():  # opening a pipe would wait for a writer
            return None
        with path.open("rb") as file:
            return pointer_in(file.read(LONGEST + 1), path)
    except OSError:
        return None


MAX_AUDIO_HOURS = "EMTTA_MAX_AUDIO_HOURS"
"""The environment variable that allows longer recordings."""

MAX_PARAMETERS = "EMTTA_MAX_PARAMETERS"
"""The environment variable that allows larger models."""

MEBIBYTE = 1 << 20

_DEFAULTS = {MAX_AUDIO_HOURS: 3.0, MAX_PARAMETERS: 2e10}

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def limit(name: str) -> float:
    """Read a limit from the environment variable `name`, or return its default.

    Raises:
        UsageError: the variable is not a number above zero.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return _DEFAULTS[name]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise UsageError(f"{name} is {text!r}; it must be a number above 0, or unset ({_DEFAULTS[name]:g})")
    return value


def check_plain(path: str | PathLike[str], *, max_bytes: float | None = None) -> os.stat_result:
    """Check that a path, links followed, is a regular file of at most `max_bytes`; return its status without reading.

    Raises:
        OSError: it does not exist, is not a regular file, or is larger.
        ValueError: the path has a null character.
    """
    status = Path(path).stat()
    for is_kind, kind in _KINDS:
        if is_kind(status.st_mode):
            raise OSError(errno.EINVAL, f"it is {kind}, not a plain file", str(path))
    if max_bytes is not None and status.st_size > max_bytes:
        size, limited = status.st_size / MEBIBYTE, max_bytes / MEBIBYTE
        raise OSError(errno.EFBIG, f"it has {size:,.0f} MiB, but the limit is {limited:,.0f} MiB", str(path))
    return status


def read_plain(path: str | PathLike[str], *, max_bytes: float | None = None) -> bytes:
    """Read a regular file; see `check_plain`."""
    check_plain(path, max_bytes=max_bytes)
    return Path(path).read_bytes()


CORPORA = "EMTTA_CORPORA"
"""The environment variable that names the folders, joined as in `PATH`."""


def corpus_dirs() -> tuple[Path, ...]:
    """The folders that `EMTTA_CORPORA` names."""
    return tuple(Path(name).expanduser() for name in os.environ.get(CORPORA, "").split(os.pathsep) if name)


def candidates(path: str | None, names: Sequence[str]) -> Iterator[Path]:
    """Yield the folders in which something published may be.

    Args:
        path: the folder named by a suite; None for those of `EMTTA_CORPORA`.
        names: the usual names of its folder.
    """
    for folder in corpus_dirs() if path is None else (Path(path).expanduser(),):
        yield folder
        yield from (folder / name for name in names)


def searched(path: str | None) -> str:
    """The folders of `candidates`, for a message."""
    if path is not None:
        return repr(path)
    return ", ".join(map(str, corpus_dirs())) or f"any folder ({CORPORA} names none)"
