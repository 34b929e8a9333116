"""The results of an adaptation. Fields are named like the store's columns, which are filled by name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from emtta_core.adaptation.flags import Flag, collapsed
from emtta_core.adaptation.methods import Objective
from emtta_core.adaptation.parts import LossFunction


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One state of an episode and the update made from it; see `emtta_core.adaptation.episode.Update`."""

    step: int  # number of updates that led to this state; 0 is the source model
    hypothesis: str | None = None  # the greedy one in this state; like the next two, None if it was not decoded
    entropy: float | None = None  # mean entropy along that hypothesis, nats per token
    tokens: int | None = None  # its length, including the end token
    loss: float | None = None  # of the update made from this state; like all below, None if none was made
    policy_loss: float | None = None  # the loss's policy-gradient part
    entropy_loss: float | None = None  # its entropy part
    candidate_entropy: float | None = None  # mean entropy over all tokens of all candidates, nats per token
    advantage_std: float | None = None  # standard deviation of the advantages of the candidates' first tokens, nats
    gradient_norm: float | None = None  # Euclidean norm of the loss's gradient
    candidate_tokens: float | None = None  # mean length of the candidates, including the end token


@dataclass(frozen=True, slots=True)
class AdaptationResult:
    """The result of one utterance.

    "Source" means the model that the utterance started from: in a stream, as the previous utterance left it.
    """

    utterance_id: str
    # After the last step: the greedy hypothesis, the best beam or the sample of minimum Bayes risk, as the method
    # decides; the source's, decided likewise, if the result is flagged "gated" or "reverted"; "" after an error.
    hypothesis: str
    source_hypothesis: str  # the source model's; "" if the waveform cannot be used or does not fit in memory
    entropy_before: float  # mean entropy along the source model's hypothesis, nats per token; NaN if there is none
    entropy_after: float  # the same along the adapted model's greedy hypothesis; NaN after an error
    # A record for each state, updates + 1 of them; empty if the waveform cannot be used or does not fit in memory, or
    # no records were requested. If the adaptation diverged, it shows where.
    trace: tuple[StepRecord, ...]
    seconds: float  # wall time of the utterance's batch, divided by the number of utterances in it
    updates: int = 0  # number of updates made
    tokens: int | None = None  # length of the hypothesis, including the end token; None after an error
    source_tokens: int | None = None  # likewise of the source model's hypothesis, see `entropy_before`
    greedy_tokens: int | None = None  # likewise of the greedy hypothesis, see `entropy_after`
    error: str | None = None  # why there is no hypothesis; None if there is one
    # "truncated" if the final hypothesis was cut at its limit, "collapsed" if it is empty or endless repetition;
    # "gated" if the utterance was not adapted to (`adapt_above`), "reverted" if its adaptation was undone (`revert`);
    # "reset" if a stream was reset to the source model before it.
    flags: tuple[Flag, ...] = ()


class Final(NamedTuple):
    """The hypothesis that an utterance ends with."""

    text: str
    tokens: int  # its length, including the end token
    ended: bool  # whether it ended with an end token


def has_worsened(trace: Sequence[StepRecord], text: str) -> bool:
    """Whether adapting left an utterance with a higher entropy, or a hypothesis `text` that is empty or a loop."""
    return len(trace) > 1 and (number(trace[-1].entropy) > number(trace[0].entropy) or collapsed(text))


def divergence(trace: Sequence[StepRecord], objective: LossFunction | str) -> str | None:
    """The error message of an episode whose numbers are not finite; None if they are."""
    for record in trace:
        for value in (record.entropy, record.loss, record.gradient_norm):
            if value is not None and not math.isfinite(value):
                if not isinstance(objective, Objective) and math.isfinite(number(record.entropy)):
                    return (
                        f"the objective {objective!r} returned the loss {record.loss} with a gradient of norm "
                        f"{record.gradient_norm} at step {record.step}; make sure that no logarithm, division or root "
                        "in it receives a zero, or lower the learning rate"
                    )
                if record.step == 0:  # no update was made yet
                    return "the model's output is not finite even before the first update; are its weights damaged?"
                return f"the adaptation diverged: at step {record.step} a number is not finite; lower the learning rate"
    return None


def number(value: float | None) -> float:
    """A number as a float, NaN if it is missing."""
    return math.nan if value is None else value
