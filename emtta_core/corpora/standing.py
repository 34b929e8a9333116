"""Whether something that a suite needs is on this machine, and where it is to be had."""

from dataclasses import dataclass
from typing import Literal

State = Literal["here", "to fetch", "missing"]
"""On this machine; on the hub, which gives it; or neither, so that somebody has to do something."""


@dataclass(frozen=True, slots=True)
class Archive:
    """What somebody gets by hand, where nothing fetches it.

    Attributes:
        holds: what is in it, for those who look at how large it is.
        size: bytes of it; None where nobody is known to say.
        source: who says so.
    """

    holds: str = ""
    size: int | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How something stands that a suite needs.

    Attributes:
        what: its name, with the part of it that is wanted.
        state: whether it is there.
        where: the folder that it lies in, or where it is to be had.
        licence: under which it may be used.
        size: bytes that would be fetched; None where that is nothing, or not known.
        error: why it cannot be had.
        subject: what the error begins with, where others of the same reason differ in that alone.
        archive: of what is missing, what is to be got by hand; None where that is of no use.
    """

    what: str
    state: State
    where: str
    licence: str
    size: int | None = None
    error: str | None = None
    subject: str = ""
    archive: Archive | None = None
