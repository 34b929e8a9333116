"""The errors that a user can mend.

    EmttaError                    exit code 1
      UsageError                  the request is wrong; exit code 2
      AudioError                  costs its own utterance and no other
      EmptyReferenceError         likewise; in scoring.wer
      CorpusError                 costs its own domains and no other
      UnreachableHubError         also a ConnectionError, which may pass; in hub
      ModelError
      PluginError                 costs its own cells; in adaptation.parts
      ScorerError                 another package's normalizer fails; in scoring.scorer
      StoreError
        LeaseLostError            another process has taken the run over; in store.lease
        _UnknownRequestError      a server lacks a part of S3; in store.s3
      TooManyErrorsError          more than the suite allows; in pipeline.evaluate
      InterruptedRunError         the run was asked to stop; in pipeline.job
        UnwantedError             a worker was ended with its run; in worker.worker
      GarbageError                a worker wrote what is no message; in worker.worker
      JobFailedError              a job would fail again; in worker.worker
      TransientError              another attempt may succeed; in faults
        PassingError              a job failed of such a fault; in worker.worker
        WorkerLostError           a worker ended in the middle of its job; in worker.worker
          LostTaskError           a task run ended with its process; in flows.executor

Each message names the thing, the value it had, the values it may have, and what to do next.
The command line prints the message alone, with no traceback.
"""

import re
from difflib import get_close_matches

from emtta_core.sanitize import without_passwords


class EmttaError(Exception):
    """Something went wrong that its message lets the reader mend; the command ends with exit code 1."""

    def __init__(self, *message: object, subject: str = "") -> None:
        super().__init__(*(without_passwords(part) if isinstance(part, str) else part for part in message))
        # What the message begins with, where others with this reason differ in that alone: the reason is shown once.
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
    """The error on an unknown name: what it names, its value, the nearest name and all that there are."""
    by_small_letters = {name.lower(): name for name in allowed}
    near = [by_small_letters[name] for name in get_close_matches(str(value).lower(), by_small_letters, 1, cutoff=0.7)]
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    return UsageError(f"unknown {what} {str(value)!r}{meant}; choose from: {', '.join(sorted(allowed)) or '(none)'}")


def in_words(error: BaseException) -> str:
    """The first line of an error's message, for people: without the names that Python gives to errors."""
    if isinstance(error, OSError) and error.strerror:
        file = f": {error.filename}" if error.filename is not None else ""
        return f"{error.strerror}{file}"
    text = _KIND.sub("", str(error).strip().partition("\n")[0].strip())[:_MOST]
    if isinstance(error, KeyError):
        return f"there is no {text}" if text else "something is missing"
    return text or next((words for kind, words in _SILENT.items() if isinstance(error, kind)), "no reason is given")


_MOST = 300
"""Characters that are kept of a library's message."""

_KIND = re.compile(r"^(?:[\w.]*(?:Error|Exception|Warning)\b[:(\s]*)+")
"""The name of a Python exception, as libraries put it before their message."""

_SILENT: dict[type[BaseException], str] = {
    MemoryError: "memory does not suffice",
    TimeoutError: "it took too long",
    RecursionError: "it is nested too deeply",
    NotImplementedError: "it is not supported",
    AssertionError: "something is not as it must be",
    StopIteration: "something ended too early",
    EOFError: "something ended too early",
}
"""The message of an error that has none."""
