"""The states of a run's unfinished streams, from which a killed stream resumes.

A state is written after the rows that led to it, replacing the previous one, and removed when its stream is complete.
It is not a table: no query reads it. Its file, `states/run_id=…/<digest>.state`, begins with the SHA-256 of the rest,
as 64 hexadecimal digits.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence

from emtta_core.errors import StoreError
from emtta_core.names import check_name
from emtta_core.store.backend import Backend, Entry
from emtta_core.store.parquet import BrokenFile

FOLDER = "states"

_DIGITS = 64

log = logging.getLogger("emtta.store")


def write_state(backend: Backend, run_id: str, stream: str, content: bytes) -> None:
    """Write the state of a stream of a run; `stream` is the digest that identifies it."""
    backend.write(_file(run_id, stream), hashlib.sha256(content).hexdigest().encode() + content)


def read_state(backend: Backend, run_id: str, stream: str) -> bytes | None:
    """Read the state of a stream; None if it has not begun, or its file is damaged, which is logged as a warning.

    Raises:
        StoreError: the file exists but cannot be read; its work must not be repeated.
    """
    name = _file(run_id, stream)
    if not backend.exists(name):
        return None
    try:
        content = backend.read(name)
    except OSError as error:
        raise StoreError(f"{backend.url(name)} cannot be read: {error}; nothing was changed, so try again") from error
    if not _is_intact(content):
        log.warning("%s is damaged: the stream starts over", backend.url(name))
        return None
    return content[_DIGITS:]


def remove_state(backend: Backend, run_id: str, stream: str) -> None:
    """Remove the state of a stream that is complete."""
    backend.remove([_file(run_id, stream)])


def broken_states(backend: Backend, entries: Sequence[Entry]) -> Iterator[BrokenFile]:
    """Yield the state files that cannot be read or are damaged."""
    for name, content in backend.read_all(entry.name for entry in entries):
        if isinstance(content, OSError):
            broken = BrokenFile.refused(name, content)
            if broken.problem != "missing":  # otherwise its stream was completed meanwhile
                yield broken
        elif not _is_intact(content):
            yield BrokenFile(name, "its digest does not match its content")


def _is_intact(content: bytes) -> bool:
    return hashlib.sha256(content[_DIGITS:]).hexdigest().encode() == content[:_DIGITS]


def _file(run_id: str, stream: str) -> str:
    check_name("run id", run_id)
    return f"{FOLDER}/run_id={run_id}/{stream}.state"
