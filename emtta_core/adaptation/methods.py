"""The methods by name, and the parts they are composed of. Listing them does not need torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Literal, get_args

from emtta_core.adaptation.options import USES, Use
from emtta_core.adaptation.parts import Kind, load
from emtta_core.errors import UsageError, unknown
from emtta_core.names import METHODS as INSTALLED
from emtta_core.plugins import fingerprint, is_plugin

if TYPE_CHECKING:
    from emtta_core.adaptation.objective import Loss
    from emtta_core.adaptation.parts import LossFunction
    from emtta_core.adaptation.scored import ScoredCandidates

Candidates = Literal["none", "greedy", "sample", "beam"]
"""Where a method's candidates come from."""

Estimator = Literal["token", "sequence"]
"""How the sequence's entropy is estimated from one candidate."""

Credit = Literal["trajectory", "to-go"]
"""Which part of its candidate's cost a token is charged with: all of it, or only what the token can still change."""

Baseline = Literal["leave-one-out", "none"]
"""What is subtracted from a cost: the mean of the other candidates' costs, or nothing."""

Normalization = Literal["token", "sequence"]
"""What a loss is averaged over: all tokens of all candidates, or each candidate's tokens and then the candidates."""

Parameters = Literal["layernorm", "encoder-layernorm", "decoder-layernorm"]
"""Whose LayerNorms are adapted: those of both halves of the model, or of one."""

Decision = Literal["greedy", "beam", "mbr"]
"""How the final hypothesis is found: greedily, as the best beam, or as the sample with the least expected risk."""


OBJECTIVES = {
    name: f"emtta_core.adaptation.baselines:{name.upper().replace('-', '_')}"
    for name in ("sgem", "suta", "cea", "sar", "pseudo-label", "vote-reward", "risk-reward")
}
"""The objectives of other papers, and where each is implemented."""


@dataclass(frozen=True, slots=True)
class Objective:
    """The paper's loss of an utterance's candidates; `emtta_core.adaptation.objective` computes it."""

    estimator: Estimator = "token"  # how a candidate's cost is estimated
    policy: bool = True  # whether the loss has the policy-gradient part, L_PG
    entropy: bool = True  # whether the loss has the entropy part, L_ENT
    credit: Credit = "trajectory"  # what part of the cost each token is charged with
    baseline: Baseline = "leave-one-out"  # what is subtracted from the cost
    normalization: Normalization = "token"  # what the loss is averaged over

    def __call__(self, candidates: ScoredCandidates) -> Loss:
        """The loss, as a plug-in's objective computes it (`emtta_core.adaptation.parts.LossFunction`)."""
        from emtta_core.adaptation.objective import loss_of  # imports torch

        return loss_of(candidates.entropies, candidates.log_probs, candidates.mask, self)


