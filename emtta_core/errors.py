"""The errors that a user can mend.

Each message names the thing, the value it had, the values it may have, and what to do next.
The command line prints the message alone, with no traceback.
"""

import re
from difflib import get_close_matches

from emtta_core.network import without_passwords


class EmttaError(Exception):
    """Something went wrong that its message lets the reader mend; the command ends with exit code 1.

    Attributes:
        subject: what the message begins with, where others of the same reason differ in that alone, so that the reason
            need be told but once; else empty.
    """

    def __init__(self, *message: object, subject: str = "") -> None:
        super().__init__(*(without_passwords(part) if isinstance(part, str) else part for part in message))
        self.subject = without_passwords(subject)


class UsageError(EmttaError):
    """The request itself is wrong (an unknown suite, method, domain, run or option); exit code 2."""


class AudioError(EmttaError):
    """A waveform or an audio file cannot be used; it costs its own utterance and no other."""


class CorpusError(EmttaError):
    """A corpus cannot be had: it is missing, forbidden or out of reach; it costs its own domains and no other."""


class ModelError(EmttaError):
    """A model cannot be loaded, or is not of a kind that can be adapted."""


class StoreError(EmttaError):
    """The store cannot be read or written."""


def unknown(what: str, value: object, allowed: "list[str] | tuple[str, ...]") -> UsageError:
    """Return the refusal of an unknown name: what it names, its value, the nearest name and all that there are."""
    by_small_letters = {name.lower(): name for name in allowed}
    near = [by_small_letters[name] for name in get_close_matches(str(value).lower(), by_small_letters, 1, cutoff=0.7)]
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    return UsageError(f"unknown {what} {str(value)!r}{meant}; choose from: {', '.join(sorted(allowed)) or '(none)'}")


def in_words(error: BaseException) -> str:
    """Return the first line of what an error says, for people: without the names that Python gives to errors."""
    if isinstance(error, OSError) and error.strerror:
        file = f": {error.filename}" if error.filename is not None else ""
        return f"{error.strerror}{file}"
    text = _KIND.sub("", str(error).strip().partition("\n")[0].strip())[:_MOST]
    if isinstance(error, KeyError):
        return f"there is no {text}" if text else "something is missing"
    return text or next((words for kind, words in _SILENT.items() if isinstance(error, kind)), "no reason is given")


_MOST = 300
"""Characters of a library's error that are told."""

_KIND = re.compile(r"^(?:[\w.]*(?:Error|Exception|Warning)\b[:(\s]*)+")
"""The name of a Python exception, as libraries put it before what they say."""

_SILENT: dict[type[BaseException], str] = {
    MemoryError: "memory does not suffice",
    TimeoutError: "it took too long",
    RecursionError: "it is nested too deeply",
    NotImplementedError: "it is not supported",
    AssertionError: "something is not as it must be",
    StopIteration: "something ended too early",
    EOFError: "something ended too early",
}
"""What to say of an error that says nothing."""
