"""The surrogate's gradient equals that of the sequence entropy, computed by listing a toy model's sequences."""

from collections import Counter
from collections.abc import Iterator
from typing import cast

import pytest
import torch
from torch import Tensor

from emtta_core.adaptation.methods import Baseline, Credit, Estimator
from emtta_core.adaptation.objective import em_loss
from emtta_core.errors import UsageError
from emtta_core.model.sampling import Noise, draw

VOCABULARY = 3
END = 2
LONGEST = 4


class ToyModel:
    """An autoregressive model over three tokens, one of them the end token; sequences are cut at four tokens.

    Its logits depend on all previous tokens, through weights that stand for the adapted parameters.
    """

    def __init__(self, seed: int):
        generator = torch.Generator().manual_seed(seed)
        shape = (LONGEST, VOCABULARY, LONGEST, VOCABULARY)
        self.bias = torch.randn((LONGEST, VOCABULARY), dtype=torch.float64, generator=generator).requires_grad_()
        self.weight = torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()

    @property
    def parameters(self) -> tuple[Tensor, Tensor]:
        return self.bias, self.weight

    def logits(self, tokens: tuple[int, ...]) -> Tensor:
        """Return logits `(LONGEST, V)` at each position of a sequence; the second token may not come first."""
        rows = []
        for position in range(LONGEST):
            row = self.bias[position]
            for earlier, token in enumerate(tokens[:position]):
                row = row + self.weight[earlier, token, position].tanh()
            if position == 0:
                row = row + torch.tensor([0.0, -torch.inf, 0.0], dtype=torch.float64)
            rows.append(row)
        return torch.stack(rows)


