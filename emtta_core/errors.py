"""The errors that a user can mend.

Each message names the thing, the value it had, the values it may have, and what to do next.
The command line prints the message alone, with no traceback.
"""

from difflib import get_close_matches


class EmttaError(Exception):
    """Something went wrong that its message lets the reader mend; the command ends with exit code 1.

    Attributes:
        subject: what the message begins with, where others of the same reason differ in that alone, so that the reason
            need be told but once; else empty.
    """

    def __init__(self, *message: object, subject: str = "") -> None:
        super().__init__(*message)
        self.subject = subject


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


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or the name of its kind where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
