"""The standard streams of the command: output never fails because of where it goes.

What the encoding of a stream cannot hold is written as an escape, a reader that has gone away (`emtta list | head -1`,
a closed terminal) ends no command, and a stream that was closed before the command began leads to `/dev/null`. A disk
without room for standard output is an error, for there the output was to be kept.
"""

import codecs
import errno
import io
import os
import sys
from typing import Any

from emtta_core.errors import EmttaError

ESCAPE = "emtta-escape"
"""The name of the error handler of these streams' encodings."""

READER_GONE = frozenset({errno.EPIPE, errno.EIO})
"""What writing fails with when a pipe has no reader any more, or a terminal was closed."""


def settle_streams() -> None:
    """Prepare the standard streams of this process; streams that something else has put in their place are left."""
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if name in closed and not _is_open(number):  # else the next file that is opened would be taken for the stream
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, forgiven in (("stdout", READER_GONE), ("stderr", None)):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8", errors=ESCAPE)  # noqa: PTH123, SIM115
        elif stream is getattr(sys, f"__{name}__") and not isinstance(stream, _Stream):
            stream.flush()
            stream = _Stream(stream, forgiven)
        setattr(sys, name, stream)
    if "stdout" in closed:
        sys.stderr.write("standard output is closed; results that would be shown there are lost\n")


class _Output(io.FileIO):
    """A standard stream that forgives some errors, or all; after any error it leads to `/dev/null`."""

    def __init__(self, number: int, forgiven: frozenset[int] | None) -> None:
        super().__init__(number, "w", closefd=False)
        self._forgiven = forgiven

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if self._forgiven is None or error.errno in self._forgiven:
                return len(data)
            raise EmttaError(f"standard output cannot be written: {error.strerror}") from error


class _Stream(io.TextIOWrapper):
    """A standard stream that can hold every letter."""

    def __init__(self, like: io.TextIOWrapper, forgiven: frozenset[int] | None) -> None:
        super().__init__(
            io.BufferedWriter(_Output(like.fileno(), forgiven)),
            encoding=like.encoding,
            errors=ESCAPE,
            line_buffering=like.line_buffering or like.write_through,
        )


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding cannot hold as JSON would, so that a JSON text stays one."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{unit.hex()}" for unit in (units[at : at + 2] for at in range(0, len(units), 2))), error.end


codecs.register_error(ESCAPE, _escape)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
