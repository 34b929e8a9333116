"""Entropies of distributions and log-probabilities of tokens, with their gradient written out.

The gradient needs the logarithms of the probabilities and nothing else of the size of the logits, so that is all that
is kept; automatic differentiation would keep three times as much, and would make NaN of 0 · log 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

IMPOSSIBLE = -1.0e4
"""Stands for log 0: its exponential is 0 in every precision."""


class TokenStatistics(NamedTuple):
    """Of M distributions and K tokens.

    Attributes:
        entropy: `(M,)`, nats.
        log_prob: `(K,)`.
    """

    entropy: Tensor
    log_prob: Tensor


def token_statistics(logits: Tensor, tokens: Tensor, rows: Tensor | None = None) -> TokenStatistics:
    """Return the entropy of each distribution, and the log-probability of each token.

    Both can be differentiated once.

    Args:
        logits: `(M, V)`, -inf where a token is impossible.
        tokens: `(K,)`.
        rows: `(K,)`, the distribution that each token was chosen from; None: the token at k from the distribution at k.
    """
    if rows is None:
        rows = torch.arange(len(tokens), device=tokens.device)
    apply: Callable[..., tuple[Tensor, Tensor]] = _Statistics.apply
    return TokenStatistics(*apply(logits, tokens, rows))


class _Statistics(torch.autograd.Function):
    """∂H/∂z_v = -p_v (log p_v + H) and ∂log p_y/∂z_v = [v = y] - p_v."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        # Not log_probs.exp(), here and below: exp takes five times as long where its result is subnormal.
        log_probs, probs = logits.log_softmax(-1), logits.softmax(-1)
        # An impossible token has probability 0 and adds nothing; -inf would make it NaN.
        log_probs = log_probs.clamp_(min=IMPOSSIBLE)
        log_prob = log_probs[rows, tokens]
        entropy = -probs.mul_(log_probs).sum(-1)  # in place: a product of its own would be one more of the logits' size
        ctx.save_for_backward(log_probs, entropy, tokens, rows)
        return entropy, log_prob

    @staticmethod
    def backward(ctx: Any, of_entropy: Tensor, of_log_prob: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("token_statistics can be differentiated once only")
        log_probs, entropy, tokens, rows = ctx.saved_tensors
        weight = torch.zeros_like(entropy).index_add_(0, rows, of_log_prob)
        slope = -of_entropy.unsqueeze(1)
        gradient = torch.addcmul(-(weight + of_entropy * entropy).unsqueeze(1), log_probs, slope)
        gradient *= log_probs.softmax(-1)
        gradient.view(-1).index_add_(0, rows * log_probs.shape[1] + tokens, of_log_prob)
        return gradient, None, None
