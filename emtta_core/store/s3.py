"""The backend for S3-compatible object stores: files are objects below a prefix; failed requests are explained."""

import contextlib
import errno
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import duckdb
import s3fs
from botocore import exceptions as boto

from emtta_core.errors import StoreError, UsageError
from emtta_core.store.backend import Backend, Entry
from emtta_core.store.s3_filesystem import StoreFileSystem

log = logging.getLogger("emtta.store")

CONNECTIONS = 32
"""Concurrent requests."""

TAIL = 65_536
"""Bytes that one request fetches from the end of a file; most files are smaller."""

CACHED_TAILS = 2048
"""The most file ends kept in memory: 128 MiB."""

_LOCATION = re.compile(
    r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(/(?!\.{1,2}(/|$))[\w.+-]+)*)/*", re.ASCII
)
_SETTINGS = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
)
_SIGN = ".writable"
_PUT_BYTES = 5 * 2**30  # the largest object that one PUT may write
_KEYS = 1000  # the most objects that one request may remove
_TRIES = 5

Item = TypeVar("Item")
Output = TypeVar("Output")


class S3(Backend):
    """A prefix of a bucket; server and credentials come from the environment (`AWS_…`) or AWS's configuration files."""

    def __init__(self, location: str) -> None:
        """Set the location, `s3://BUCKET/PREFIX`; no request is sent yet.

        Raises:
            UsageError: the location is not of that form.
        """
        match = _LOCATION.fullmatch(location)
        if match is None:
            raise UsageError(
                f"{location!r} is not a store; write s3://BUCKET/PREFIX, with a bucket name of 3 to 63 lower-case "
                "letters, digits, '.' and '-', and a prefix of letters, digits and '. _ + -' in parts separated by '/'"
            )
        self._bucket, self._prefix = match["bucket"], match["prefix"].removeprefix("/")
        super().__init__(f"s3://{self._bucket}{match['prefix']}")
        self._conditional: bool | None = None

    # The store as a whole

    def is_there(self) -> bool:
        """Whether any object is below the prefix."""
        with self._explaining_errors("list"):
            found = self._files.call_s3("list_objects_v2", Bucket=self._bucket, Prefix=self._key(""), MaxKeys=1)
        return bool(found.get("Contents"))

    def make(self) -> None:
        """Write an empty object, which marks the store and shows that it is writable."""
        self.write(_SIGN, b"")

    def check_writable(self) -> str:
        """Check that objects can be written, leave nothing behind, and return a sentence that says so."""
        exists, name = self.is_there(), f".emtta-{os.urandom(6).hex()}"
        self.write(name, b"")
        self.remove([name])
        return f"{self.location} can be {'written' if exists else 'created'}"

    def attach(self, connection: duckdb.DuckDBPyConnection) -> Callable[[Sequence[Entry]], None]:
        """Let DuckDB read through this backend's file system, many files at once."""
        filesystem = StoreFileSystem(self)
        connection.register_filesystem(filesystem)
        connection.execute(f"SET threads = {CONNECTIONS}")  # reading is bound by network latency, not by cores
        connection.execute("SET enable_external_file_cache = false")  # it detects changes only to the second
        return filesystem.set_entries

    # Reading

    def list(self, folder: str) -> Sequence[Entry]:
        """The objects below `folder`, sorted by name; 1,000 per request."""
        found, options = [], {"Bucket": self._bucket, "Prefix": self._key(f"{folder}/")}
        while True:
            with self._explaining_errors("list"):
                page = self._files.call_s3("list_objects_v2", **options)
            for item in page.get("Contents", ()):
                name = item["Key"][len(self._key("")) :]
                if not name.rpartition("/")[2].startswith("."):
                    found.append(Entry(name, item["Size"], item["ETag"], item["LastModified"].timestamp()))
            if not page.get("IsTruncated"):
                return found
            options["ContinuationToken"] = page["NextContinuationToken"]

    def exists(self, name: str) -> bool:
        """Whether an object is there."""
        try:
            with self._explaining_errors("read", name):
                self._files.call_s3("head_object", Bucket=self._bucket, Key=self._key(name))
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> bytes:
        """The content of an object."""
        with self._explaining_errors("read", name):
            return bytes(self._files.cat_file(self._path(name)))

    def read_all(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        """Yield each object with its content, read many at a time."""
        return _in_parallel(self.read, names)

    def read_tails(self, entries: Iterable[Entry], length: int) -> Iterator[tuple[Entry, bytes | OSError]]:
        """Yield each object with its last bytes, read many at a time and cached."""
        return _in_parallel(lambda entry: self.read_tail(entry, length), entries)

    def read_tail(self, entry: Entry, length: int = TAIL) -> bytes:
        """The last bytes of an object: at least `length`, or the whole object."""
        with self._explaining_errors("read", entry.name):
            return _read_end(self._files, self._path(entry.name), entry.size, entry.tag, max(length, TAIL))

    def open_stream(self, entry: Entry) -> Any:
        """An open file that is read in parts, on demand."""
        with self._explaining_errors("read", entry.name):
            return self._files.open(self._path(entry.name), "rb", block_size=TAIL, size=entry.size)

    # Writing

    def write(self, name: str, content: bytes) -> None:
        """Write an object, replacing an existing one."""
        with self._explaining_errors("write", name):
            self._files.pipe_file(self._path(name), content, chunksize=_PUT_BYTES)

    def write_new(self, name: str, content: bytes) -> bool:
        """Write an object unless it exists.

        A request whose response is lost is sent again, and then finds the object that it wrote itself. So an existing
        object of the same content counts as written here, unless it is empty: an attempt then takes the next number.
        """
        if self._has_conditional_put():
            return self._put_new(name, content) or (bool(content) and self.read(name) == content)
        if self.exists(name):
            return False
        self.write(name, content)
        return True

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, 1,000 per request."""
        keys = [{"Key": self._key(name)} for name in names]
        for start in range(0, len(keys), _KEYS):
            batch = {"Objects": keys[start : start + _KEYS], "Quiet": True}
            with self._explaining_errors("remove"):
                response = self._files.call_s3("delete_objects", Bucket=self._bucket, Delete=batch)
            for failed in response.get("Errors", ()):
                raise StoreError(
                    f"cannot remove s3://{self._bucket}/{failed['Key']}: {failed.get('Message', failed.get('Code'))}; "
                    "check the permission s3:DeleteObject"
                )

    @contextlib.contextmanager
    def appending(self, name: str) -> Iterator[Path]:
        """Yield a temporary file with the content of the object; write the object from it at the end."""
        with tempfile.TemporaryDirectory(prefix="emtta-") as folder:
            path = Path(folder) / name.rpartition("/")[2]
            with contextlib.suppress(FileNotFoundError):
                path.write_bytes(self.read(name))
            try:
                yield path
            finally:
                if path.exists():
                    self.write(name, path.read_bytes())

    # Helpers

    @property
    def _files(self) -> Any:
        # The `s3fs` file system, one per process, server and credentials.
        return _file_system(*(os.environ.get(name) for name in _SETTINGS))

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._key(name)}"

    def _has_conditional_put(self) -> bool:
        # Whether the server supports a conditional PUT, refusing it if the object exists; tried once.
        if self._conditional is None:
            try:
                # A server that ignores the condition accepts both; one that honors it refuses at least the second.
                self._conditional = not self._put_new(_SIGN, b"") or not self._put_new(_SIGN, b"")
            except _UnknownRequestError:
                self._conditional = False
            if not self._conditional:
                log.warning(
                    "the server of %s does not support conditional PUT (If-None-Match), which keeps two writers apart; "
                    "do not let two processes write to the same run",
                    self.location,
                )
        return self._conditional

    def _put_new(self, name: str, content: bytes) -> bool:
        # Write an object by a conditional PUT; False if it exists or is being written.
        for _ in range(_TRIES):
            try:
                with self._explaining_errors("write", name):
                    self._files.pipe_file(self._path(name), content, chunksize=_PUT_BYTES, mode="create")
            except FileExistsError:
                return False
            # Another writer's request for it is in progress; ours can be decided only when that has ended.
            except BlockingIOError:
                continue
            return True
        return False

    @contextlib.contextmanager
    def _explaining_errors(self, what: str, name: str | None = None) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            _raise_explained(error, what, self.location if name is None else self.url(name), self._bucket)


def _in_parallel(ask: Callable[[Item], Output], items: Iterable[Item]) -> Iterator[tuple[Item, Output | OSError]]:
    # Each item with the result of `ask`, or the `OSError` that it raises; in order, many at a time.
    def answer(item: Item) -> tuple[Item, Output | OSError]:
        try:
            return item, ask(item)
        except OSError as error:
            return item, error

    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="s3") as pool:
        yield from pool.map(answer, items)


@lru_cache(maxsize=CACHED_TAILS)
def _read_end(files: Any, path: str, size: int, _tag: str, length: int) -> bytes:
    # The last bytes of an object; an object with a different tag is a different one.
    return bytes(files.cat_file(path, start=max(0, size - length), end=size)) if size else b""


@lru_cache(maxsize=8)
def _file_system(*settings: str | None) -> Any:
    # The file system for the values of `_SETTINGS`, all of which but AWS_REGION botocore reads itself.
    region = dict(zip(_SETTINGS, settings, strict=True))["AWS_REGION"]
    return s3fs.S3FileSystem(
        client_kwargs={"region_name": region} if region else {},
        config_kwargs={"retries": {"mode": "standard"}, "max_pool_connections": CONNECTIONS},
        max_concurrency=1,  # parts of one object; with more, s3fs requests its size before reading
        use_listings_cache=False,
        skip_instance_cache=True,
    )


_ERRNO = {
    **dict.fromkeys(("NoSuchKey", "404"), errno.ENOENT),
    **dict.fromkeys(("PreconditionFailed", "412"), errno.EEXIST),
    **dict.fromkeys(("ConditionalRequestConflict", "OperationAborted", "409"), errno.EAGAIN),
}
"""States of a single object; EAGAIN if another writer is writing it."""


class _UnknownRequestError(StoreError):
    """The server does not support a part of S3."""


_UNKNOWN_REQUEST = {"NotImplemented", "501"}
_BAD_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_FORBIDDEN = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403"}
_WRONG_REGION = {"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}

_PERMISSION = {
    "list": "s3:ListBucket",
    "read": "s3:GetObject",
    "write": "s3:PutObject",
    "remove": "s3:DeleteObject",
}


def _raise_explained(error: Exception, what: str, url: str, bucket: str) -> NoReturn:
    # Raise the error for a failed request, chained so that `emtta_core.faults` can see whether it is transient: a
    # built-in error for the state of a single object, `_UnknownRequestError` if the server does not know the request,
    # otherwise `StoreError`.
    # Servers send an error code or, if the response has no body (HEAD), only the HTTP status.
    code = str(_response(error).get("Error", {}).get("Code", ""))
    if code in _ERRNO:
        raise OSError(_ERRNO[code], os.strerror(_ERRNO[code]), url) from error
    if code in _UNKNOWN_REQUEST:
        raise _UnknownRequestError(
            f"cannot {what} {url}: its server does not support this S3 request ({code}); use another server"
        ) from error
    # `faults` recognizes transient errors by the cause: a lost connection, or a server that is busy or briefly down.
    cause: Exception = error
    if isinstance(error, _NO_CONNECTION):
        cause = ConnectionError(str(error))
    elif _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode") in {429, 500, 502, 503, 504}:
        cause = OSError(errno.EBUSY, str(error))
    raise StoreError(f"cannot {what} {url}: {_reason(error, code, what, bucket)}") from cause


_NO_CONNECTION = (boto.HTTPClientError, boto.ConnectionError, ConnectionError, TimeoutError)


def _response(error: BaseException) -> dict[str, Any]:
    # The server's response, which `s3fs` keeps as the cause of its own error.
    found = error if isinstance(error, boto.ClientError) else error.__cause__
    return dict(found.response) if isinstance(found, boto.ClientError) else {}


def _reason(error: Exception, code: str, what: str, bucket: str) -> str:
    server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    text = " ".join(str(error).split())
    if code == "NoSuchBucket":
        return f"there is no bucket {bucket!r} at {server}; create it (aws s3 mb s3://{bucket}), or name another store"
    if code in _BAD_KEY:
        return f"{server} rejects the credentials ({text}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code in _FORBIDDEN:
        return f"{server} denies access ({text}); grant the credentials' owner the permission {_PERMISSION[what]}"
    if code in _WRONG_REGION:
        return f"the bucket {bucket!r} is in another region ({text}); set AWS_REGION to that region"
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, boto.ProfileNotFound):
        return f"{text}; check AWS_PROFILE"
    if isinstance(error, _NO_CONNECTION):
        return f"{server} does not answer ({text}); check AWS_ENDPOINT_URL and the network"
    if isinstance(error, ValueError) and "endpoint" in text.lower():
        return f"{text}; set AWS_ENDPOINT_URL to a URL like https://s3.example.org, or unset it for AWS"
    return f"{type(error).__name__}: {text}"
