"""What an adaptation leaves behind. Fields have the names of the store's columns, which are filled by name."""

from dataclasses import dataclass

from emtta_core.adaptation.flags import Flag


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
    # "gated" if the utterance was not adapted to (`adapt_above`), "reverted" if its adaptation was given up (`revert`).
    flags: tuple[Flag, ...] = ()
