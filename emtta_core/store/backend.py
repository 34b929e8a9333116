"""Where a store lies, in a folder or below a prefix of an object store, and the few operations that it needs there.

Whatever differs between the two is in the classes that implement `Backend`, `Folder` here and `S3` in
`emtta_core.store.s3`; no other code asks which it is.
"""

import contextlib
import os
import re
import stat
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import duckdb

from emtta_core.atomic_write import TEMPORARY, explaining_write_errors, write_bytes, write_new_bytes
from emtta_core.cache import is_settled
from emtta_core.errors import StoreError, UsageError
from emtta_core.input_files import check_plain, read_plain

_SCHEME = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9+.-]+):/", re.ASCII)  # a drive of Windows has one letter


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, as a listing has it."""

    name: str  # the file
    size: int  # bytes
    tag: str  # changes whenever the file's content does
    modified: float  # when it was written, in seconds since 1970 by the clock of whoever keeps it


class Backend(ABC):
    """Where files lie. A file is called by its path below the backend, as in `runs/run_id=a/run.parquet`.

    A file is there whole or not at all, for every reader and at any moment, whatever becomes of its writer.

    Every method raises `StoreError` where the backend as a whole does not answer as it should: it is gone, out of
    reach, full, forbidden. Those that read raise `OSError` where one file alone cannot be read, `FileNotFoundError`
    where it is not there.
    """

    location: str  # the backend as a user names it; it opens the same one in another process

    def __init__(self, location: str) -> None:
        column = next((part for part in location.split("/") if "=" in part), None)
        if column is not None:
            raise StoreError(
                f"the path of the store {location} holds {column!r}, which readers of Parquet take for a column; "
                "choose a path without '='"
            )
        self.location = location

    def url(self, name: str) -> str:
        """The name of a file outside the backend: in messages, and in DuckDB."""
        return f"{self.location.rstrip('/')}/{name}"

    def watched(self) -> "Backend":
        """The same for whoever lists it again and again, which may list only what has changed since."""
        return self

    # The store as a whole

    @abstractmethod
    def is_there(self) -> bool:
        """Whether there is a store here, or could have been one: a folder, an object."""

    @abstractmethod
    def make(self) -> None:
        """Make the folder or prefix where it is missing, check that it can be written, tidy up after killed writers."""

    @abstractmethod
    def check_writable(self) -> str:
        """Check that files can be written here, or could be once it is made; leave nothing behind.

        Returns:
            A sentence that says which.
        """

    @abstractmethod
    def attach(self, connection: duckdb.DuckDBPyConnection) -> Callable[[Sequence[Entry]], None]:
        """Let DuckDB read the files by their `url`, and globs of them.

        Returns:
            A function to be called before each query with the files that it may read, as `list` gave them.
        """

    # Reading

    @abstractmethod
    def list(self, folder: str) -> Sequence[Entry]:
        """The files below `folder`, at any depth, by name; those whose own name begins with a dot are hidden."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether a file is there."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file."""

    def read_all(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        """Yield each file with its content, or with why it alone cannot be read; in order."""
        for name in names:
            try:
                yield name, self.read(name)
            except OSError as error:
                yield name, error

    @abstractmethod
    def read_tails(self, entries: Iterable[Entry], length: int) -> Iterator[tuple[Entry, bytes | OSError]]:
        """Yield each file with its last bytes, or with why it alone cannot be read; in order.

        Args:
            entries: the files, as `list` gave them.
            length: how many bytes are wanted at least; a shorter file is given whole.
        """

    # Writing

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file in one step, replacing one that is there."""

    @abstractmethod
    def write_new(self, name: str, content: bytes) -> bool:
        """Write a file in one step unless it is there.

        Returns:
            Whether it was written: of callers at the same time with contents of their own, or with none, one alone
            gets True.
        """

    @abstractmethod
    def remove(self, names: Iterable[str]) -> None:
        """Remove files; one that is not there is no error."""

    @abstractmethod
    def appending(self, name: str) -> AbstractContextManager[Path]:
        """Yield a file of this machine with the content of `name`, to be appended to.

        What is appended is stored at once in a folder, at the end of the block in an object store. It is for logs,
        which no query reads.
        """


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

    def watched(self) -> "WatchedFolder":
        """The folder, of which only the folders whose time has changed are listed again."""
        return WatchedFolder(self._path)

    def _gather(self, folder: str, links: frozenset[str], into: MutableSequence[Entry]) -> None:
        files, folders = self._scan(folder, links)
        into.extend(files)
        for name, through in folders:
            self._gather(name, through, into)

    def _scan(self, folder: str, links: frozenset[str]) -> "_Listing":
        # The files and the folders of a folder, `links` leading there; one that vanishes meanwhile is left out. A pipe
        # or a device is a file without a byte, which nobody opens. A large store has 100,000 folders, so paths are
        # plain text here.
        path = f"{self.location}/{folder}"
        files: list[Entry] = []
        folders: list[tuple[str, frozenset[str]]] = []
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
                        folders.append((name, through))
                        continue
                    try:
                        state = item.stat()
                    except FileNotFoundError:
                        continue
                    size = state.st_size if stat.S_ISREG(state.st_mode) else 0
                    files.append(Entry(name, size, str(state.st_mtime_ns), state.st_mtime))
        except _NO_FOLDER:
            return [], []
        except OSError as error:
            raise StoreError(f"cannot list {path}: {error.strerror or error}; see to its permission") from error
        return files, folders

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


