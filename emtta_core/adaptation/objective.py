"""The objective, equation by equation.

A model p(y | x) = Π_t p(y_t | x, y_<t) has the sequence entropy H = E_y[-log p(y | x)]. On one sampled y it is
estimated, without bias, by -log p(y) ("sequence") or by Σ_t H_t ("token"), H_t being the entropy of p(· | x, y_<t).
Since y is drawn from the same p, the gradient has two parts:

    ∇H = E[Ĥ(y) ∇log p(y)] + E[∇Ĥ(y)]        policy gradient + entropy

and for the sequence estimator the second is zero, E[∇(-log p(y))] = 0, so it has no entropy part.

What is exact: summed over all sequences with their probabilities, the gradient of the surrogate is ∇H, with the
leave-one-out baseline too. What is not: both parts are divided by the number of the candidates' tokens, which weighs
short groups of candidates more, and beams are not samples. Source: Huang, Yu, Lin, Lee, "Rethinking Entropy
Minimization in Test-Time Adaptation for Autoregressive Models", arXiv:2605.08186.

Shapes: B utterances, G candidates, T tokens, V vocabulary. Logits are the decoding policy's: -inf where a token is
suppressed, with 0 · log 0 = 0.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from emtta_core.adaptation.statistics import token_statistics
from emtta_core.errors import unknown

Estimator = Literal["token", "sequence"]
ESTIMATORS: tuple[Estimator, ...] = ("token", "sequence")
"""How the entropy of the sequence is estimated from one candidate."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of each utterance, `(B,)` each.

    Attributes:
        total: what is minimised: the sum of the parts asked for.
        policy: L_PG, zero if not asked for.
        entropy: L_ENT, zero if not asked for, or with the sequence estimator.
        advantage: `(B, G)`, each candidate's cost above the others' mean, detached.
    """

    total: Tensor
    policy: Tensor
    entropy: Tensor
    advantage: Tensor


def em_loss(
    logits: Tensor,
    tokens: Tensor,
    mask: Tensor,
    estimator: Estimator = "token",
    policy: bool = True,
    entropy: bool = True,
) -> Loss:
    """Return the entropy-minimisation loss of candidates, from the policy's logits.

    Args:
        logits: `(B, G, T, V)`, those that each token was chosen from.
        tokens: `(B, G, T)`.
        mask: `(B, G, T)`, 1 up to and including the end token, else 0.
        estimator: "token" or "sequence".
        policy: whether L_PG is in the total.
        entropy: whether L_ENT is in the total; the sequence estimator has none.

    Raises:
        UsageError: for another estimator.
    """
    statistics = token_statistics(logits.flatten(0, 2), tokens.flatten())
    return loss_of(
        statistics.entropy.view(tokens.shape),
        statistics.log_prob.view(tokens.shape),
        mask,
        estimator=estimator,
        policy=policy,
        entropy=entropy,
    )


def loss_of(
    entropies: Tensor, log_probs: Tensor, mask: Tensor, *, estimator: Estimator, policy: bool, entropy: bool
) -> Loss:
    """Return the loss of candidates, from each position's entropy and each token's log-probability, `(B, G, T)`."""
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
    entropies = entropies.masked_fill(mask == 0, 0.0)
    log_probs = log_probs.masked_fill(mask == 0, 0.0)
    cost = token_cost(entropies) if estimator == "token" else sequence_cost(log_probs)
    advantage = leave_one_out_advantage(cost)
    zero = torch.zeros_like(cost[:, 0])
    policy_part = policy_loss(advantage, log_probs, mask) if policy else zero
    entropy_part = entropy_loss(entropies, mask) if entropy and estimator == "token" else zero
    return Loss(policy_part + entropy_part, policy_part, entropy_part, advantage)


def token_cost(entropies: Tensor) -> Tensor:
    """Return c_i = Σ_t H_t^i, `(B, G)`: the token-level estimate of the sequence entropy, of masked `(B, G, T)`."""
    return entropies.sum(-1)


def sequence_cost(log_probs: Tensor) -> Tensor:
    """Return c_i = -log p(y^i), `(B, G)`: the sequence-level estimate, of masked `(B, G, T)`."""
    return -log_probs.sum(-1)


def leave_one_out_advantage(cost: Tensor) -> Tensor:
    """Return A_i = c_i - mean_{j≠i} c_j, `(B, G)`; no gradient flows through it. One candidate has no baseline."""
    cost = cost.detach()
    count = cost.shape[-1]
    if count == 1:
        return cost
    baseline = (cost.sum(-1, keepdim=True) - cost) / (count - 1)
    return cost - baseline


def policy_loss(advantage: Tensor, log_probs: Tensor, mask: Tensor) -> Tensor:
    """Return L_PG = (1 / Σ_i |y^i|) Σ_i Σ_t A_i log p(y_t^i | …), `(B,)`."""
    return (advantage.unsqueeze(-1) * log_probs).sum((1, 2)) / mask.sum((1, 2))


def entropy_loss(entropies: Tensor, mask: Tensor) -> Tensor:
    """Return L_ENT = (1 / Σ_i |y^i|) Σ_i Σ_t H_t^i, `(B,)`: normalised by tokens, as in DAPO."""
    return entropies.sum((1, 2)) / mask.sum((1, 2))
