"""What an adaptation leaves behind."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One state of an episode, and the update made from it.

    Attributes:
        step: how many updates led to this state; 0 is the source model.
        text: the greedy hypothesis in this state; None where it was not decoded, as the next two.
        entropy: mean entropy along that hypothesis, nats per token.
        tokens: its length, the end token counted.
        loss: of the update made from this state; None where none was, as all below.
        policy_loss: the loss's policy-gradient part.
        entropy_loss: its entropy part.
        candidate_entropy: mean entropy over all tokens of all candidates, nats per token.
        advantage_std: standard deviation of the advantages of the candidates' first tokens, nats.
        gradient_norm: Euclidean norm of the loss's gradient.
        candidate_tokens: mean length of the candidates, the end token counted.
    """

    step: int
    text: str | None = None
    entropy: float | None = None
    tokens: int | None = None
    loss: float | None = None
    policy_loss: float | None = None
    entropy_loss: float | None = None
    candidate_entropy: float | None = None
    advantage_std: float | None = None
    gradient_norm: float | None = None
    candidate_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class AdaptationResult:
    """What became of one utterance.

    Attributes:
        utterance_id: which.
        text: the hypothesis after the last step, the greedy one or that of minimum Bayes risk, as the method decides;
            "" in case of an error.
        source_text: that of the source model; "" if the waveform cannot be used, or memory does not hold it.
        entropy_before: mean entropy along the source model's hypothesis, nats per token; NaN where there is none.
        entropy_after: the same along the adapted model's greedy hypothesis; NaN in case of an error.
        trace: a record for each state, updates + 1 of them; none if the waveform cannot be used, memory does not hold
            it, or none were asked for. Of an adaptation that diverged it shows where.
        seconds: wall time of the utterance's batch, divided by the utterances in it.
        updates: how many were made.
        tokens: length of the hypothesis, the end token counted; None in case of an error.
        source_tokens: likewise of the source model's hypothesis, along which `entropy_before` is.
        greedy_tokens: likewise of the adapted model's greedy hypothesis, along which `entropy_after` is.
        error: why there is no hypothesis; None if there is.
        flags: "truncated" if the final hypothesis was cut at its limit, "collapsed" if it is empty or endless
            repetition at an entropy near zero.
    """

    utterance_id: str
    text: str
    source_text: str
    entropy_before: float
    entropy_after: float
    trace: tuple[StepRecord, ...]
    seconds: float
    updates: int = 0
    tokens: int | None = None
    source_tokens: int | None = None
    greedy_tokens: int | None = None
    error: str | None = None
    flags: tuple[str, ...] = ()
