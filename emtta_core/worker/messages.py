"""What a worker process and its owner say to each other: a line of JSON each.

The owner sends jobs, and `STOP`; the worker answers each job with the events of its evaluation and, last, with a report
or a failure. A line that is none of these means that the worker can no longer be trusted.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from emtta_core.errors import EmttaError
from emtta_core.pipeline.attempt import CellReport
from emtta_core.pipeline.progress import AttemptBegun, CellFinished, Event, UtterancesDone

STOP = "stop"
"""The line by which the owner asks the worker to end its cell after the shard in hand."""


@dataclass(frozen=True, slots=True)
class JobFailed:
    """A job ended with an error, which the worker has recorded.

    Attributes:
        error: what it was, in a line.
        transient: whether another attempt may succeed.
        interrupted: whether it ended since the owner asked for it.
        device_lost: whether the process can do no other job, since its device is lost to it.
    """

    error: str
    transient: bool
    interrupted: bool
    device_lost: bool = False


Answer = AttemptBegun | UtterancesDone | CellFinished | CellReport | JobFailed

_KINDS: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind) for kind in (AttemptBegun, UtterancesDone, CellFinished, CellReport, JobFailed)
}


class GarbageError(EmttaError):
    """A worker said something that is no answer."""


def to_line(answer: Event | CellReport | JobFailed) -> str:
    """Return an answer as a line, without its end."""
    return json.dumps({"kind": type(answer).__name__, "answer": asdict(answer)})


def from_line(line: str) -> Answer:
    """Return the answer in a line.

    Raises:
        GarbageError: it is none.
    """
    try:
        message = json.loads(line)
        answer: Answer = _KINDS[message["kind"]].validate_python(message["answer"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise GarbageError(f"the worker process said {line[:80]!r}, which is no answer") from error
    return answer