def sequences(prefix: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """List every sequence, up to its end token or the maximum length."""
    if len(prefix) == LONGEST or (prefix and prefix[-1] == END):
        yield prefix
        return
    for token in range(VOCABULARY):
        if prefix or token != 1:
            yield from sequences((*prefix, token))


def listed(model: ToyModel) -> tuple[list[Tensor], list[tuple[int, ...]], Tensor]:
    """Return the logits of every sequence, the sequences, and their log-probabilities, with gradient."""
    every = list(sequences())
    logits = [model.logits(tokens) for tokens in every]
    chosen = [
        torch.stack([row[position].log_softmax(-1)[token] for position, token in enumerate(tokens)]).sum()
        for row, tokens in zip(logits, every, strict=True)
    ]
    return logits, every, torch.stack(chosen)


def batch(logits: list[Tensor], chosen: list[tuple[int, ...]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits `(1, G, T, V)`, tokens and mask `(1, G, T)` of G sequences."""
    tokens = torch.full((1, len(chosen), LONGEST), END)
    mask = torch.zeros((1, len(chosen), LONGEST))
    for row, sequence in enumerate(chosen):
        tokens[0, row, : len(sequence)] = torch.tensor(sequence)
        mask[0, row, : len(sequence)] = 1
    return torch.stack(logits).unsqueeze(0), tokens, mask


def entropy_gradient(model: ToyModel) -> list[Tensor]:
    """Return autograd's gradient of the entropy Σ -p log p over all sequences."""
    _, _, log_probs = listed(model)
    assert log_probs.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    return list(torch.autograd.grad(-(log_probs.exp() * log_probs).sum(), model.parameters))


def expected_surrogate(
    model: ToyModel,
    group: int,
    estimator: Estimator,
    policy: bool = True,
    entropy: bool = True,
    credit: Credit = "trajectory",
    baseline: Baseline = "leave-one-out",
) -> list[Tensor]:
    """Return Σ p(y^1)…p(y^G) times the surrogate's gradient, over all groups of G sequences.

    Undoes the loss's normalization by tokens, which only scales a group's loss, so that the mean over the group's
    candidates remains.
    """
    logits, every, log_probs = listed(model)
    total = torch.zeros((), dtype=torch.float64)
    picks = torch.cartesian_prod(*[torch.arange(len(every))] * group).view(-1, group)
    for pick in picks.tolist():
        probability = log_probs.detach()[pick].sum().exp()
        values, tokens, mask = batch([logits[index] for index in pick], [every[index] for index in pick])
        loss = em_loss(values, tokens, mask, estimator, policy, entropy, credit=credit, baseline=baseline)
        total = total + probability * loss.total[0] * mask.sum() / group
    return list(torch.autograd.grad(total, model.parameters))


def difference(left: list[Tensor], right: list[Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("estimator", ["token", "sequence"])
def test_one_candidate_is_unbiased(seed: int, estimator: Estimator) -> None:
    model = ToyModel(seed)
    surrogate = expected_surrogate(model, 1, estimator, True, True)
    assert difference(surrogate, entropy_gradient(model)) < 1e-9


def drawn(model: ToyModel, count: int) -> list[tuple[int, ...]]:
    """Sample sequences of a toy model, as the engine samples candidates."""
    noise = Noise(torch.tensor([3]), count, VOCABULARY)
    spoken: list[tuple[int, ...]] = [()] * count
    for position in range(LONGEST):
        prefixes = sorted(set(spoken))
        rows = torch.stack([model.logits(tokens)[position] for tokens in prefixes]).detach()
        number = {tokens: index for index, tokens in enumerate(prefixes)}
        tokens = draw(rows, torch.tensor([number[tokens] for tokens in spoken]), noise.at(position)[0]).tolist()
        spoken = [
            sequence if END in sequence else (*sequence, token) for sequence, token in zip(spoken, tokens, strict=True)
        ]
    return spoken


@pytest.mark.parametrize("estimator", ["token", "sequence"])
def test_sampled_candidates_are_unbiased(estimator: Estimator) -> None:
    model, count = ToyModel(0), 20_000
    logits, every, _ = listed(model)
    shares = Counter(drawn(model, count))
    gradients, entropies = [], []
    for row, tokens in zip(logits, every, strict=True):
        for policy, made in ((True, gradients), (False, entropies)):
            total = em_loss(*batch([row], [tokens]), "token" if not policy else estimator, policy).total.sum()
            parts = torch.autograd.grad(total * len(tokens), model.parameters, retain_graph=True)
            made.append(torch.cat([part.flatten() for part in parts]))
    weights = torch.tensor([shares[tokens] for tokens in every], dtype=torch.float64) / count
    exact = torch.cat([part.flatten() for part in entropy_gradient(model)])

    def deviations(made: list[Tensor]) -> Tensor:
        mean = weights @ torch.stack(made)
        error = ((weights @ torch.stack(made) ** 2 - mean**2) / count).sqrt()
        return ((mean - exact).abs() / (error + 1e-9)).max()

    assert shares.total() == count
    assert deviations(gradients) < 4.5
    assert deviations(entropies) > 20


@pytest.mark.parametrize("estimator", ["token", "sequence"])
def test_leave_one_out_is_unbiased(estimator: Estimator) -> None:
    model = ToyModel(2)
    surrogate = expected_surrogate(model, 2, estimator, True, True)
    assert difference(surrogate, entropy_gradient(model)) < 1e-9


@pytest.mark.parametrize("baseline", ["leave-one-out", "none"])
@pytest.mark.parametrize("estimator", ["token", "sequence"])
def test_cost_to_go_is_unbiased(estimator: Estimator, baseline: Baseline) -> None:
    model = ToyModel(3)
    for group in (1, 2):
        surrogate = expected_surrogate(model, group, estimator, credit="to-go", baseline=baseline)
        assert difference(surrogate, entropy_gradient(model)) < 1e-9


def test_cost_to_go_omits_earlier_tokens() -> None:
    logits, tokens, mask = example()
    log_probs = logits.log_softmax(-1)
    entropies = -(log_probs.exp() * log_probs).sum(-1) * mask
    chosen = log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) * mask
    for estimator, surprise, first in (("token", entropies, 1), ("sequence", -chosen, 0)):
        advantage = em_loss(logits, tokens, mask, estimator, credit="to-go", baseline="none").advantage
        for position in range(6):
            expected = surprise[..., position + first :].sum(-1) * mask[..., position]
            torch.testing.assert_close(advantage[..., position], expected.detach(), rtol=0, atol=1e-12)


def test_sequence_normalization_averages_means() -> None:
    logits, tokens, mask = example()
    log_probs = logits.log_softmax(-1)
    entropies = -(log_probs.exp() * log_probs).sum(-1) * mask
    loss = em_loss(logits, tokens, mask, normalization="sequence")
    expected = (entropies.sum(-1) / mask.sum(-1)).mean(-1)
    torch.testing.assert_close(loss.entropy, expected, rtol=0, atol=1e-12)
    one = em_loss(logits[:, :1], tokens[:, :1], mask[:, :1], normalization="sequence")
    same = em_loss(logits[:, :1], tokens[:, :1], mask[:, :1], normalization="token")
    torch.testing.assert_close(one.total, same.total, rtol=0, atol=1e-12)


def test_sequence_loss_has_no_entropy() -> None:
    loss = em_loss(*example(), estimator="sequence", policy=True, entropy=True)
    assert (loss.entropy == 0).all()
    assert (loss.total == loss.policy).all()


@pytest.mark.parametrize(("policy", "entropy"), [(False, True), (True, False)])
def test_partial_token_loss_is_biased(policy: bool, entropy: bool) -> None:
    model = ToyModel(0)
    surrogate = expected_surrogate(model, 1, "token", policy, entropy)
    assert difference(surrogate, entropy_gradient(model)) > 1e-2


def test_teacher_forced_greedy_is_biased() -> None:
    model = ToyModel(0)
    logits, every, log_probs = listed(model)
    best = int(log_probs.argmax())
    loss = em_loss(*batch([logits[best]], [every[best]]), estimator="token", policy=False, entropy=True)
    gradient = list(torch.autograd.grad(loss.total.sum() * len(every[best]), model.parameters))
    assert difference(gradient, entropy_gradient(model)) > 1e-2


def test_no_gradient_through_advantage() -> None:
    logits, tokens, mask = example()
    loss = em_loss(logits, tokens, mask, estimator="token", policy=True, entropy=False)
    (gradient,) = torch.autograd.grad(loss.policy.sum(), logits)
    advantage = loss.advantage
    log_probs = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    by_hand = (advantage * log_probs * mask).sum((1, 2)) / mask.sum((1, 2))
    (expected,) = torch.autograd.grad(by_hand.sum(), logits)
    assert not advantage.requires_grad
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_values_match_paper() -> None:
    logits, tokens, mask = example()
    log_probs = logits.log_softmax(-1)
    entropies = -(log_probs.exp() * log_probs).sum(-1) * mask
    chosen = log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) * mask
    for estimator, cost in (("token", entropies.sum(-1)), ("sequence", -chosen.sum(-1))):
        others = (cost.sum(-1, keepdim=True) - cost) / (cost.shape[-1] - 1)
        policy = ((cost - others).unsqueeze(-1) * chosen).sum((1, 2)) / mask.sum((1, 2))
        entropy = entropies.sum((1, 2)) / mask.sum((1, 2)) if estimator == "token" else torch.zeros_like(policy)
        loss = em_loss(logits, tokens, mask, estimator=estimator)
        torch.testing.assert_close(loss.policy, policy, rtol=0, atol=1e-12)
        torch.testing.assert_close(loss.entropy, entropy, rtol=0, atol=1e-12)
        torch.testing.assert_close(loss.total, policy + entropy, rtol=0, atol=1e-12)
        assert loss.total.shape == loss.policy.shape == loss.entropy.shape == (3,)


def test_impossible_tokens_give_no_nan() -> None:
    logits, tokens, mask = example()
    with torch.no_grad():
        logits[..., 4] = -torch.inf  # never sampled
        logits[0, 0, 0] = -torch.inf
        logits[0, 0, 0, 1] = 0.0  # certain
        tokens[0, 0, 0] = 1
        tokens[tokens == 4] = 0
    loss = em_loss(logits, tokens, mask)
    (gradient,) = torch.autograd.grad(loss.total.sum(), logits)
    assert torch.isfinite(loss.total).all()
    assert torch.isfinite(gradient).all()
    assert (gradient[..., 4] == 0).all()
    finite = logits.detach()[1:, ..., :4].requires_grad_()
    without = em_loss(finite, tokens[1:], mask[1:])
    (expected,) = torch.autograd.grad(without.total.sum(), finite)
    torch.testing.assert_close(gradient[1:, ..., :4], expected, rtol=0, atol=1e-12)


def test_masked_tokens_have_no_effect() -> None:
    logits, tokens, mask = example()
    loss = em_loss(logits, tokens, mask)
    (gradient,) = torch.autograd.grad(loss.total.sum(), logits)
    assert (gradient[mask == 0] == 0).all()
    with torch.no_grad():
        logits[mask == 0] = 1e4
        tokens[mask == 0] = 0
    torch.testing.assert_close(em_loss(logits, tokens, mask).total, loss.total, rtol=0, atol=1e-12)


def test_single_candidate_has_no_baseline() -> None:
    logits, tokens, mask = example()
    loss = em_loss(logits[:, :1], tokens[:, :1], mask[:, :1])
    log_probs = logits[:, :1].log_softmax(-1)
    cost = (-(log_probs.exp() * log_probs).sum(-1) * mask[:, :1]).sum(-1)
    torch.testing.assert_close(loss.advantage, cost.detach().unsqueeze(-1) * mask[:, :1], rtol=0, atol=1e-12)


def test_unknown_estimator_lists_known() -> None:
    logits, tokens, mask = example()
    with pytest.raises(UsageError, match=r"'word'.*sequence, token"):
        em_loss(logits, tokens, mask, estimator=cast("Estimator", "word"))
    with pytest.raises(UsageError, match=r"credit 'late'.*to-go"):
        em_loss(logits, tokens, mask, credit=cast("Credit", "late"))


def example() -> tuple[Tensor, Tensor, Tensor]:
    """Return logits `(3, 4, 6, 5)` with gradient, tokens and mask, in float64."""
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn((3, 4, 6, 5), dtype=torch.float64, generator=generator)
    tokens = torch.randint(5, (3, 4, 6), generator=generator)
    lengths = torch.randint(1, 7, (3, 4, 1), generator=generator)
    mask = (torch.arange(6) < lengths).to(torch.float64)
    return logits.requires_grad_(), tokens, mask
