"""Where a store lies, in a folder or below a prefix of an object store, and the few operations that it needs there.

Whatever differs between the two is in the classes that implement `Backend`; no other code asks which it is.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from emtta_core.errors import StoreError, UsageError

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


def open_backend(location: str | Path) -> Backend:
    """Open the backend that a user names.

    Args:
        location: a folder, or `s3://BUCKET/PREFIX`.

    Raises:
        UsageError: it is empty, or no such kind of backend is known.
        StoreError: its name will not do, or what it needs is not installed.
    """
    name = str(location)
    if not name.strip():
        raise UsageError(f"a store cannot be at {name!r}; name a folder, or s3://BUCKET/PREFIX ('.' is this folder)")
    scheme = _SCHEME.match(name)
    if scheme is None:
        from emtta_core.store.local import Folder

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
