"""Candidates are sampled from the policy, have their own random numbers, share prefixes, and always end."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from whisper_factory import make_checkpoint, sounds

from emtta_core.adaptation import method
from emtta_core.adaptation.episode import noise_key, source_parameters, split
from emtta_core.adaptation.options import Options
from emtta_core.errors import UsageError
from emtta_core.model import SpeechModel, forward, load_model
from emtta_core.model.beam_search import BeamSearch
from emtta_core.model.candidates import Greedy, Hypotheses, Sampled, Strategy, generate
from emtta_core.model.forward import Layout, grow
from emtta_core.model.policy import TOKENS_MARGIN
from emtta_core.model.tokens import TOKENS_PER_SECOND


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SpeechModel:
    return load_model(make_checkpoint(tmp_path_factory.mktemp("checkpoint")), device="cpu", precision="float64")


def grown(model: SpeechModel, strategies: list[Strategy], limits: list[int], seed: int = 0) -> list[Hypotheses]:
    mel = model.front_end.mel(
        sounds([1.0 + 0.5 * i for i in range(len(limits))], seed=seed), device=model.device, dtype=model.dtype
    )
    norms = split(model.weights, source_parameters(model.weights, len(limits)))
    encoded = forward.encode(model.weights, norms.encoder, model.front_end.stem(mel))
    memory = forward.cross_memory(model.weights, encoded)
    prompt = model.prompt.rows(["en"] * len(limits), model.device)
    return generate(model.weights, norms.decoder, memory, prompt, model.policy, torch.tensor(limits), strategies)


def test_samples_follow_policy(model: SpeechModel) -> None:
    made = grown(model, [Sampled(torch.tensor([5]), 4000)], [2])[0]
    first = torch.bincount(made.tokens[0, :, 0], minlength=len(model.policy.bias)) / 4000
    expected = first_distribution(model)
    assert (first - expected).abs().max() < 0.03
    assert (first[expected == 0] == 0).all()


def first_distribution(model: SpeechModel) -> Tensor:
    mel = model.front_end.mel(sounds([1.0]), device=model.device, dtype=model.dtype)
    norms = split(model.weights, source_parameters(model.weights, 1))
    encoded = forward.encode(model.weights, norms.encoder, model.front_end.stem(mel))
    memory = forward.cross_memory(model.weights, encoded)
    prompt = model.prompt.rows(["en"], model.device)
    causal = torch.full((prompt.shape[1],) * 2, -torch.inf, dtype=model.dtype).triu(1)
    layout = Layout.of(torch.tensor([prompt.shape[1]]), [prompt.shape[1]])
    nodes = forward.Nodes(prompt[0], torch.arange(prompt.shape[1]), layout)
    hidden = forward.decode(model.weights, norms.decoder, memory, nodes, causal)
    return model.policy.mask_step(forward.logits(model.weights, hidden[-1]), first=True).softmax(-1)


def test_each_ends_once_or_at_its_limit(model: SpeechModel) -> None:
    limits = [30, 3, 12, 1]
    for strategies in ([Sampled(torch.arange(4), 6), Greedy()], [BeamSearch(5), Greedy()]):
        for made in grown(model, list(strategies), limits):
            end = model.policy.end
            for utterance, limit in enumerate(limits):
                for row in range(made.tokens.shape[1]):
                    mask = made.mask[utterance, row]
                    length = int(mask.sum())
                    tokens = made.tokens[utterance, row][:length].tolist()
                    assert mask[:length].all()
                    assert 1 <= length <= limit
                    assert tokens.count(end) == int(made.ended[utterance, row])
                    assert (tokens[-1] == end) == bool(made.ended[utterance, row])
                    assert made.ended[utterance, row] or length == limit
                    assert (made.tokens[utterance, row][length:] == end).all()


def test_greedy_row_does_not_affect_others(model: SpeechModel) -> None:
    keys = torch.arange(3)
    limits = [20, 16, 18]
    for one, other in ((Sampled(keys, 6), Sampled(keys, 6)), (BeamSearch(4), BeamSearch(4))):
        together, greedy = grown(model, [one, Greedy()], limits)
        alone = grown(model, [other], limits)[0]
        assert torch.equal(together.tokens[..., : alone.tokens.shape[-1]], alone.tokens)
        assert torch.equal(greedy.tokens, grown(model, [Greedy()], limits)[0].tokens)


def test_greedy_entropy_is_policy_entropy(model: SpeechModel) -> None:
    made = grown(model, [Greedy()], [20])[0]
    entropies, _ = forced(model, made)
    assert made.entropy is not None
    torch.testing.assert_close(made.entropy[0, 0], entropies.mean(), rtol=1e-9, atol=1e-9)


def test_greedy_takes_likeliest_tokens(model: SpeechModel) -> None:
    made = grown(model, [Greedy()], [20])[0]
    _, logits = forced(model, made)
    assert logits.argmax(-1).tolist() == made.tokens[0, 0][made.mask[0, 0]].tolist()


def forced(model: SpeechModel, made: Hypotheses) -> tuple[Tensor, Tensor]:
    """Teacher-force the only sequence of one utterance; return the policy's entropies and logits at its tokens."""
    mel = model.front_end.mel(sounds([1.0]), device=model.device, dtype=model.dtype)
    norms = split(model.weights, source_parameters(model.weights, 1))
    encoded = forward.encode(model.weights, norms.encoder, model.front_end.stem(mel))
    memory = forward.cross_memory(model.weights, encoded)
    prompt = model.prompt.rows(["en"], model.device)
    tree = grow(prompt, made.tokens, made.mask, dtype=model.dtype)
    hidden = forward.decode(model.weights, norms.decoder, memory, tree.nodes, tree.visible)
    logits = forward.logits(model.weights, hidden[tree.contexts])
    masked = model.policy.mask_nodes(logits, tree.first)[tree.owner[0, 0][made.mask[0, 0]]]
    return torch.special.entr(masked.softmax(-1)).sum(-1), masked


