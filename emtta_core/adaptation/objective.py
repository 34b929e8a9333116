"""The objective, equation by equation: token entropies and log-probabilities, and the two losses built from them."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, get_args, get_type_hints

import torch
from torch import Tensor

from emtta_core.adaptation.methods import Baseline, Credit, Estimator, Normalization, Objective
from emtta_core.errors import unknown

IMPOSSIBLE = -1.0e4
"""Stands for log 0: its exponential is 0 in every precision."""


class TokenStatistics(NamedTuple):
    """The entropies of M distributions and the log-probabilities of K tokens."""

    entropy: Tensor  # `(M,)`, nats
    log_prob: Tensor  # `(K,)`


def token_statistics(logits: Tensor, tokens: Tensor, rows: Tensor | None = None) -> TokenStatistics:
    """Compute the entropy of each distribution, and the log-probability of each token.

    Both can be differentiated once.

    Args:
        logits: `(M, V)`, -inf where a token is impossible.
        tokens: `(K,)`.
        rows: `(K,)`, the distribution each token was chosen from; None: token k from distribution k.
    """
    if rows is None:
        rows = torch.arange(len(tokens), device=tokens.device)
    apply: Callable[..., tuple[Tensor, Tensor]] = _Statistics.apply
    return TokenStatistics(*apply(logits, tokens, rows))


class _Statistics(torch.autograd.Function):
    """∂H/∂z_v = -p_v (log p_v + H) and ∂log p_y/∂z_v = [v = y] - p_v."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        # Not log_probs.exp(), here and below: exp takes five times as long when its result is subnormal.
        log_probs, probs = logits.log_softmax(-1), logits.softmax(-1)
        # An impossible token has probability 0 and adds nothing; -inf would make it NaN.
        log_probs = log_probs.clamp_(min=IMPOSSIBLE)
        log_prob = log_probs[rows, tokens]
        entropy = -probs.mul_(log_probs).sum(
            -1
        )  # in place: a separate product would be one more tensor as large as the logits
        ctx.save_for_backward(log_probs, entropy, tokens, rows)
        return entropy, log_prob

    @staticmethod
    def backward(ctx: Any, entropy_gradient: Tensor, log_prob_gradient: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("token_statistics can be differentiated once only")
        log_probs, entropy, tokens, rows = ctx.saved_tensors
        weight = torch.zeros_like(entropy).index_add_(0, rows, log_prob_gradient)
        slope = -entropy_gradient.unsqueeze(1)
        gradient = torch.addcmul(-(weight + entropy_gradient * entropy).unsqueeze(1), log_probs, slope)
        gradient *= log_probs.softmax(-1)
        gradient.view(-1).index_add_(0, rows * log_probs.shape[1] + tokens, log_prob_gradient)
        return gradient, None, None


Mean = Callable[[Tensor, Tensor], Tensor]
"""A mean `(B,)` of values `(B, G, T)` over a mask `(B, G, T)`; values are zero where masked."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of each utterance, `(B,)` each."""

    total: Tensor  # what is minimised: the sum of the requested parts
    # L_PG, zero if not requested; this and the next two are None for a loss that has no such part.
    policy: Tensor | None = None
    entropy: Tensor | None = None  # L_ENT, zero if not requested, or with the sequence estimator
    # `(B, G, T)`, what each token is charged with above the baseline, detached and zero where masked; the same for
    # all tokens of a candidate where each is charged with the whole cost.
    advantage: Tensor | None = None


def em_loss(
    logits: Tensor,
    tokens: Tensor,
    mask: Tensor,
    estimator: Estimator = "token",
    policy: bool = True,
    entropy: bool = True,
    *,
    credit: Credit = "trajectory",
    baseline: Baseline = "leave-one-out",
    normalization: Normalization = "token",
) -> Loss:
    """Compute the entropy-minimisation loss of candidates, from the policy's logits.

    Args:
        logits: `(B, G, T, V)`, those that each token was chosen from.
        tokens: `(B, G, T)`.
        mask: `(B, G, T)`, 1 up to and including the end token, then 0.
        estimator: "token" or "sequence".
        policy: whether to include L_PG in the total.
        entropy: whether to include L_ENT in the total; the sequence estimator has none.
        credit: "trajectory" or "to-go".
        baseline: "leave-one-out" or "none".
        normalization: "token" or "sequence".

    Raises:
        UsageError: for an unknown choice.
    """
    objective = Objective(estimator, policy, entropy, credit, baseline, normalization)
    statistics = token_statistics(logits.flatten(0, 2), tokens.flatten())
    entropies, log_probs = (part.view(tokens.shape) for part in (statistics.entropy, statistics.log_prob))
    return loss_of(entropies, log_probs, mask, check_objective(objective))


def check_objective(objective: Objective) -> Objective:
    """Check the choices of an objective, and return it.

    Raises:
        UsageError: for an unknown choice.
    """
    allowed = get_type_hints(Objective)
    for field in fields(objective):
        value, choices = getattr(objective, field.name), get_args(allowed[field.name])
        if choices and value not in choices:
            raise unknown(field.name, str(value), choices)
    return objective


def loss_of(entropies: Tensor, log_probs: Tensor, mask: Tensor, objective: Objective) -> Loss:
    """Compute the loss of candidates from each position's entropy and each token's log-probability, `(B, G, T)`."""
    entropies = entropies.masked_fill(mask == 0, 0.0)
    log_probs = log_probs.masked_fill(mask == 0, 0.0)
    cost = trajectory_cost if objective.credit == "trajectory" else cost_to_go
    advantage = cost(entropies, log_probs, objective.estimator).detach()
    if objective.baseline == "leave-one-out":
        advantage = leave_one_out_advantage(advantage)
    advantage = advantage.masked_fill(mask == 0, 0.0)
    mean = token_mean if objective.normalization == "token" else sequence_mean
    zero = torch.zeros_like(entropies[:, 0, 0])
    policy_part = policy_loss(advantage, log_probs, mask, mean) if objective.policy else zero
    has_entropy = objective.entropy and objective.estimator == "token"
    entropy_part = entropy_loss(entropies, mask, mean) if has_entropy else zero
    return Loss(policy_part + entropy_part, policy_part, entropy_part, advantage)


def trajectory_cost(entropies: Tensor, log_probs: Tensor, estimator: Estimator) -> Tensor:
    """Each candidate's cost, from masked `(B, G, T)`, repeated for each of its tokens, `(B, G, T)`.

    It is c_i = Σ_t H_t^i, the token-level estimate of the sequence's entropy, or the sequence-level c_i = -log p(y^i).
    """
    surprise = entropies if estimator == "token" else -log_probs
    return surprise.sum(-1, keepdim=True).expand_as(surprise)


def cost_to_go(entropies: Tensor, log_probs: Tensor, estimator: Estimator) -> Tensor:
    """The part of its candidate's cost that each token can still change, from masked `(B, G, T)`.

    The entropy at t depends only on the tokens before t, so y_t is charged with Σ_{s>t} H_s; with the sequence's
    log-probability it is charged with its own term too, -Σ_{s≥t} log p(y_s). The omitted terms times ∇log p(y_t) have
    expectation zero (Sutton and Barto, Reinforcement Learning, 2018, section 13.3).
    """
    surprise = entropies if estimator == "token" else -log_probs
    remaining = surprise.flip(-1).cumsum(-1).flip(-1)
    return remaining - surprise if estimator == "token" else remaining


def leave_one_out_advantage(cost: Tensor) -> Tensor:
    """A_i = c_i - mean_{j≠i} c_j for costs `(B, G, T)`, at each position; a single candidate has no baseline."""
    count = cost.shape[1]
    if count == 1:
        return cost
    baseline = (cost.sum(1, keepdim=True) - cost) / (count - 1)
    return cost - baseline


def policy_loss(advantage: Tensor, log_probs: Tensor, mask: Tensor, mean: Mean) -> Tensor:
    """L_PG, `(B,)`: with `token_mean`, (1 / Σ_i |y^i|) Σ_i Σ_t A_i log p(y_t^i | …)."""
    return mean(advantage * log_probs, mask)


def entropy_loss(entropies: Tensor, mask: Tensor, mean: Mean) -> Tensor:
    """L_ENT, `(B,)`: with `token_mean`, (1 / Σ_i |y^i|) Σ_i Σ_t H_t^i."""
    return mean(entropies, mask)


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of masked `(B, G, T)` over all candidates' tokens, `(B,)`, as in DAPO (arXiv:2503.14476)."""
    return values.sum((1, 2)) / mask.sum((1, 2))


def sequence_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over candidates of each candidate's mean over its tokens, `(B,)`, as in GRPO (arXiv:2402.03300)."""
    return (values.sum(-1) / mask.sum(-1)).mean(-1)
