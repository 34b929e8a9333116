"""The backend for a folder: a file a name, each written by `emtta_core.atomic_write`."""

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from operator import attrgetter
from pathlib import Path

import duckdb

from emtta_core.atomic_write import TEMPORARY, explaining_write_errors, write_bytes, write_new_bytes
from emtta_core.errors import StoreError
from emtta_core.input_files import check_plain, read_plain
from emtta_core.store.backend import Backend, Entry

_NO_FOLDER = (FileNotFoundError, NotADirectoryError)
_OLD = 86_400.0
"""Seconds after which nobody writes a temporary file any more."""


class Folder(Backend):
    """A folder of this machine, or of a network file system."""

    def __init__(self, path: Path) -> None:
        """Name a folder, `~` for the user's own.

        Raises:
            StoreError: its path has an `=` or a backslash in it.
        """
        self._path = path.expanduser().absolute()
        super().__init__(str(self._path))
        if "\\" in self._path.as_posix():
            raise StoreError(
                f"the path of the store {self._path} holds a backslash, which DuckDB takes for the end of a folder's "
                "name; choose a path without one"
            )

    def is_there(self) -> bool:
        """Whether the folder is there and can be read."""
        with self._explaining_errors():
            if not self._path.exists():
                return False
            if not self._path.is_dir():
                raise StoreError(f"{self._path} is a file and no store; name a folder")
            next(self._path.iterdir(), None)
        return True

    def make(self) -> None:
        """Make the folder where it is missing, check that it can be written, tidy up after killed writers."""
        with self._explaining_errors():
            self._path.mkdir(parents=True, exist_ok=True)
        self._sweep()
        self.write(".writable", b"")
        self.remove([".writable"])

    def check_writable(self) -> str:
        """Check that the folder can be written, or made; a sentence that says so. Leave nothing behind."""
        if self.is_there():
            self.make()
            return f"{self.location} can be written"
        above = next(folder for folder in self._path.parents if folder.exists())
        with self._explaining_errors(), tempfile.TemporaryDirectory(prefix=".emtta-", dir=above) as trial:
            Folder(Path(trial)).make()
        return f"{self.location} can be made"

    def attach(self, _connection: duckdb.DuckDBPyConnection) -> Callable[[Sequence[Entry]], None]:
        """Do nothing: DuckDB reads folders by itself."""
        return lambda _: None

    def list(self, folder: str) -> Sequence[Entry]:
        """The files below `folder`, by name, but the hidden ones."""
        found: list[Entry] = []
        self._gather(folder, frozenset(), found)
        return sorted(found, key=attrgetter("name"))

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        return (self._path / name).exists()

    def read(self, name: str) -> bytes:
        """The content of a file, of a plain one alone: a pipe has no end to be waited for."""
        return read_plain(self._path / name)

    def read_tails(self, entries: Iterable[Entry], length: int) -> Iterator[tuple[Entry, bytes | OSError]]:
        """Yield each file with its last `length` bytes, or with why it cannot be read."""
        for entry in entries:
            try:
                with (self._path / entry.name).open("rb", buffering=0) as file:
                    file.seek(max(0, entry.size - length))
                    yield entry, file.read()
            except OSError as error:
                yield entry, error

    def write(self, name: str, content: bytes) -> None:
        """Write a file in one step, replacing one that is there."""
        write_bytes(self._path / name, content)

    def write_new(self, name: str, content: bytes) -> bool:
        """Write a file in one step unless it is there."""
        return write_new_bytes(self._path / name, content)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, and the folders that are empty then."""
        for name in names:
            path = self._path / name
            try:
                path.unlink(missing_ok=True)
            except NotADirectoryError:
                continue
            except OSError as error:
                raise StoreError(
                    f"cannot remove {path}: {error.strerror or error}; see to its permission, or remove it yourself"
                ) from error
            with contextlib.suppress(OSError):  # a folder that is not empty ends it
                for folder in path.relative_to(self._path).parents[:-1]:
                    (self._path / folder).rmdir()

    @contextlib.contextmanager
    def appending(self, name: str) -> Iterator[Path]:
        """Yield the file itself."""
        path = self._path / name
        with explaining_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                check_plain(path)
        yield path

    def _gather(self, folder: str, links: frozenset[str], into: MutableSequence[Entry]) -> None:
        """Add the files below `folder`, at any depth, `links` leading there; one that vanishes meanwhile is left out.

        A pipe or a device is a file without a byte, which nobody opens. A large store has 100,000 folders, so that
        each is worth plain text for its path.
        """
        path = f"{self.location}/{folder}"
        try:
            with os.scandir(path) as found:
                for item in found:
                    if item.name.startswith("."):
                        continue
                    name, through = f"{folder}/{item.name}", links
                    if item.is_symlink():
                        target = os.path.realpath(item)
                        if target in links or _is_circular(Path(path), target):
                            continue
                        through = links | {target}
                    if item.is_dir():
                        self._gather(name, through, into)
                        continue
                    try:
                        state = item.stat()
                    except FileNotFoundError:
                        continue
                    size = state.st_size if stat.S_ISREG(state.st_mode) else 0
                    into.append(Entry(name, size, str(state.st_mtime_ns), state.st_mtime))
        except _NO_FOLDER:
            return
        except OSError as error:
            raise StoreError(f"cannot list {path}: {error.strerror or error}; see to its permission") from error

    def _sweep(self) -> None:
        # Delete the temporary files that killed writers left; a younger one may have a live writer.
        for path in self._path.rglob(".*.tmp"):
            with contextlib.suppress(OSError):
                ours = TEMPORARY.fullmatch(path.name)  # the folder may hold more than a store
                if ours and time.time() - path.stat().st_mtime > _OLD:
                    path.unlink()

    @contextlib.contextmanager
    def _explaining_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"cannot open the store {self._path}: {error.strerror or error}; name another folder"
            raise StoreError(message) from error


def _is_circular(folder: Path, target: str) -> bool:
    # Whether a link in a folder leads to one above it, or to itself.
    return Path(target).is_symlink() or Path(os.path.realpath(folder)).is_relative_to(target)