def test_shared_prefixes_are_one_node() -> None:
    prompt = torch.tensor([[90, 91, 92]])
    tokens = torch.tensor([[[5, 6, 7, 1], [5, 6, 8, 1], [5, 6, 7, 1], [4, 1, 1, 1]]])
    mask = torch.tensor([[[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]], dtype=torch.bool)
    tree = grow(prompt, tokens, mask, dtype=torch.float32)
    # The contexts: prompt | 5 | 4 | 5 6 | 5 6 7 | 5 6 8
    assert tree.nodes.tokens.tolist() == [90, 91, 92, 5, 4, 6, 7, 8]
    assert tree.nodes.positions.tolist() == [0, 1, 2, 3, 3, 4, 5, 5]
    assert tree.contexts.tolist() == [2, 3, 4, 5, 6, 7]
    assert tree.first.tolist() == [True, False, False, False, False, False]
    assert tree.owner.tolist() == [[[0, 1, 3, 4], [0, 1, 3, 5], [0, 1, 3, 4], [0, 2, 0, 0]]]
    sees = (tree.visible[0, 0] == 0).int().tolist()
    assert sees == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 1, 0, 0],
        [1, 1, 1, 1, 0, 1, 1, 0],
        [1, 1, 1, 1, 0, 1, 0, 1],
    ]


def test_noise_key_depends_on_all_inputs() -> None:
    def key(name: str, utterance_id: str, step: int, seed: int = 0) -> int:
        return noise_key(method(name), Options(candidates=4, seed=seed), utterance_id, step)

    base = key("em-tok", "a", 0)
    assert base == key("em-tok", "a", 0)
    others = [key("em-tok", "a", 0, seed=1), key("em-tok", "b", 0), key("em-seq", "a", 0), key("em-tok", "a", 1)]
    assert len({base, *others}) == 5


def test_limit_grows_with_duration(model: SpeechModel) -> None:
    policy, prompt = model.policy, model.prompt.length
    assert policy.max_tokens(1.0, "en", prompt) == TOKENS_PER_SECOND + TOKENS_MARGIN
    assert policy.max_tokens(2.5, "en", prompt) == 2.5 * TOKENS_PER_SECOND + TOKENS_MARGIN
    assert policy.max_tokens(1000.0, "en", prompt) == policy.max_target_positions - prompt


def test_long_spelling_allows_more_tokens(tiny_model: Path) -> None:
    usual, more = load_model(tiny_model, device="cpu"), load_model(tiny_model, device="cpu", tokens_per_second=20.0)
    needs = {"en": TOKENS_PER_SECOND, "de": TOKENS_PER_SECOND, "hi": 30, "bn": 50, "ka": 70, "my": 105}
    for language, needed in needs.items():
        assert replace(usual.policy, max_target_positions=448).max_tokens(1.0, language, 4) == needed + TOKENS_MARGIN
        assert more.policy.max_tokens(1.0, language, more.prompt.length) == 20 + TOKENS_MARGIN
    assert more.digest == usual.digest
    with pytest.raises(UsageError, match=r"tokens_per_second is 0; it must be above 0"):
        load_model(tiny_model, device="cpu", tokens_per_second=0)
