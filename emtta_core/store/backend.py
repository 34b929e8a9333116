"""The location of a store, a folder or a prefix of an object store, and the few file operations that a store needs.

All differences between the two are in the implementations of `Backend`: `Folder` here, and `S3` in
`emtta_core.store.s3`. No other code distinguishes them.
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
from emtta_core.cache import is_stable
from emtta_core.errors import StoreError, UsageError
from emtta_core.input_files import check_plain, read_plain

_SCHEME = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9+.-]+):/", re.ASCII)  # a Windows drive has one letter


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a listing."""

    name: str  # the file's name
    size: int  # bytes
    tag: str  # changes whenever the file's content does
    modified: float  # when it was written, in seconds since 1970 by the storage's clock


class Backend(ABC):
    """Storage for files. A file's name is its path within the backend, such as `runs/run_id=a/run.parquet`.

    Writes are atomic: any reader sees a file whole or not at all, whatever happens to its writer.

    Every method raises `StoreError` if the backend as a whole fails: it is gone, unreachable, full, or access is
    denied. Methods that read raise `OSError` if a single file cannot be read, `FileNotFoundError` if it does not
    exist.
    """

    location: str  # the backend as the user names it; opens the same one in another process

    def __init__(self, location: str) -> None:
        column = next((part for part in location.split("/") if "=" in part), None)
        if column is not None:
            raise StoreError(
                f"the path of the store {location} contains {column!r}, which Parquet readers take for a column; "
                "choose a path without '='"
            )
        self.location = location

    def url(self, name: str) -> str:
        """The full name of a file, for messages and DuckDB."""
        return f"{self.location.rstrip('/')}/{name}"

    def watched(self) -> "Backend":
        """The same backend for a caller that lists it repeatedly; it may list only what has changed."""
        return self

    # The store as a whole

    @abstractmethod
    def is_there(self) -> bool:
        """Whether a store may exist here: there is a folder or an object."""

    @abstractmethod
    def make(self) -> None:
        """Create the folder or prefix if missing, check that it is writable, and clean up after killed writers."""

    @abstractmethod
    def check_writable(self) -> str:
        """Check that files can be written here, or could be once it is created; leave nothing behind.

        Returns:
            A sentence that says which is the case.
        """

    @abstractmethod
    def attach(self, connection: duckdb.DuckDBPyConnection) -> Callable[[Sequence[Entry]], None]:
        """Let DuckDB read the files by their `url`, and globs of them.

        Returns:
            A function to call before each query with the files that it may read, as `list` returned them.
        """

    # Reading

    @abstractmethod
    def list(self, folder: str) -> Sequence[Entry]:
        """The files below `folder`, at any depth, sorted by name; files whose own name begins with a dot are hidden."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether a file is there."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file."""

    def read_all(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        """Yield each file with its content, or with the error if it cannot be read; in order."""
        for name in names:
            try:
                yield name, self.read(name)
            except OSError as error:
                yield name, error

    @abstractmethod
    def read_tails(self, entries: Iterable[Entry], length: int) -> Iterator[tuple[Entry, bytes | OSError]]:
        """Yield each file with its last bytes, or with the error if it cannot be read; in order.

        Args:
            entries: the files, as `list` returned them.
            length: the least number of bytes wanted; a shorter file is returned whole.
        """

    # Writing

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically, replacing an existing one."""

    @abstractmethod
    def write_new(self, name: str, content: bytes) -> bool:
        """Write a file atomically unless it exists.

        Returns:
            Whether it was written: of concurrent callers with different contents, or with empty content, only one
            gets True.
        """

    @abstractmethod
    def remove(self, names: Iterable[str]) -> None:
        """Remove files; missing ones are ignored."""

    @abstractmethod
    def appending(self, name: str) -> AbstractContextManager[Path]:
        """Yield a local file with the content of `name`, to be appended to.

        What is appended is stored immediately in a folder, and at the end of the block in an object store. For logs,
        which no query reads.
        """


_NO_FOLDER = (FileNotFoundError, NotADirectoryError)
_OLD = 86_400.0
"""Age in seconds after which a temporary file no longer has a writer."""


class Folder(Backend):
    """A folder on this machine or on a network file system."""

    def __init__(self, path: Path) -> None:
        """Set the folder's path, in which `~` is the user's home.

        Raises:
            StoreError: its path contains an `=` or a backslash.
        """
        self._path = path.expanduser().absolute()
        super().__init__(str(self._path))
        if "\\" in self._path.as_posix():
            raise StoreError(
                f"the path of the store {self._path} contains a backslash, which DuckDB takes for a separator of "
                "folders; choose a path without one"
            )

    def is_there(self) -> bool:
        """Whether the folder exists and can be read."""
        with self._explaining_errors():
            if not self._path.exists():
                return False
            if not self._path.is_dir():
                raise StoreError(f"{self._path} is a file, not a store; name a folder")
            next(self._path.iterdir(), None)
        return True

    def make(self) -> None:
        """Create the folder if missing, check that it is writable, and clean up after killed writers."""
        with self._explaining_errors():
            self._path.mkdir(parents=True, exist_ok=True)
        self._sweep()
        self.write(".writable", b"")
        self.remove([".writable"])

    def check_writable(self) -> str:
        """Check that the folder can be written or created, leave nothing behind, and return a sentence that says so."""
        if self.is_there():
            self.make()
            return f"{self.location} can be written"
        parent = next(folder for folder in self._path.parents if folder.exists())
        with self._explaining_errors(), tempfile.TemporaryDirectory(prefix=".emtta-", dir=parent) as trial:
            Folder(Path(trial)).make()
        return f"{self.location} can be created"

    def attach(self, _connection: duckdb.DuckDBPyConnection) -> Callable[[Sequence[Entry]], None]:
        """Do nothing: DuckDB reads folders itself."""
        return lambda _: None

    def list(self, folder: str) -> Sequence[Entry]:
        """The files below `folder`, sorted by name, except hidden ones."""
        found: list[Entry] = []
        self._gather(folder, frozenset(), found)
        return sorted(found, key=attrgetter("name"))

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        return (self._path / name).exists()

    def read(self, name: str) -> bytes:
        """The content of a regular file; not of a pipe, which may never end."""
        return read_plain(self._path / name)

    def read_tails(self, entries: Iterable[Entry], length: int) -> Iterator[tuple[Entry, bytes | OSError]]:
        """Yield each file with its last `length` bytes, or with the error if it cannot be read."""
        for entry in entries:
            try:
                with (self._path / entry.name).open("rb", buffering=0) as file:
                    file.seek(max(0, entry.size - length))
                    yield entry, file.read()
            except OSError as error:
                yield entry, error

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically, replacing an existing one."""
        write_bytes(self._path / name, content)

    def write_new(self, name: str, content: bytes) -> bool:
        """Write a file atomically unless it exists."""
        return write_new_bytes(self._path / name, content)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, and folders that are then empty."""
        for name in names:
            path = self._path / name
            try:
                path.unlink(missing_ok=True)
            except NotADirectoryError:
                continue
            except OSError as error:
                raise StoreError(
                    f"cannot remove {path}: {error.strerror or error}; check its permissions, or remove it yourself"
                ) from error
            with contextlib.suppress(OSError):  # stop at the first folder that is not empty
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
        """The folder, listing again only subfolders whose modification time has changed."""
        return WatchedFolder(self._path)

    def _gather(self, folder: str, links: frozenset[str], into: MutableSequence[Entry]) -> None:
        files, folders = self._scan(folder, links)
        into.extend(files)
        for name, through in folders:
            self._gather(name, through, into)

    def _scan(self, folder: str, links: frozenset[str]) -> "_Listing":
        # The files and subfolders of a folder reached through `links`; ones that vanish meanwhile are left out. A pipe
        # or device counts as an empty file, and is never opened. A large store has 100,000 folders, so paths are plain
        # strings here.
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
            raise StoreError(f"cannot list {path}: {error.strerror or error}; check its permissions") from error
        return files, folders

    def _sweep(self) -> None:
        # Delete temporary files left by killed writers; a younger one may still have a writer.
        for path in self._path.rglob(".*.tmp"):
            with contextlib.suppress(OSError):
                temporary = TEMPORARY.fullmatch(path.name)  # the folder may hold other files too
                if temporary and time.time() - path.stat().st_mtime > _OLD:
                    path.unlink()

    @contextlib.contextmanager
    def _explaining_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"cannot open the store {self._path}: {error.strerror or error}; name another folder"
            raise StoreError(message) from error


_Listing = tuple[Sequence[Entry], Sequence[tuple[str, frozenset[str]]]]
"""The files in a folder, and its subfolders, each with the links that lead to it."""


class WatchedFolder(Folder):
    """A folder that caches the listing of each subfolder until the subfolder's modification time changes.

    The files of a store never change: they are added and removed, which changes the time of their folder. Checking it
    takes a third of the time of listing. A file changed in place, for example by damage, goes unnoticed.
    """

    def __init__(self, path: Path) -> None:
        """Set the folder's path; see `Folder`."""
        super().__init__(path)
        self._listings: dict[str, tuple[int, _Listing]] = {}  # by folder, its time and its listing at that time

    def _scan(self, folder: str, links: frozenset[str]) -> _Listing:
        try:
            changed = os.stat(f"{self.location}/{folder}").st_mtime_ns  # noqa: PTH116 (as `_scan`, of 100,000 folders)
        except _NO_FOLDER:
            self._listings.pop(folder, None)
            return [], []
        except OSError:
            return super()._scan(folder, links)  # raises the proper error
        known = self._listings.get(folder)
        if known is not None and known[0] == changed:
            return known[1]
        found = super()._scan(folder, links)
        if is_stable(changed):
            self._listings[folder] = changed, found
        else:
            self._listings.pop(folder, None)
        return found


def _is_circular(folder: Path, target: str) -> bool:
    # Whether a link in a folder leads to that folder or one above it.
    return Path(target).is_symlink() or Path(os.path.realpath(folder)).is_relative_to(target)


def open_backend(location: str | Path) -> Backend:
    """Open the backend at a location: a folder, or `s3://BUCKET/PREFIX`.

    Raises:
        UsageError: the location is empty, or of an unknown kind.
        StoreError: the name is invalid, or a required package is not installed.
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
