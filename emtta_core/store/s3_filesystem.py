"""A read-only `fsspec` file system that gives DuckDB access to a single store in an object store."""

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem

from emtta_core.store.backend import Entry

if TYPE_CHECKING:
    from emtta_core.store.s3 import S3


class StoreFileSystem(AbstractFileSystem):
    """The files of one store, by their `url`.

    Files passed to `set_entries` are not listed again; others are listed once per query, 1,000 per request. A file of
    a few kilobytes takes one request, which the check for broken files has already made.
    """

    protocol = "s3"
    cachable = False

    def __init__(self, backend: "S3") -> None:
        """Open a filesystem on `backend`."""
        super().__init__()
        self._backend = backend
        self._known: Mapping[str, Entry] = {}
        self._listings: dict[str, Mapping[str, Entry]] = {}

    def set_entries(self, entries: Sequence[Entry]) -> None:
        """Use these files as listed; list other files again when they are requested."""
        self._known = {entry.name: entry for entry in entries}
        self._listings = {}

    def glob(self, path: str, **_: Any) -> Sequence[str]:
        """The URLs of the files that match a pattern; a path without `*` matches itself."""
        if "*" not in path:
            return [path]
        pattern = self._name(path).split("/")
        return [self._backend.url(name) for name in self._listing(pattern[0]) if _matches(name.split("/"), pattern)]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, size and time of a file."""
        entry = self._entry(path)
        return {"name": path, "size": entry.size, "type": "file", "mtime": entry.modified}

    def modified(self, path: str) -> datetime:
        """When a file was written."""
        return datetime.fromtimestamp(self._entry(path).modified, UTC)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode != "rb":
            raise PermissionError(f"{path} is read-only")
        entry = self._entry(path)
        tail = self._backend.read_tail(entry)
        return io.BytesIO(tail) if len(tail) == entry.size else self._backend.open_stream(entry)

    def _name(self, path: str) -> str:
        url = str(self.unstrip_protocol(path))
        name = url.removeprefix(self._backend.url(""))
        if name == url or ".." in name.split("/"):
            raise PermissionError(f"{url} is not in the store {self._backend.location}")
        return name

    def _entry(self, path: str) -> Entry:
        name = self._name(path)
        if name in self._known:
            return self._known[name]
        folder = name.split("/")[0]
        if name not in self._listing(folder):
            raise FileNotFoundError(f"{path} does not exist")
        return self._listing(folder)[name]

    def _listing(self, folder: str) -> Mapping[str, Entry]:
        if folder not in self._listings:
            self._listings[folder] = {entry.name: entry for entry in self._backend.list(folder)}
        return self._listings[folder]


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    # Whether the parts of a name match those of a pattern: each equal, `*`, or `*` followed by a suffix.
    return len(parts) == len(pattern) and all(
        part.endswith(expected[1:]) if expected.startswith("*") else part == expected
        for part, expected in zip(parts, pattern, strict=True)
    )
