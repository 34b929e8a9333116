"""The errors that a user can fix.

    EmttaError                    exit code 1
      UsageError                  the request is wrong; exit code 2
      AudioError                  affects only its own utterance
      EmptyReferenceError         likewise; in scoring.wer
      CorpusError                 affects only its own domains
      UnreachableHubError         also a ConnectionError, may be temporary; in hub
      ModelError
      PluginError                 affects only its own cells; in adaptation.parts
      ScorerError                 another package's normalizer fails; in scoring.scorer
      StoreError
        LeaseLostError            another process has taken over the run; in store.lease
        _UnknownRequestError      a server does not support a part of S3; in store.s3
      TooManyErrorsError          more errors than the suite allows; in pipeline.evaluate
      InterruptedRunError         the run was asked to stop; in pipeline.job
        StoppedWorkerError        a worker was ended with its run; in worker.worker
      GarbageError                a worker wrote something other than a message; in worker.worker
      JobFailedError              a job would fail again; in worker.worker
      TransientError              another attempt may succeed; in faults
        TransientJobError         a job failed with such a fault; in worker.worker
        WorkerLostError           a worker ended during its job; in worker.worker
          LostTaskError           a task run ended with its process; in flows.executor

Each message names the thing, its value, the allowed values, and what to do next.
The command line prints only the message, without a traceback.
"""

import re
from difflib import get_close_matches

from emtta_core.sanitize import without_passwords


class EmttaError(Exception):
    """An error whose message tells the user how to fix it; the command ends with exit code 1."""

    def __init__(self, *message: object, subject: str = "") -> None:
        super().__init__(*(without_passwords(part) if isinstance(part, str) else part for part in message))
        # The beginning of the message, if errors with the same reason differ only in that: the reason is shown once.
        self.subject = without_passwords(subject)


class UsageError(EmttaError):
    """The request itself is wrong (an unknown suite, method, domain, run or option); exit code 2."""


class AudioError(EmttaError):
    """A waveform or an audio file cannot be used; affects only its own utterance."""


class CorpusError(EmttaError):
    """A corpus is not available: it is missing, forbidden or unreachable; affects only its own domains."""


class ModelError(EmttaError):
    """A model cannot be loaded, or cannot be adapted."""


class StoreError(EmttaError):
    """The store cannot be read or written."""


def unknown(what: str, value: object, allowed: "list[str] | tuple[str, ...]") -> UsageError:
    """The error for an unknown name: what it names, its value, the nearest valid name, and all valid names."""
    by_lower_case = {name.lower(): name for name in allowed}
    near = [by_lower_case[name] for name in get_close_matches(str(value).lower(), by_lower_case, 1, cutoff=0.7)]
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return UsageError(f"unknown {what} {str(value)!r}{hint}; choose from: {', '.join(sorted(allowed)) or '(none)'}")


def in_words(error: BaseException) -> str:
    """The first line of an error's message, without Python's exception names."""
    if isinstance(error, OSError) and error.strerror:
        file = f": {error.filename}" if error.filename is not None else ""
        return f"{error.strerror}{file}"
    text = _KIND.sub("", str(error).strip().partition("\n")[0].strip())[:_MAX_LENGTH]
    if isinstance(error, KeyError):
        return f"there is no {text}" if text else "something is missing"
    return text or next((words for kind, words in _SILENT.items() if isinstance(error, kind)), "no reason given")


_MAX_LENGTH = 300
"""The most characters kept of a library's message."""

_KIND = re.compile(r"^(?:[\w.]*(?:Error|Exception|Warning)\b[:(\s]*)+")
"""The name of a Python exception that libraries put before their message."""

_SILENT: dict[type[BaseException], str] = {
    MemoryError: "not enough memory",
    TimeoutError: "it took too long",
    RecursionError: "it is nested too deeply",
    NotImplementedError: "it is not supported",
    AssertionError: "an internal check failed",
    StopIteration: "the data ended too early",
    EOFError: "the data ended too early",
}
"""The message for an error without one."""