@dataclass(frozen=True, slots=True)
class Method:
    """How the model is adapted to an utterance and transcribes it.

    Each part is a name, or a plug-in given as `package.module:object` (`emtta_core.adaptation.parts`).
    """

    name: str  # as users refer to it
    candidates: str  # where the candidates of an update come from; "none" leaves the model unchanged
    # The loss of an update: the paper's, one of `OBJECTIVES`, or in Python any loss function.
    objective: Objective | LossFunction | str = Objective()
    parameters: str = "layernorm"  # what an update changes
    decision: str = "greedy"  # how the hypothesis is found after the last update
    summary: str = ""  # one line for lists
    adapter: str = ""  # a plug-in that replaces all the parts

    @property
    def adapts(self) -> bool:
        """Whether it changes the model."""
        return self.candidates != "none" or bool(self.adapter)

    @property
    def plugins(self) -> dict[Kind, str]:
        """Those of its parts that are plug-ins and are used."""
        parts: dict[Kind, object] = {"decision": self.decision, "adapter": self.adapter}
        if self.candidates != "none":
            parts |= {"candidates": self.candidates, "objective": self.objective, "parameters": self.parameters}
        return {kind: str(part) for kind, part in parts.items() if is_plugin(part)}

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the `Options` that can change this method's result; for a plug-in, all that it may use."""
        foreign = is_plugin(self.candidates) or is_plugin(self.decision) or bool(self.adapter)
        samples = self.candidates == "sample" or self.decision == "mbr" or foreign
        uses = {
            Use.UPDATE: self.adapts,
            Use.CANDIDATES: samples or self.candidates == "beam",
            Use.SAMPLE: samples,
            Use.SEARCH: self.decision == "beam" or is_plugin(self.decision) or bool(self.adapter),
        }
        return tuple(name for name, use in USES.items() if uses[use])

    def identity(self) -> dict[str, object]:
        """Everything that can change a result, as plain values; the name is included if it seeds random numbers.

        Raises:
            UsageError: a plug-in is not installed.
        """
        values = asdict(self) | {kind: fingerprint(path) for kind, path in self.plugins.items()}
        del values["summary"]
        if self.adapter:
            return {"name": self.name, "adapter": values["adapter"]}
        del values["adapter"]
        if "seed" not in self.options:
            del values["name"]
        return values if self.candidates != "none" else values | {"objective": None, "parameters": None}

    def check(self) -> None:
        """Import its plug-ins.

        Raises:
            UsageError: for an unknown part, or a plug-in that is not a valid part.
        """
        for name, value, allowed in (
            ("candidates", self.candidates, get_args(Candidates)),
            ("parameters", self.parameters, get_args(Parameters)),
            ("decision", self.decision, get_args(Decision)),
            ("objective", self.objective, tuple(OBJECTIVES)),
        ):
            if isinstance(value, str) and value not in allowed and not is_plugin(value):
                raise unknown(name, value, allowed)
        for kind, path in self.plugins.items():
            load(kind, path)


METHODS: dict[str, Method] = {
    entry.name: entry
    for entry in (
        Method("source", "none", summary="the unadapted model"),
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
            summary="ablation of em-tok: only the policy gradient",
        ),
        Method("em-tok-entropy", "sample", Objective(policy=False), summary="ablation of em-tok: only the entropy"),
        Method("mbr", "none", decision="mbr", summary="no adaptation: minimum Bayes risk over G samples of the source"),
        Method("em-tok-b+beam", "beam", decision="beam", summary="em-tok-b, then the best beam"),
        Method("em-tok-b+mbr", "beam", decision="mbr", summary="em-tok-b, then minimum Bayes risk over G samples"),
        Method("sgem", "beam", "sgem", summary="generalized entropy of the best beam, with negative sampling"),
        Method("suta", "greedy", "suta", summary="entropy and class confusion along the greedy hypothesis"),
        Method("cea", "greedy", "cea", summary="like suta, with entropies weighted by confidence"),
        Method("sar", "greedy", "sar", summary="entropy of reliable tokens, sharpness-aware"),
        Method("pseudo-label", "greedy", "pseudo-label", summary="cross entropy of the greedy hypothesis"),
        Method("vote-reward", "sample", "vote-reward", summary="policy gradient, rewarding the most frequent sample"),
        Method("risk-reward", "sample", "risk-reward", summary="policy gradient, rewarding agreement with the others"),
    )
}
"""Every built-in method."""


def method(name: str) -> Method:
    """Find a method by name, built-in or from an installed package.

    Raises:
        UsageError: if there is none, listing those available; or if an installed one cannot be imported.
    """
    if name in METHODS:
        return METHODS[name]
    installed = {point.name: point for point in entry_points(group=INSTALLED)}
    if name not in installed:
        raise unknown("method", name, [*METHODS, *installed])
    return _load_from(installed[name])


def _load_from(point: EntryPoint) -> Method:
    # The method that an installed package provides: composed of parts, or with its own loop.
    found = load("method", point.value)
    if isinstance(found, Method):
        return replace(found, name=point.name)
    if callable(found):
        return Method(point.name, "none", summary=f"of the package {point.module}", adapter=point.value)
    raise UsageError(
        f"the entry point {point.name!r} of {INSTALLED} is {point.value!r}, a {type(found).__name__}; it must name "
        "an emtta_core.adaptation.Method or a factory of adapters (docs/extending.md)"
    )
