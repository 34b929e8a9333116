"""Sampling with noise that is the same on every processor and device, whatever the batch.

A token is drawn by a race (the Gumbel-max trick): token v arrives at time E_v / p_v, where E_v is independent
exponential noise, and v is the first with probability p_v. If rounding changes the probabilities slightly, another
token wins only if the two would arrive almost together. Inverting the cumulative distribution, by contrast, has a
boundary between any two tokens, and rounding moves tens of thousands of them at once.

The race is run twice, so that noise is needed for only 2 √V entrants instead of V: first blocks of neighbouring tokens
with their total probabilities, then the tokens of the winning block. Since p_v = p(block) · p(v | block), the draw is
exact.

The noise is a hash of 64-bit integers, which every device computes identically, with one value for each (key,
candidate, position, entrant). Source of the hash: Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014, as in java.util.SplittableRandom.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

GAMMA = 0x9E3779B97F4A7C15
"""An odd number whose multiples are spread evenly: 2^64 divided by the golden ratio."""

ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""The rounds of the hash, each a shift and a factor; a final shift by 31 follows."""


class Noise:
    """The noise of G candidates of each of B utterances, generated for one position at a time."""

    def __init__(self, keys: Tensor, candidates: int, vocabulary: int):
        """Prepare.

        Args:
            keys: `(B,)`, 64-bit integers: utterances with equal keys have equal noise.
            candidates: G; the noise of a candidate does not depend on their number.
            vocabulary: V.
        """
        width = block_width(vocabulary)
        entrants = width + math.ceil(vocabulary / width)
        counters = torch.arange(candidates * entrants, device=keys.device).view(candidates, entrants)
        self._state = mix(mix(keys).view(-1, 1, 1) + counters * signed(GAMMA))

    def at(self, position: int) -> Tensor:
        """The positive exponential noise of both races of each candidate at a position, `(B, G, N)`."""
        hashed = mix(self._state + signed(GAMMA * (position + 1)))
        uniform = (_shifted(hashed, 12).double() + 0.5) * 2.0**-52
        return -uniform.log()

    def keep(self, utterances: Tensor) -> None:
        """Continue with only these utterances."""
        self._state = self._state[utterances]


def draw(logits: Tensor, nodes: Tensor, noise: Tensor) -> Tensor:
    """Draw tokens `(...)`, each from the distribution given by `nodes`; those with probability zero are never drawn.

    Args:
        logits: `(F, V)`, the distributions.
        nodes: `(...)`, the index of the distribution of each token.
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
    return tokens.clamp_(max=vocabulary - 1)  # for logits that are NaN


def block_width(vocabulary: int) -> int:
    """The number of tokens in a block of a vocabulary."""
    return math.ceil(math.sqrt(vocabulary))


def mix(numbers: Tensor) -> Tensor:
    """Hash 64-bit integers, one to one."""
    for shift, factor in ROUNDS:
        numbers = (numbers ^ _shifted(numbers, shift)) * signed(factor)
    return numbers ^ _shifted(numbers, 31)


def signed(number: int) -> int:
    """The signed 64-bit integer with the same bits: torch multiplies and adds these modulo 2^64."""
    return (number + 2**63) % 2**64 - 2**63


def _shifted(numbers: Tensor, shift: int) -> Tensor:
    # A logical right shift; torch's own shift is arithmetic.
    shifted: Tensor = (numbers >> shift) & (2 ** (64 - shift) - 1)
    return shifted
