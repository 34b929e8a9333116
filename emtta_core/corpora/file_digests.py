"""The digests of audio files, remembered with sizes and times, so that a corpus is not read anew at each start."""

import hashlib
from pathlib import Path

from emtta_core import cache
from emtta_core.audio.files import most_bytes
from emtta_core.input_files import check_plain

READ_ANEW = {".mp3": " counted"}
"""Marks of files that give other samples than they once did, by suffix: what was prepared of them counts no more."""

_KIND = "files"
_CHUNK = 1 << 20


class FileDigests:
    """The digests of the files below one folder."""

    def __init__(self, folder: Path) -> None:
        """Recall what is known of the files below `folder`."""
        self._key = str(folder.resolve())
        known = cache.recall(_KIND, self._key) or {}
        self._known: dict[str, list[object]] = known.get("files", {})
        self._grown = False
        self._read: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """Return the SHA-256 of a file, with a mark where its reading has changed; or why it cannot be read."""
        if path not in self._read:
            self._read[path] = self._digest(path) + READ_ANEW.get(path.suffix.lower(), "")
        return self._read[path]

    def _digest(self, path: Path) -> str:
        try:
            before = check_plain(path, most=most_bytes())
            state = [before.st_size, before.st_mtime_ns]
            found = self._known.get(str(path))
            if found is not None and found[:2] == state:
                return str(found[2])
            digest = _sha256(path)
        except (OSError, ValueError) as error:  # ValueError: a path with a null character
            return getattr(error, "strerror", None) or str(error)
        if cache.is_settled(before.st_mtime_ns):
            self._known[str(path)] = [*state, digest]
            self._grown = True
        return digest

    def keep(self) -> None:
        """Remember what was found."""
        if self._grown:
            cache.remember(_KIND, self._key, {"folder": self._key, "files": self._known})


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()
