"""The input of an objective: the candidates of B utterances, scored by the model being adapted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from emtta_core.adaptation.methods import OBJECTIVES, Objective
from emtta_core.adaptation.objective import IMPOSSIBLE, Loss
from emtta_core.adaptation.parts import LossFunction, calling, load, refuse_result


@dataclass(frozen=True, slots=True, eq=False)
class ScoredCandidates:
    """G candidates of each of B utterances, at most T tokens long.

    Each utterance's loss must depend only on its own row, as one elementwise optimizer updates all rows at once.
    """

    tokens: Tensor  # `(B, G, T)`
    mask: Tensor  # `(B, G, T)`, true up to and including the last token; masked values below are 0
    ended: Tensor  # `(B, G)`, true if a candidate ended with an end token, false if it was cut at its cap
    log_probs: Tensor  # `(B, G, T)`, of each token, nats; differentiable once
    entropies: Tensor  # `(B, G, T)`, of the distribution each token was chosen from, nats; differentiable once
    ids: Sequence[str]  # of the B utterances
    step: int  # the number of updates made
    # `(M, V)`, the policy's logits in each of the M contexts of all candidates; candidates with a common prefix share
    # its contexts. -inf where a token is suppressed.
    contexts: Tensor
    owner: Tensor  # `(B, G, T)`, the index of the context each token was chosen in; arbitrary where masked
    read: Callable[[Tensor, Tensor], list[str]]  # the texts of sequences `(K, T)` under a mask `(K, T)`

    @property
    def logits(self) -> Tensor:
        """`(B, G, T, V)`, those that each token was chosen from, with a gradient; computed on each access.

        A suppressed token has a finite logit so low that its probability is exactly 0, in products and gradients too.
        """
        chosen = self.contexts.clamp(min=IMPOSSIBLE).index_select(0, self.owner[self.mask])
        empty = chosen.new_zeros((*self.mask.shape, chosen.shape[-1]))
        return empty.index_put((self.mask,), chosen)

    def each(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply a function of logits, `(M, V)` to `(M,)`, and return its value at each token, `(B, G, T)`.

        It is computed once for all candidates that share a prefix, whereas `logits` has a copy for each.
        """
        values = function(self.contexts.clamp(min=IMPOSSIBLE))
        return values.new_zeros(self.mask.shape).masked_scatter(self.mask, values[self.owner[self.mask]])

    def first(self, count: int = 1) -> "ScoredCandidates":
        """Only the first candidates of each utterance, which for beams are the best."""
        parts = ("tokens", "mask", "ended", "log_probs", "entropies", "owner")
        return replace(self, **{name: getattr(self, name)[:, :count] for name in parts})

    def texts(self) -> list[list[str]]:
        """The candidates' texts: G of each of the B utterances."""
        count = self.tokens.shape[1]
        flat = self.read(self.tokens.flatten(0, 1), self.mask.flatten(0, 1))
        return [flat[index : index + count] for index in range(0, len(flat), count)]


def objective_loss(objective: LossFunction | str, candidates: ScoredCandidates) -> Loss:
    """Compute an objective's loss of candidates.

    Raises:
        UsageError: there is no such objective.
        PluginError: it failed, or did not return a loss for each utterance with a gradient.
    """
    if isinstance(objective, Objective):
        return objective(candidates)
    name = objective if isinstance(objective, str) else type(objective).__name__
    with calling("objective", name):
        returned = _loaded(objective)(candidates)
    loss = returned if isinstance(returned, Loss) else Loss(returned)
    expected = f"a tensor of shape ({len(candidates.ids)},), the loss of each utterance"
    if not isinstance(loss.total, Tensor):
        raise refuse_result("objective", name, f"{type(returned).__name__} {returned!r}", expected)
    for part in (loss.total, loss.policy, loss.entropy):
        if part is not None and (part.shape != (len(candidates.ids),) or not part.is_floating_point()):
            shape = f"a tensor of {part.dtype} of shape {tuple(part.shape)}"
            raise refuse_result("objective", name, shape, expected)
    if loss.advantage is not None and loss.advantage.shape != candidates.mask.shape:
        shape = f"advantages of shape {tuple(loss.advantage.shape)}"
        raise refuse_result("objective", name, shape, f"shape {tuple(candidates.mask.shape)}")
    if torch.is_grad_enabled() and not loss.total.requires_grad:
        expected = "one computed from `logits`, `log_probs` or `entropies`, without detach() or no_grad()"
        raise refuse_result("objective", name, "a loss without a gradient", expected)
    return loss


def sharpness_of(objective: LossFunction | str) -> float:
    """The radius of an objective's sharpness-aware updates; 0 for ordinary updates.

    Raises:
        PluginError: it is not a finite number of at least 0.
    """
    radius = 0.0 if isinstance(objective, Objective) else getattr(_loaded(objective), "sharpness", 0.0)
    if isinstance(radius, bool) or not isinstance(radius, int | float) or not 0 <= radius < float("inf"):
        name = objective if isinstance(objective, str) else type(objective).__name__
        raise refuse_result("objective", name, f"sharpness = {radius!r}", "a finite number of at least 0")
    return float(radius)


def _loaded(objective: LossFunction | str) -> Any:
    return load("objective", OBJECTIVES.get(objective, objective)) if isinstance(objective, str) else objective
