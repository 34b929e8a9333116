"""The objectives of other papers match a plain loop over transformers' model, written from the papers' formulas."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import jiwer
import pytest
import torch
from demo_speech import DemoSpeech, prepare
from torch import Tensor
from transformers import WhisperForConditionalGeneration

from emtta_core.adaptation import method
from emtta_core.adaptation.episode import Batch, noise_key, prepare_batch, run
from emtta_core.adaptation.methods import OBJECTIVES
from emtta_core.adaptation.options import Options
from emtta_core.adaptation.parameters import source_parameters, split
from emtta_core.model import SpeechModel, forward, load_model
from emtta_core.model.beam_search import BeamSearch
from emtta_core.model.candidates import Greedy, Hypotheses, Sampled, generate
from emtta_core.model.model_files import folder_of
from emtta_core.model.weights import prepare as prepare_weights

OPTIONS = Options(steps=1, candidates=4, learning_rate=1e-2, epsilon=1e-3)

Scored = Sequence[tuple[Tensor, Tensor, str]]
"""For each candidate: the policy's logits `(T, V)`, its tokens `(T,)` and its text."""


@pytest.fixture(scope="module")
def model() -> SpeechModel:
    return load_model("demo", device="cpu", precision="float64")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> DemoSpeech:
    return prepare(tmp_path_factory.mktemp("speech"), ["BA"], 2)


def entropy(probs: Tensor) -> Tensor:
    probs = probs[probs > 0]
    return -(probs * probs.log()).sum()


def generalized(candidates: Scored) -> Tensor:
    logits, _, _ = candidates[0]
    losses = []
    for row in logits:
        probs, usual = (row / 2.5).softmax(0), row.softmax(0)
        renyi = probs[probs > 0].pow(1.5).sum().log() / (1 - 1.5)
        losses.append(renyi - (1 - probs[usual < 0.04 * 10 / len(row)].sum()).log())
    return torch.stack(losses).mean()


def confusion(candidates: Scored, *, confident: bool) -> Tensor:
    ((logits, _, _),) = candidates
    probs = (logits / 2.5).softmax(1)
    entropies = torch.stack([entropy(row) for row in probs])
    weights = 1 + (-entropies.detach()).exp()
    known = probs[:, (probs > 0).any(0)]
    correlation = known.T @ torch.diag(len(weights) * weights / weights.sum()) @ known
    correlation = correlation / correlation.sum(1, keepdim=True)
    outside = (correlation.sum() - correlation.diagonal().sum()) / known.shape[1]
    mean = torch.stack([one / (1 + (-one).exp()) if confident else one for one in entropies]).mean()
    return 0.3 * mean + 0.7 * outside


def reliable(candidates: Scored) -> Tensor:
    ((logits, _, _),) = candidates
    entropies = [entropy(row.softmax(0)) for row in logits]
    return torch.stack([one for one in entropies if one < 0.4 * math.log(logits.shape[1])]).mean()


def cross_entropy(candidates: Scored) -> Tensor:
    ((logits, tokens, _),) = candidates
    return torch.nn.functional.cross_entropy(logits, tokens)


def agreement(candidates: Scored, *, vote: bool) -> Tensor:
    texts = [" ".join(re.sub(r"[^\w\s]", " ", text.casefold()).split()) for _, _, text in candidates]
    if vote:
        ((label, _),) = Counter(texts).most_common(1)
        rewards = torch.tensor([float(text == label) for text in texts], dtype=torch.float64)
    else:
        risks = [sum(errors(one, other) for other in texts) / len(texts) for one in texts]
        rewards = -torch.tensor(risks, dtype=torch.float64)
    assert rewards.std() > 0
    advantages = (rewards - rewards.mean()) / rewards.std(correction=0)
    log_probs = [logits.log_softmax(1).gather(1, tokens.unsqueeze(1)).sum() for logits, tokens, _ in candidates]
    count = sum(len(tokens) for _, tokens, _ in candidates)
    return -(advantages * torch.stack(log_probs)).sum() / count


