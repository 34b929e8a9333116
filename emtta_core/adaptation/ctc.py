"""CTC models: which methods adapt them, and SUTA as published for them.

A CTC model does not choose its sequence token by token: each frame has a distribution over classes, one of which is the
blank, and the greedy hypothesis is the most probable class of each frame, with repetitions and blanks removed. A frame
takes the place of a token here: entropies are in nats per frame, and lengths in frames.
"""

from dataclasses import dataclass

from torch import Tensor

from emtta_core.adaptation.baselines import EntropyAndConfusion
from emtta_core.adaptation.methods import Method, Objective
from emtta_core.adaptation.parts import LossFunction
from emtta_core.adaptation.scored import ScoredCandidates
from emtta_core.errors import UsageError
from emtta_core.model.transformers_model import TransformersModel
from emtta_core.plugins import is_plugin


@dataclass(frozen=True, slots=True)
class FrameEntropyAndConfusion(EntropyAndConfusion):
    """SUTA on frames (Lin et al., "Listen, Adapt, Better WER", Interspeech 2022, arXiv:2203.14222).

    0.3 times the mean entropy of the frames whose most probable class is not the blank, plus 0.7 times the minimum
    class confusion of all frames, each weighted by 1 + exp(-H), at temperature 2.5. It adapts the LayerNorms and the
    feature extractor with its projection, as in the authors' code
    (github.com/DanielLin94144/Test-time-adaptation-ASR-SUTA).
    Here: an utterance whose frames are all blank has no entropy part, which is NaN in their code.
    """

    blank: int = 0

    def __call__(self, candidates: ScoredCandidates) -> Tensor:
        """The loss of each utterance, `(B,)`."""
        warm = (candidates.logits / self.temperature).log_softmax(-1)
        probs = warm.exp()
        entropy = -(probs * warm).sum(-1)
        spoken = candidates.mask & (candidates.tokens != self.blank)
        mean = entropy.masked_fill(~spoken, 0.0).sum((1, 2)) / spoken.sum((1, 2)).clamp(min=1)
        return self.weight * mean + (1 - self.weight) * self._confusion(probs, entropy, candidates.mask)


def objective_of(method: Method, model: TransformersModel) -> LossFunction | str:
    """The objective of a method on a model: for SUTA on a CTC model, the published one."""
    if model.layout == "ctc" and method.objective == "suta":
        return FrameEntropyAndConfusion(blank=model.ends[0])
    return method.objective


def check(name: str, method: Method) -> None:
    """Refuse a method that needs sequences chosen token by token; `name` is that of a CTC model.

    Raises:
        UsageError: lists what is possible.
    """
    if method.adapter:
        return
    objective = method.objective
    if isinstance(objective, Objective):
        per_frame = not objective.policy and objective.estimator == "token"
    else:
        per_frame = objective == "suta" or not isinstance(objective, str) or is_plugin(objective)
    possible = method.decision == "greedy" and (not method.adapts or (method.candidates == "greedy" and per_frame))
    if not possible:
        raise UsageError(
            f"{name!r} is a CTC model, which does not choose sequences token by token as the method "
            f"{method.name!r} needs; possible are source, greedy-em, suta, and methods with candidates = "
            "'greedy', decision = 'greedy' and as the objective the entropy (policy = false) or a plug-in"
        )
