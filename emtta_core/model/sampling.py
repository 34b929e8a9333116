"""Sampling by noise that is the same on every processor and device, whatever the batch.

A token is drawn by a race (the Gumbel-max trick): each token v runs for E_v / p_v, with E_v exponential noise of its
own, and the first to arrive is token v with probability p_v. If rounding moves the probabilities a little, another
token wins only where two arrive together within that little. The inverse of the cumulative distribution has a border
between any two tokens, tens of thousands of which rounding moves all at once.

The race is run twice, so that noise is made for two times √V entrants and not for V: blocks of neighbouring tokens run
for their total probability, then the tokens of the winning block run among themselves. Since p_v = p(block) · p(v |
block), the draw is exact.

Noise comes from a hash of whole numbers of 64 bits, which every device computes alike; of (key, candidate, position,
entrant) it has one value. Source of the hash: Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014, as in java.util.SplittableRandom.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

GAMMA = 0x9E3779B97F4A7C15
"""An odd number whose multiples are spread evenly: 2^64 divided by the golden ratio."""

ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""Of the hash: a shift and a factor each; a last shift by 31 follows."""


class Noise:
    """The noise of G candidates of each of B utterances, made for one position at a time."""

    def __init__(self, keys: Tensor, candidates: int, vocabulary: int):
        """Prepare.

        Args:
            keys: `(B,)`, whole numbers of 64 bits: the noise of utterances with equal keys is equal.
            candidates: G; the noise of a candidate does not depend on how many there are.
            vocabulary: V.
        """
        width = block_width(vocabulary)
        entrants = width + math.ceil(vocabulary / width)
        counters = torch.arange(candidates * entrants, device=keys.device).view(candidates, entrants)
        self._state = mix(mix(keys).view(-1, 1, 1) + counters * signed(GAMMA))

    def at(self, position: int) -> Tensor:
        """The exponential noise, above 0, of the two races of each candidate for a position, `(B, G, N)`."""
        hashed = mix(self._state + signed(GAMMA * (position + 1)))
        uniform = (_shifted(hashed, 12).double() + 0.5) * 2.0**-52
        return -uniform.log()

    def keep(self, utterances: Tensor) -> None:
        """Go on with these utterances alone."""
        self._state = self._state[utterances]


def draw(logits: Tensor, nodes: Tensor, noise: Tensor) -> Tensor:
    """Draw tokens `(...)`, each from the distribution that `nodes` names; one of probability zero is never drawn.

    Args:
        logits: `(F, V)`, the distributions.
        nodes: `(...)`, which of them.
        noise: `(..., N)`, from `Noise`.
    """
    vocabulary = logits.shape[-1]
    width = block_width(vocabulary)
    padded = F.pad(logits, (0, -vocabulary % width), value=-torch.inf)
    probs = padded.softmax(-1).view(len(logits), -1, width)
    totals = probs.sum(-1)
    blocks = totals.shape[-1]
    block = (totals[nodes] / noise[..., :blocks]).argmax(-1)
    token = (probs[nodes, block] / noise[..., blocks:]).argmax(-1)
    tokens: Tensor = block * width + token
    return tokens.clamp_(max=vocabulary - 1)  # of logits that are NaN


def block_width(vocabulary: int) -> int:
    """How many tokens of a vocabulary make a block."""
    return math.ceil(math.sqrt(vocabulary))


def mix(numbers: Tensor) -> Tensor:
    """Hash whole numbers of 64 bits, one to one."""
    for shift, factor in ROUNDS:
        numbers = (numbers ^ _shifted(numbers, shift)) * signed(factor)
    return numbers ^ _shifted(numbers, 31)


def signed(number: int) -> int:
    """The number of 64 bits with a sign that has the same bits: torch multiplies and adds such numbers modulo 2^64."""
    return (number + 2**63) % 2**64 - 2**63


def _shifted(numbers: Tensor, shift: int) -> Tensor:
    # To the right, with zeros coming in; torch's own shift repeats the sign.
    shifted: Tensor = (numbers >> shift) & (2 ** (64 - shift) - 1)
    return shifted
