"""One distribution: tokens that the generation config suppresses have no part in sampling, search, entropy or loss."""

from dataclasses import replace

import pytest
import torch
from whisper_factory import LANGUAGES, make_checkpoint, sounds

from emtta_core.adaptation import method
from emtta_core.adaptation.episode import candidate_loss, source_parameters, split
from emtta_core.errors import UsageError
from emtta_core.model import SpeechModel, forward, load_model
from emtta_core.model.beam_search import BeamSearch
from emtta_core.model.candidates import Greedy, Hypotheses, Sampled, generate


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SpeechModel:
    folder = make_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    return load_model(folder, device="cpu", precision="float64")


def suppressed(model: SpeechModel) -> tuple[set[int], set[int]]:
    always = torch.isinf(model.policy.bias).nonzero().flatten().tolist()
    first = torch.isinf(model.policy.first_bias).nonzero().flatten().tolist()
    return set(always), set(first)


def test_rules_follow_generation_config(model: SpeechModel) -> None:
    tokenizer = model.tokenizer
    always, first = suppressed(model)
    specials = set(tokenizer.all_special_ids) - {tokenizer.eos_token_id}
    assert always == specials | {1, 7, 11, 40}
    assert first == always | {tokenizer.convert_tokens_to_ids("Ġ"), tokenizer.eos_token_id}


def test_suppressed_tokens_never_occur(model: SpeechModel) -> None:
    always, first = suppressed(model)
    for made in candidates(model):
        assert not always & set(made.tokens[made.mask].tolist())
        assert not first & set(made.tokens[:, :, 0].flatten().tolist())


def test_entropy_ignores_suppressed(model: SpeechModel) -> None:
    """Larger logits of suppressed tokens change neither entropies, nor losses, nor gradients."""
    made = candidates(model)[0]
    reference = loss_and_gradient(model, made)
    always, _ = suppressed(model)
    head = model.weights.head.clone()
    head[list(always)] *= 3.0
    changed = replace(model, weights=replace(model.weights, head=head))
    for one, other in zip(loss_and_gradient(changed, made), reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def loss_and_gradient(model: SpeechModel, made: Hypotheses) -> tuple[torch.Tensor, ...]:
    mel = model.front_end.mel(sounds([1.0, 2.0]), device=model.device, dtype=model.dtype)
    parameters = source_parameters(model.weights, 2).requires_grad_()
    norms = split(model.weights, parameters)
    encoded = forward.encode(model.weights, norms.encoder, model.front_end.stem(mel))
    memory = forward.cross_memory(model.weights, encoded)
    prompt = model.prompt.rows(["en", "de"], model.device)
    loss, entropy = candidate_loss(model, method("em-tok"), norms, memory, prompt, made)
    (gradient,) = torch.autograd.grad(loss.total.sum(), parameters)
    assert torch.isfinite(gradient).all()
    return loss.total, loss.policy, loss.entropy, entropy, gradient


def candidates(model: SpeechModel) -> list[Hypotheses]:
    mel = model.front_end.mel(sounds([1.0, 2.0]), device=model.device, dtype=model.dtype)
    norms = split(model.weights, source_parameters(model.weights, 2))
    encoded = forward.encode(model.weights, norms.encoder, model.front_end.stem(mel))
    memory = forward.cross_memory(model.weights, encoded)
    prompt = model.prompt.rows(["en", "de"], model.device)
    limits = torch.tensor([16, 16])
    strategies = [Sampled(torch.arange(2), 5), BeamSearch(5), Greedy()]
    return generate(model.weights, norms.decoder, memory, prompt, model.policy, limits, strategies)


def test_prompt_omits_timestamps(model: SpeechModel) -> None:
    rows = model.prompt.rows(["fr", "en"], model.device).tolist()
    prompts = [model.tokenizer.convert_ids_to_tokens(row) for row in rows]
    assert prompts[0] == ["<|startoftranscript|>", "<|fr|>", "<|transcribe|>", "<|notimestamps|>"]
    assert prompts[1] == ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    assert set(model.languages) == set(LANGUAGES)


def test_english_only_prompt_is_bare(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    english = load_model(make_checkpoint(tmp_path_factory.mktemp("english"), multilingual=False), device="cpu")
    row = english.prompt.rows(["en"], english.device)[0].tolist()
    assert english.tokenizer.convert_ids_to_tokens(row) == ["<|startoftranscript|>", "<|notimestamps|>"]
    assert english.languages == ("en",)
    with pytest.raises(UsageError, match=r"'de'.*en"):
        english.prompt.rows(["de"], english.device)


def test_unknown_language_lists_known(model: SpeechModel) -> None:
    with pytest.raises(UsageError, match=r"'pl'.*de, en, fr"):
        model.prompt.rows(["en", "pl"], model.device)
