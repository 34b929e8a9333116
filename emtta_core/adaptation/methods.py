"""The methods, by name, and what they are composed of. Listing them needs no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from emtta_core.adaptation.options import USES, Use
from emtta_core.errors import unknown

Candidates = Literal["none", "greedy", "sample", "beam"]
"""Where a method's candidates come from."""

Estimator = Literal["token", "sequence"]
"""How the entropy of the sequence is estimated from one candidate."""

Credit = Literal["trajectory", "to-go"]
"""Which part of its candidate's cost a token is charged with: all of it, or what follows from the token alone."""

Baseline = Literal["leave-one-out", "none"]
"""What is subtracted from a cost: the mean of the other candidates' costs, or nothing."""

Normalization = Literal["token", "sequence"]
"""What a loss is a mean over: all tokens of all candidates, or each candidate's own and then the candidates."""

Parameters = Literal["layernorm", "encoder-layernorm", "decoder-layernorm"]
"""Whose LayerNorms are adapted: of both halves of the model, or of one."""

Decision = Literal["greedy", "beam", "mbr"]
"""How the hypothesis is found in the end: greedily, as the best beam, or as the sample of the least expected risk."""


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of an utterance's candidates; `emtta_core.adaptation.objective` computes it."""

    estimator: Estimator = "token"  # how a candidate's cost is estimated
    policy: bool = True  # whether the loss has the policy-gradient part, L_PG
    entropy: bool = True  # whether the loss has the entropy part, L_ENT
    credit: Credit = "trajectory"  # what part of the cost each token is charged with
    baseline: Baseline = "leave-one-out"  # what is subtracted from the cost
    normalization: Normalization = "token"  # what the loss is a mean over


@dataclass(frozen=True, slots=True)
class Method:
    """How an utterance is adapted to, and transcribed."""

    name: str  # what users call it
    candidates: Candidates  # where the candidates of an update come from; "none" leaves the model as it is
    objective: Objective = Objective()  # the loss of an update
    parameters: Parameters = "layernorm"  # what an update changes
    decision: Decision = "greedy"  # how the hypothesis is found after the last update
    summary: str = ""  # one line for lists

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the `Options` that can change this method's result."""
        samples = self.candidates == "sample" or self.decision == "mbr"
        uses = {
            Use.UPDATE: self.candidates != "none",
            Use.CANDIDATES: samples or self.candidates == "beam",
            Use.SAMPLE: samples,
            Use.SEARCH: self.decision == "beam",
        }
        return tuple(name for name, use in USES.items() if uses[use])

    def identity(self) -> dict[str, object]:
        """All that can change a result, as plain values; the name can, as sampled numbers are drawn by it."""
        values = asdict(self)
        del values["summary"]
        return values if self.candidates != "none" else values | {"objective": None, "parameters": None}


METHODS: dict[str, Method] = {
    entry.name: entry
    for entry in (
        Method("source", "none", summary="the model as it is"),
        Method("source-beam", "none", decision="beam", summary="no adaptation: the best beam of the source"),
        Method(
            "greedy-em",
            "greedy",
            Objective(policy=False),
            summary="entropy along the greedy hypothesis (teacher forcing)",
        ),
        Method(
            "em-seq",
            "sample",
            Objective("sequence", entropy=False),
            summary="policy gradient on the sequence-level entropy",
        ),
        Method("em-tok", "sample", summary="policy gradient and entropy, token level, sampled"),
        Method("em-tok-b", "beam", summary="policy gradient and entropy, token level, on the top beams"),
        Method(
            "em-tok-policy",
            "sample",
            Objective(entropy=False),
            summary="ablation of em-tok: the policy gradient alone",
        ),
        Method("em-tok-entropy", "sample", Objective(policy=False), summary="ablation of em-tok: the entropy alone"),
        Method("mbr", "none", decision="mbr", summary="no adaptation: minimum Bayes risk over G samples of the source"),
        Method("em-tok-b+beam", "beam", decision="beam", summary="em-tok-b, then the best beam"),
        Method("em-tok-b+mbr", "beam", decision="mbr", summary="em-tok-b, then minimum Bayes risk over G samples"),
    )
}
"""Every method that has a name of its own."""


def method(name: str) -> Method:
    """Find a method by its name.

    Raises:
        UsageError: if there is none; it lists those there are.
    """
    if name not in METHODS:
        raise unknown("method", name, list(METHODS))
    return METHODS[name]
