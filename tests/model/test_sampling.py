"""Tokens are sampled with their probabilities, by noise that is the same everywhere and depends only on its key."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from emtta_core.model.sampling import Noise, block_width, draw, mix, signed

CANDIDATES = 64


def logits(vocabulary: int, spread: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn((1, vocabulary), generator=generator, dtype=torch.float64)


def drawn(row: Tensor, positions: int, key: int = 1, candidates: int = CANDIDATES) -> Tensor:
    """Sample tokens `(positions, G)` from one distribution `(1, V)`."""
    noise = Noise(torch.tensor([key]), candidates, row.shape[-1])
    nodes = torch.zeros((1, candidates), dtype=torch.long)
    return torch.cat([draw(row, nodes, noise.at(position)) for position in range(positions)])


def surprise(found: Tensor, expected: Tensor) -> float:
    """Return chi-square minus its mean, in standard deviations; bins with few samples are merged."""
    rare = expected < 8
    counts = torch.cat([found[~rare], found[rare].sum().view(1)]).double()
    wanted = torch.cat([expected[~rare], expected[rare].sum().view(1)])
    counts, wanted = counts[wanted > 0], wanted[wanted > 0]
    freedom = len(wanted) - 1
    return float(((counts - wanted) ** 2 / wanted).sum() - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize(("vocabulary", "spread"), [(3, 1.0), (5, 1.0), (120, 2.0), (1000, 1.0), (51_865, 6.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tokens_have_their_probabilities(vocabulary: int, spread: float, dtype: torch.dtype) -> None:
    row = logits(vocabulary, spread)
    row[0, 1::7] = -torch.inf
    tokens = drawn(row.to(dtype), 40 if vocabulary > 10_000 else 1000).flatten()
    found, expected = torch.bincount(tokens, minlength=vocabulary), row[0].softmax(-1) * len(tokens)
    assert len(found) == vocabulary
    assert (found[expected == 0] == 0).all()
    assert abs(surprise(found, expected)) < 3.5


@pytest.mark.parametrize("between", ["positions", "candidates", "keys"])
def test_draws_are_independent(between: str) -> None:
    row = logits(9, 1.0)
    one, other = drawn(row, 1001), drawn(row, 1001, key=2)
    pairs = {
        "positions": (one[:-1], one[1:]),
        "candidates": (one[:, :-1], one[:, 1:]),
        "keys": (one, other),
    }
    left, right = (part.flatten() for part in pairs[between])
    joint = torch.bincount(9 * left + right, minlength=81)
    probabilities = row[0].softmax(-1)
    expected = torch.outer(probabilities, probabilities).flatten() * len(left)
    assert abs(surprise(joint, expected)) < 3.5


def test_noise_is_exponential() -> None:
    noise = Noise(torch.arange(4), 16, 51_865).at(3).flatten().sort().values
    assert float(noise[0]) > 0
    steps = torch.arange(1, len(noise) + 1, dtype=torch.float64) / len(noise)
    assert float((1 - (-noise).exp() - steps).abs().max()) < 1.6 / math.sqrt(len(noise))  # the Kolmogorov-Smirnov test


def test_noise_ignores_rest_of_batch() -> None:
    keys = torch.tensor([7, signed(2**64 - 5), 11])
    together = Noise(keys, 6, 1000)
    reference = together.at(4)
    for row, key in enumerate(keys):
        assert torch.equal(Noise(key.view(1), 6, 1000).at(4)[0], reference[row])
        assert torch.equal(Noise(key.view(1), 2, 1000).at(4)[0], reference[row, :2])
    together.keep(torch.tensor([2, 0]))
    assert torch.equal(together.at(4), reference[[2, 0]])
    assert len({tuple(row) for row in reference.flatten(0, 1).tolist()}) == 18
    assert not torch.equal(together.at(5), together.at(4))


def test_hash_matches_integer_arithmetic() -> None:
    """Compared with Python's integers, and with the first number of java.util.SplittableRandom for seed 0."""

    def plain(number: int) -> int:
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            number = (number ^ number >> shift) * factor % 2**64
        return number ^ number >> 31

    numbers = [0, 1, 2**63, 2**64 - 1, *np.random.default_rng(0).integers(2**64, size=100, dtype=np.uint64).tolist()]
    hashed = mix(torch.tensor([signed(number) for number in numbers]))
    assert [number % 2**64 for number in hashed.tolist()] == [plain(number) for number in numbers]
    assert plain(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


SCRIPT = """
import torch
from emtta_core.model.sampling import Noise
assert torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX")
print(*(value.hex() for value in Noise(torch.arange(3), 2, 90).at(8).flatten().tolist()))
"""


def test_noise_is_same_without_simd() -> None:
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=True)
    made = [float.fromhex(value) for value in done.stdout.split()]
    here = Noise(torch.arange(3), 2, 90).at(8).flatten().tolist()
    assert made == pytest.approx(here, rel=1e-14)  # the logarithm's last digit may differ


def test_impossible_token_is_never_sampled() -> None:
    rows = torch.full((2, 50_000), -torch.inf)
    rows[0, 100:40_000] = 0.0
    rows[1, 7] = 0.0
    noise = Noise(torch.arange(20), 2, 50_000)
    for position in range(5):
        tokens = draw(rows, torch.tensor([[0, 1]] * 20), noise.at(position))
        assert ((tokens[:, 0] >= 100) & (tokens[:, 0] < 40_000)).all()
        assert (tokens[:, 1] == 7).all()


def test_nan_logits_sample_a_token() -> None:
    rows = torch.full((1, 10), torch.nan)
    assert 0 <= int(draw(rows, torch.zeros((1, 1), dtype=torch.long), Noise(torch.arange(1), 1, 10).at(0))) < 10


def test_rounding_changes_no_sample() -> None:
    row = logits(51_865, 1.0)
    nudged = row + 3e-6 * torch.randn(row.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert (drawn(row, 60) != drawn(nudged, 60)).sum() == 0


def test_blocks_cover_vocabulary() -> None:
    for vocabulary in (1, 2, 3, 100, 51_865, 51_866):
        width = block_width(vocabulary)
        assert width * math.ceil(vocabulary / width) >= vocabulary
        assert Noise(torch.arange(1), 1, vocabulary).at(0).shape[-1] < 2 * math.sqrt(vocabulary) + 3