def errors(one: str, other: str) -> int:
    found = jiwer.process_words(one, other)
    return int(found.substitutions + found.deletions + found.insertions)


PLAIN: dict[str, Callable[[Scored], Tensor]] = {
    "sgem": generalized,
    "suta": lambda candidates: confusion(candidates, confident=False),
    "cea": lambda candidates: confusion(candidates, confident=True),
    "sar": reliable,
    "pseudo-label": cross_entropy,
    "vote-reward": lambda candidates: agreement(candidates, vote=True),
    "risk-reward": lambda candidates: agreement(candidates, vote=False),
}


def made_by(model: SpeechModel, name: str, batch: Batch) -> Hypotheses:
    """Return the candidates of a method's first update."""
    weights, chosen = model.weights, method(name)
    norms = split(weights, source_parameters(weights, 1))
    memory = forward.cross_memory(weights, forward.encode(weights, norms.encoder, batch.stem))
    keys = torch.tensor([noise_key(chosen, OPTIONS, batch.ids[0], 0)])
    strategies = {"greedy": Greedy(), "beam": BeamSearch(4), "sample": Sampled(keys, 4)}
    wanted = [strategies[chosen.candidates]]
    (made,) = generate(weights, norms.decoder, memory, batch.prompt, model.policy, batch.limits, wanted)
    return made


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("sgem", "suta", "sar") else pytest.mark.slow) for name in OBJECTIVES],
)
def test_baseline_equals_plain_loop(model: SpeechModel, speech: DemoSpeech, name: str) -> None:
    index = 1
    batch = prepare_batch(model, [speech.waveforms[index]], ["en"], [speech.ids[index]])
    made = made_by(model, name, batch)
    folder = folder_of("demo")
    assert folder is not None
    network = WhisperForConditionalGeneration.from_pretrained(Path(folder)).double().eval().requires_grad_(False)
    norms = [part.requires_grad_() for key, part in network.named_parameters() if "layer_norm" in key]
    mel = model.front_end.mel([speech.waveforms[index]], device=model.device, dtype=model.dtype)
    texts = model.texts(made.tokens[0], made.mask[0])

    def loss() -> Tensor:
        candidates = []
        for tokens, mask, text in zip(made.tokens[0], made.mask[0], texts, strict=True):
            own = tokens[mask]
            inputs = torch.cat([batch.prompt[0], own[:-1]]).unsqueeze(0)
            logits = network(input_features=mel, decoder_input_ids=inputs).logits[0, batch.prompt.shape[1] - 1 :]
            first = torch.arange(len(own)) == 0
            candidates.append((model.policy.mask_nodes(logits, first), own, text))
        return PLAIN[name](candidates)

    value = loss()
    gradients = torch.autograd.grad(value, norms)
    norm = torch.cat([part.flatten() for part in gradients]).norm()
    if name == "sar":
        with torch.no_grad():
            for part, gradient in zip(norms, gradients, strict=True):
                part += 0.05 * gradient / norm
        gradients = torch.autograd.grad(loss(), norms)
        network.load_state_dict(WhisperForConditionalGeneration.from_pretrained(Path(folder)).double().state_dict())
    optimizer = torch.optim.AdamW(norms, lr=1e-2, eps=1e-3, weight_decay=OPTIONS.weight_decay)
    for part, gradient in zip(norms, gradients, strict=True):
        part.grad = gradient
    optimizer.step()

    states, parameters = run(model, method(name), OPTIONS, batch)
    update = states[0].update
    assert update is not None
    torch.testing.assert_close(update.loss[0], value.detach(), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(update.gradient_norm[0], norm, rtol=1e-7, atol=1e-10)
    adapted = prepare_weights(network, device=model.device, precision=model.precision).norms.flatten()
    assert (adapted - model.weights.norms.flatten()).abs().max() > 1e-3
    torch.testing.assert_close(parameters[0], adapted, rtol=1e-7, atol=1e-9)


def test_every_baseline_is_compared() -> None:
    assert PLAIN.keys() == OBJECTIVES.keys()
