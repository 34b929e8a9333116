"""What an adaptation leaves behind. Fields have the names of the store's columns, which are filled by name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from emtta_core.adaptation.flags import Flag, collapsed
from emtta_core.adaptation.methods import Objective
from emtta_core.adaptation.parts import LossFunction


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One state of an episode, and the update made from it; `emtta_core.adaptation.episode.Update` has its numbers."""

    step: int  # how many updates led to this state; 0 is the source model
    hypothesis: str | None = None  # the greedy one in this state; None where it was not decoded, as the next two
    entropy: float | None = None  # mean entropy along that hypothesis, nats per token
    tokens: int | None = None  # its length, the end token counted
    loss: float | None = None  # of the update made from this state; None where none was, as all below
    policy_loss: float | None = None  # the loss's policy-gradient part
    entropy_loss: float | None = None  # its entropy part
    candidate_entropy: float | None = None  # mean entropy over all tokens of all candidates, nats per token
    advantage_std: float | None = None  # standard deviation of the advantages of the candidates' first tokens, nats
    gradient_norm: float | None = None  # Euclidean norm of the loss's gradient
    candidate_tokens: float | None = None  # mean length of the candidates, the end token counted


@dataclass(frozen=True, slots=True)
class AdaptationResult:
    """What became of one utterance."""

    utterance_id: str
    # "The source" is in all of this the model that the utterance was met with: in a stream, as the one before left it.
    # After the last step: the greedy hypothesis, the best beam or the sample of minimum Bayes risk, as the method
    # decides; the source's, decided likewise, if the result is flagged "gated" or "reverted"; "" in case of an error.
    hypothesis: str
    source_hypothesis: str  # that of the source model; "" if the waveform cannot be used, or memory does not hold it
    entropy_before: float  # mean entropy along the source model's hypothesis, nats per token; NaN where there is none
    entropy_after: float  # the same along the adapted model's greedy hypothesis; NaN in case of an error
    # A record for each state, updates + 1 of them; none if the waveform cannot be used, memory does not hold it, or
    # none were asked for. Of an adaptation that diverged it shows where.
    trace: tuple[StepRecord, ...]
    seconds: float  # wall time of the utterance's batch, divided by the utterances in it
    updates: int = 0  # how many were made
    tokens: int | None = None  # length of the hypothesis, the end token counted; None in case of an error
    source_tokens: int | None = None  # likewise of the source model's hypothesis, along which `entropy_before` is
    greedy_tokens: int | None = None  # likewise of the greedy hypothesis, along which `entropy_after` is
    error: str | None = None  # why there is no hypothesis; None if there is
    # "truncated" if the final hypothesis was cut at its limit, "collapsed" if it is empty or endless repetition;
    # "gated" if the utterance was not adapted to (`adapt_above`), "reverted" if its adaptation was given up (`revert`);
    # "reset" if a stream went back to the source model before it.
    flags: tuple[Flag, ...] = ()


class Final(NamedTuple):
    """The hypothesis that an utterance ends with."""

    text: str
    tokens: int  # its length, the end token counted
    ended: bool  # whether it ended by itself


def has_worsened(trace: Sequence[StepRecord], text: str) -> bool:
    """Whether adapting left an utterance with a higher entropy, or a hypothesis `text` that is empty or a loop."""
    return len(trace) > 1 and (number(trace[-1].entropy) > number(trace[0].entropy) or collapsed(text))


def divergence(trace: Sequence[StepRecord], objective: LossFunction | str) -> str | None:
    """What to report of an episode whose numbers are no longer finite; None where they are."""
    for record in trace:
        for value in (record.entropy, record.loss, record.gradient_norm):
            if value is not None and not math.isfinite(value):
                if not isinstance(objective, Objective) and math.isfinite(number(record.entropy)):
                    return (
                        f"the objective {objective!r} gave the loss {record.loss} with a gradient of norm "
                        f"{record.gradient_norm} at step {record.step}; see that no logarithm, division or root in it "
                        "meets a zero, or lower the learning rate"
                    )
                if record.step == 0:  # no update was made yet
                    return (
                        "the model itself gives numbers that are not finite, before any update; are its weights broken?"
                    )
                return f"the adaptation diverged: at step {record.step} a number is not finite; lower the learning rate"
    return None


def number(value: float | None) -> float:
    """A number that may be missing, as a float: NaN where it is."""
    return math.nan if value is None else value
