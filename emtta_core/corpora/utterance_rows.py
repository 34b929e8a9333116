"""The utterances of a folder, whatever its format: a row for each, with its file and line."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emtta_core.errors import UsageError

MAX_LISTED = 3
"""The number of files of each kind named in a note."""

LANGUAGE = re.compile(r"[a-z]{2,3}")
"""An ISO 639-1 code."""

LONGEST = 10_000_000
"""Seconds beyond which a recording is implausible."""

NO_LANGUAGE = "it must be an ISO 639-1 code such as en"
NOT_SILENT = "silence = true means that there is no speech; leave the text empty, or remove silence from the corpus"
"""Why a language or a transcript is refused."""


@dataclass(frozen=True, slots=True)
class Row:
    """An utterance."""

    file: Path  # the file that defines it
    line: int  # the number of the last line of the row, from 1
    path: str  # of its audio file, as written
    text: str = ""  # its transcript
    id: str = ""  # empty: it is named after its path
    language: str = ""  # ISO 639-1 code; empty: that of the corpus
    speaker: str = ""
    begin: float | None = None  # where in its file a segment begins, in seconds; None: it is the whole file
    length: float | None = None  # of the segment, in seconds; None: to the end of the file
    duration: float | None = None  # its stated length, in seconds
    metadata: Mapping[str, Any] = field(default_factory=dict)  # all other fields
    columns: Mapping[str, str] = field(default_factory=dict)  # the column names in the file, by field
    error: str | None = None  # why its audio cannot be used, if already known

    def refusal(self, name: str, value: object, reason: str) -> UsageError:
        """The error for this row's value of a field; `reason` says what is wrong and what is allowed."""
        column = f", column {self.columns.get(name, name)!r}" if self.columns else ""
        return UsageError(f"{self.file}, line {self.line}{column}: {value!r}: {reason}")

    @property
    def span(self) -> str:
        """The part of its file that it is, for an id; empty for the whole file."""
        if self.begin is None:
            return ""
        end = "end" if self.length is None else f"{round(1000 * (self.begin + self.length)):07d}"
        return f"-{round(1000 * self.begin):07d}-{end}"


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a folder."""

    rows: list[Row]
    base: Path  # the folder that paths are relative to
    notes: tuple[str, ...] = ()  # what exists but is not used, one sentence each


def segment(
    row: Callable[[str, object, str], UsageError],
    *,
    offset: float | None = None,
    start: float | None = None,
    end: float | None = None,
    duration: float | None = None,
) -> tuple[float | None, float | None]:
    """The start and the length of a segment, in seconds; None for each that is not stated.

    The start may be given as offset or as start. `row` makes the error for a field, a value and a reason.

    Raises:
        UsageError: it is stated twice or incompletely, begins before its file, or has no length.
    """
    if offset is not None and start is not None:
        raise row("start", start, f"there is an offset ({offset:g}) as well; keep one of the two")
    name, begin = ("offset", offset) if start is None else ("start", start)
    if begin is None:
        if end is not None:
            raise row("end", end, "a segment also needs its start; add it, in seconds, or leave the end empty")
        return None, None
    if begin < 0:
        raise row(name, begin, "a segment must begin at 0 seconds or later")
    if begin + (duration or 0.0) > LONGEST or (end or 0.0) > LONGEST:
        raise row(name, begin, f"no recording is longer than {LONGEST:,} seconds; correct the segment")
    if end is not None and end <= begin:
        raise row("end", end, f"a segment must end after its start, which is at {begin:g} seconds")
    if end is None and duration is not None and duration <= 0:
        raise row("duration", duration, "a segment must be longer than 0 seconds")
    return begin, (duration if end is None else end - begin)


def number_of(value: object) -> float | None:
    """The finite number that a value or its text is; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def some(names: Collection[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join([*names][:MAX_LISTED]) + more