_Listing = tuple[Sequence[Entry], Sequence[tuple[str, frozenset[str]]]]
"""The files of a folder; and the folders in it, each with the links that lead there."""


class WatchedFolder(Folder):
    """A folder that remembers what lies in each folder below it, as long as that folder's time says that it is so.

    The files of a store are never changed: they come and go, which changes the time of their folder. To ask for it
    takes a third of the time of listing. A file that is changed in place, as by damage, is not noticed.
    """

    def __init__(self, path: Path) -> None:
        """Name a folder; see `Folder`."""
        super().__init__(path)
        self._listings: dict[str, tuple[int, _Listing]] = {}  # by folder, its time and what lay in it then

    def _scan(self, folder: str, links: frozenset[str]) -> _Listing:
        try:
            changed = os.stat(f"{self.location}/{folder}").st_mtime_ns  # noqa: PTH116 (as `_scan`, of 100,000 folders)
        except _NO_FOLDER:
            self._listings.pop(folder, None)
            return [], []
        except OSError:
            return super()._scan(folder, links)  # which says what is wrong
        known = self._listings.get(folder)
        if known is not None and known[0] == changed:
            return known[1]
        found = super()._scan(folder, links)
        if is_settled(changed):
            self._listings[folder] = changed, found
        else:
            self._listings.pop(folder, None)
        return found


def _is_circular(folder: Path, target: str) -> bool:
    # Whether a link in a folder leads to one above it, or to itself.
    return Path(target).is_symlink() or Path(os.path.realpath(folder)).is_relative_to(target)


def open_backend(location: str | Path) -> Backend:
    """Open the backend that a user names: a folder, or `s3://BUCKET/PREFIX`.

    Raises:
        UsageError: it is empty, or no such kind of backend is known.
        StoreError: its name will not do, or what it needs is not installed.
    """
    name = str(location)
    if not name.strip():
        raise UsageError(f"a store cannot be at {name!r}; name a folder, or s3://BUCKET/PREFIX ('.' is this folder)")
    scheme = _SCHEME.match(name)
    if scheme is None:
        return Folder(Path(location))
    if scheme["name"] != "s3":
        raise UsageError(f"a store cannot be at {name!r}; choose from: a folder, or s3://BUCKET/PREFIX")
    try:
        from emtta_core.store.s3 import S3
    except ImportError as error:
        raise StoreError(
            f"the store {name} needs the package {error.name}, which is not installed: pip install 'emtta[s3]'"
        ) from error
    return S3(name)
