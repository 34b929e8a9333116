"""What a folder says of its utterances, whatever form it says it in: a row for each, with its file and line."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emtta_core.errors import UsageError

NAMED = 3
"""How many files a note names of a kind."""

LANGUAGE = re.compile(r"[a-z]{2,3}")
"""An ISO 639-1 code."""

LONGEST = 10_000_000
"""Seconds of which nobody has one recording."""

NO_LANGUAGE = "it must be an ISO 639-1 code such as en"
NOT_SILENT = "silence = true says that nobody speaks; leave the text empty, or take silence out of the corpus"
"""Why a language, and a transcript, is refused."""


@dataclass(frozen=True, slots=True)
class Row:
    """An utterance."""

    file: Path  # where it is stated
    line: int  # the number of the line that the row ends on, from 1
    path: str  # of its audio file, as it is stated
    text: str = ""  # its transcript
    id: str = ""  # none: it is named after its path
    language: str = ""  # ISO 639-1 code; none: that of the corpus
    speaker: str = ""
    begin: float | None = None  # seconds, where it is a segment of its file; None: it is the whole file
    length: float | None = None  # of the segment, in seconds; None: to the end of the file
    duration: float | None = None  # its length as it is stated, in seconds
    metadata: Mapping[str, Any] = field(default_factory=dict)  # what else is stated
    columns: Mapping[str, str] = field(default_factory=dict)  # what columns are called there, by field
    error: str | None = None  # why its audio cannot be used, where that is known already

    def refusal(self, name: str, value: object, reason: str) -> UsageError:
        """The refusal of this row's value of a field; `reason` says what is wrong and what is allowed."""
        column = f", column {self.columns.get(name, name)!r}" if self.columns else ""
        return UsageError(f"{self.file}, line {self.line}{column}: {value!r}: {reason}")

    @property
    def span(self) -> str:
        """Which part of its file it is, for an id; empty for the whole file."""
        if self.begin is None:
            return ""
        end = "end" if self.length is None else f"{round(1000 * (self.begin + self.length)):07d}"
        return f"-{round(1000 * self.begin):07d}-{end}"


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a folder."""

    rows: list[Row]
    base: Path  # relative paths begin here
    notes: tuple[str, ...] = ()  # what is there and not used, a sentence each


def segment(
    row: Callable[[str, object, str], UsageError],
    *,
    offset: float | None = None,
    start: float | None = None,
    end: float | None = None,
    duration: float | None = None,
) -> tuple[float | None, float | None]:
    """Where a segment begins and how long it is, in seconds; None for each that is not stated.

    Where it begins may be called its offset or its start. `row` makes the refusal of a field, a value and a reason.

    Raises:
        UsageError: it is stated twice, or in part; it begins before its file, or has no length.
    """
    if offset is not None and start is not None:
        raise row("start", start, f"there is an offset ({offset:g}) as well; keep one of the two")
    name, begin = ("offset", offset) if start is None else ("start", start)
    if begin is None:
        if end is not None:
            raise row("end", end, "a segment needs its start as well; give it, in seconds, or leave the end empty")
        return None, None
    if begin < 0:
        raise row(name, begin, "a segment begins at 0 seconds or later")
    if begin + (duration or 0.0) > LONGEST or (end or 0.0) > LONGEST:
        raise row(name, begin, f"no recording is longer than {LONGEST:,} seconds; correct the segment")
    if end is not None and end <= begin:
        raise row("end", end, f"a segment ends after its start, which is at {begin:g} seconds")
    if end is None and duration is not None and duration <= 0:
        raise row("duration", duration, "a segment is longer than 0 seconds")
    return begin, (duration if end is None else end - begin)


def number_of(value: object) -> float | None:
    """A finite number, or a text that is one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def some(names: Collection[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join([*names][:NAMED]) + more
