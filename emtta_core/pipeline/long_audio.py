"""Long utterances: cut into windows, whose results are joined into one.

Each window is adapted to separately, starting from the source model, like an utterance of its own: its random numbers
derive from the utterance's id and the window's number. An utterance that fits is one window under its own id, so its
result is the same as without cutting.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

from emtta_core.adaptation import AdaptationResult, StepRecord
from emtta_core.adaptation.flags import Flag
from emtta_core.audio.waveform import SILENCE_PEAK, Waveform, windows_of
from emtta_core.store import PreparedRow

SILENT = "it is silent: not adapted to, and its transcript is empty"
"""Why a silent window of an utterance that has sound elsewhere has no hypothesis."""


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of an utterance that fits the model's input."""

    id: str  # its random numbers derive from it
    number: int  # from 1
    begin: int  # its first sample in the utterance
    waveform: Waveform  # its samples, `(N,)`
    silent: bool = False  # whether it is silent and skipped, as other windows of the utterance have sound


@dataclass(frozen=True, slots=True)
class WindowResult:
    """The outcome of a window."""

    window: Window  # the window
    language: str  # the language given to the model
    probability: float | None  # of that language if it was detected; None if it was given
    result: AdaptationResult | None  # the engine's result; None for a silent window


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an utterance."""

    row: PreparedRow  # the utterance
    result: AdaptationResult | str  # the joined result of its windows, or the reason it was not adapted to
    windows: tuple[WindowResult, ...] = ()  # its windows if it was cut or its language detected; otherwise empty
    position: int | None = None  # its position in its stream, from 0; None for an episode

    @property
    def is_error(self) -> bool:
        """Whether the utterance has no hypothesis."""
        return isinstance(self.result, str) or self.result.error is not None


def split(utterance_id: str, waveform: Waveform, longest: int, long_audio: Literal["refuse", "cut"]) -> list[Window]:
    """Return the windows of an utterance: one, unless it is to be cut and has more than `longest` samples."""
    if long_audio == "refuse" or len(waveform) <= longest or not _sounds(waveform):
        return [Window(utterance_id, 1, 0, waveform)]
    windows = []
    for number, span in enumerate(windows_of(waveform, longest), 1):
        piece = waveform[span]
        windows.append(Window(f"{utterance_id}\0{number}", number, span.start, piece, silent=not _sounds(piece)))
    return windows


def join(utterance_id: str, windows: Sequence[WindowResult]) -> AdaptationResult:
    """Join the results of an utterance's windows, given in order; silent windows add nothing.

    Texts are joined by a space. Entropies, in nats per token, are means over the tokens of all windows; token counts
    and seconds are sums. A window that diverged puts the utterance in error. In the trace, a window whose episode
    ended early stays in its last state; the figures of an update are means over the windows that made it, weighted by
    the tokens of their candidates, whose sum is `candidate_tokens`.
    """
    parts = [window.result for window in windows if window.result is not None]
    if len(windows) == 1:
        return parts[0]
    errors = [
        f"window {window.window.number} of {len(windows)}: {window.result.error}"
        for window in windows
        if window.result is not None and window.result.error is not None
    ]
    # A gap in the transcript would count as deletions, so one lost window puts the whole utterance in error.
    failed = bool(errors)
    text = _joined([part.hypothesis for part in parts])
    # An empty window among others is a pause, not a collapse.
    flagged: set[Flag] = {flag for part in parts for flag in part.flags if flag != "collapsed" or part.hypothesis}
    if not text:
        flagged.add("collapsed")
    return AdaptationResult(
        utterance_id=utterance_id,
        hypothesis="" if failed else text or "",
        source_hypothesis=_joined([part.source_hypothesis for part in parts]) or "",
        entropy_before=_number(_mean([(part.entropy_before, part.source_tokens) for part in parts])),
        entropy_after=_number(_mean([(part.entropy_after, part.greedy_tokens) for part in parts])),
        trace=_trace([part.trace for part in parts]),
        seconds=sum(part.seconds for part in parts),
        updates=max(part.updates for part in parts),
        tokens=None if failed else sum(part.tokens or 0 for part in parts),
        source_tokens=None if failed else sum(part.source_tokens or 0 for part in parts),
        greedy_tokens=None if failed else sum(part.greedy_tokens or 0 for part in parts),
        error="; ".join(errors) or None,
        flags=() if failed else tuple(flag for flag in get_args(Flag) if flag in flagged),
    )


def _sounds(waveform: Waveform) -> bool:
    return bool(np.abs(waveform).max() >= SILENCE_PEAK)


def _joined(texts: Sequence[str | None]) -> str | None:
    known = [text for text in texts if text is not None]
    return " ".join(text for text in known if text) if len(known) == len(texts) else None


def _trace(traces: Sequence[Sequence[StepRecord]]) -> tuple[StepRecord, ...]:
    if not all(traces):
        return ()
    return tuple(_state(step, traces) for step in range(max(len(trace) for trace in traces)))


_STATE_FIELDS = ("step", "hypothesis", "entropy", "tokens")
_UPDATE_FIELDS = tuple(field.name for field in fields(StepRecord) if field.name not in _STATE_FIELDS)


def _state(step: int, traces: Sequence[Sequence[StepRecord]]) -> StepRecord:
    records = [trace[min(step, len(trace) - 1)] for trace in traces]
    updated = [record for record in records if record.step == step and record.loss is not None]

    known = all(record.tokens is not None for record in records)
    numbers = {
        name: _mean([(getattr(record, name), record.candidate_tokens) for record in updated]) for name in _UPDATE_FIELDS
    }
    numbers["candidate_tokens"] = sum(record.candidate_tokens or 0 for record in updated) if updated else None
    return StepRecord(
        step=step,
        hypothesis=_joined([record.hypothesis for record in records]),
        entropy=_mean([(record.entropy, record.tokens) for record in records]) if known else None,
        tokens=sum(record.tokens or 0 for record in records) if known else None,
        **numbers,
    )


def _mean(pairs: Sequence[tuple[float | None, float | None]]) -> float | None:
    # The weighted mean of numbers; None if any is unknown or there are none.
    known = [(value, weight) for value, weight in pairs if value is not None and weight]
    if not known or len(known) < len(pairs):
        return None
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
