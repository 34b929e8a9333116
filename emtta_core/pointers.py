"""Pointers of Git LFS and git-annex: small files that stand for large ones which were not fetched."""

import shlex
from pathlib import Path

_BEGINNINGS = {
    b"version https://git-lfs.github.com/spec/": ("Git LFS", "lfs pull"),
    b"version https://hawser.github.com/spec/": ("Git LFS", "lfs pull"),
    b"/annex/objects/": ("git-annex", "annex get ."),
}

LONGEST = 1024
"""Bytes of the longest pointer, of Git LFS."""


def pointer_in(data: bytes, path: str | Path | None = None) -> str | None:
    """Say that content is a pointer and not the file that it stands for, and what to do; None where it is none.

    Args:
        data: the file's content, or its beginning.
        path: where the file lies; left out, it has no place of its own.
    """
    for beginning, (system, fetch) in _BEGINNINGS.items():
        if data.startswith(beginning) and len(data) <= LONGEST:
            what = "get the file itself"
            folder = None if path is None else Path(path).absolute().parent
            if folder is not None and any((parent / ".git").exists() for parent in (folder, *folder.parents)):
                what = f"fetch it with: git -C {shlex.quote(str(folder))} {fetch}"
            return f"it is a {system} pointer ({len(data)} bytes), not the file that it stands for; {what}"
    return None


def pointer_at(path: Path) -> str | None:
    """Say that a file is a pointer, as `pointer_in` does; None where it is none, or cannot be read."""
    try:
        if not path.is_file():  # opening a pipe would wait for somebody to write to it
            return None
        with path.open("rb") as file:
            return pointer_in(file.read(LONGEST + 1), path)
    except OSError:
        return None
