"""The methods, by name. Listing them needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from emtta_core.errors import unknown

if TYPE_CHECKING:
    from emtta_core.adaptation.objective import Estimator

Candidates = Literal["none", "greedy", "sampled", "beam"]
"""Where a method's candidates come from."""

OPTIONS = ("steps", "candidates", "learning_rate", "seed")
"""The options of an `Adapter` that can change a result."""


@dataclass(frozen=True, slots=True)
class Method:
    """How an utterance is adapted to.

    Attributes:
        name: what users call it.
        candidates: where its candidates come from; "none" leaves the model as it is.
        estimator: how a candidate's cost is estimated.
        policy: whether the loss has the policy-gradient part, L_PG.
        entropy: whether the loss has the entropy part, L_ENT.
        summary: one line for lists.
    """

    name: str
    candidates: Candidates
    estimator: Estimator
    policy: bool
    entropy: bool
    summary: str

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the `OPTIONS` that can change this method's result."""
        used = {
            "none": (),
            "greedy": ("steps", "learning_rate"),
            "beam": ("steps", "candidates", "learning_rate"),
            "sampled": OPTIONS,
        }
        return used[self.candidates]


METHODS: dict[str, Method] = {
    entry.name: entry
    for entry in (
        Method("source", "none", "token", False, False, "the model as it is"),
        Method("greedy-em", "greedy", "token", False, True, "entropy along the greedy hypothesis (teacher forcing)"),
        Method("em-seq", "sampled", "sequence", True, False, "policy gradient on the sequence-level entropy"),
        Method("em-tok", "sampled", "token", True, True, "policy gradient and entropy, token level, sampled"),
        Method("em-tok-b", "beam", "token", True, True, "policy gradient and entropy, token level, on the top beams"),
        Method("em-tok-policy", "sampled", "token", True, False, "ablation of em-tok: the policy gradient alone"),
        Method("em-tok-entropy", "sampled", "token", False, True, "ablation of em-tok: the entropy alone"),
    )
}
"""Every method there is, in the order in which tables show them."""


def method(name: str) -> Method:
    """Return the method of that name.

    Raises:
        UsageError: if there is none; it lists those there are.
    """
    if name not in METHODS:
        raise unknown("method", name, list(METHODS))
    return METHODS[name]
