"""How much time and memory a query may take, so that one without end is stopped, and no machine is brought down."""

import re
from dataclasses import dataclass

import duckdb

from emtta_core.errors import UsageError

SECONDS = 600.0
"""The time limit of a query where none is given."""

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b)", re.IGNORECASE)
_LEAST = 50_000_000
"""Bytes without which DuckDB does not even open a store."""


def parse_size(text: str) -> int:
    """Return the bytes that a text such as `4GB` or `512 MiB` names.

    Raises:
        UsageError: it names none.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not an amount of memory; write a number and a unit, such as 4GB or 512MB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def memory_limit(connection: duckdb.DuckDBPyConnection) -> int:
    """Return the bytes that DuckDB uses by default: 80 % of the machine's memory, or of the container's."""
    ((value,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    return parse_size(str(value))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a query may take.

    Attributes:
        seconds: time; None for no limit.
        memory: bytes; None for 40 % of the machine's. An answer may have an eighth of them, because it takes several
            times its size to write it down, and temporary files four times as many.
    """

    seconds: float | None = SECONDS
    memory: int | None = None

    def __post_init__(self) -> None:
        """Refuse limits with which nothing can be asked."""
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise UsageError(f"a time limit of {self.seconds:g} s is out of range; give seconds above 0")
        if self.memory is not None and self.memory < _LEAST:
            raise UsageError(f"a memory limit of {_size(self.memory)} is too small; give at least {_size(_LEAST)}")

    def answer(self, memory: int) -> int:
        """Return the bytes that an answer may have."""
        return memory // 8

    def disk(self, memory: int) -> int:
        """Return the bytes that temporary files may have."""
        return memory * 4

    def exceeded_time(self, what: str) -> str:
        """Return the message on what took too long."""
        return f"{what} was stopped at the time limit of {self.seconds:g} s; allow more with --timeout SECONDS"

    def exceeded_memory(self, what: str, memory: int) -> str:
        """Return the message on what took too much memory."""
        return f"{what} was stopped at the memory limit of {_size(memory)}; allow more with --memory SIZE"

    def exceeded_answer(self, memory: int) -> str:
        """Return the message on an answer that is too large."""
        return (
            f"the query was stopped: its answer is larger than {_size(self.answer(memory))}, an eighth of the memory "
            "limit; ask for fewer rows or columns (LIMIT), or allow more with --memory SIZE"
        )


def _size(count: int) -> str:
    return f"{count / 10**9:.3g} GB" if count >= 10**9 else f"{count / 10**6:.3g} MB"
