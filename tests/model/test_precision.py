"""A precision determines what is kept in few bits and what is not, and restores torch's settings."""

import threading
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import numpy as np
import pytest
import torch
from demo_speech import DemoSpeech, prepare
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import WhisperForConditionalGeneration

from emtta_core.adaptation import Adapter, method
from emtta_core.adaptation.episode import Batch, candidate_loss, prepare_batch, run, source_parameters, split
from emtta_core.adaptation.objective import token_statistics
from emtta_core.adaptation.options import Options
from emtta_core.errors import UsageError
from emtta_core.model import SpeechModel, forward, load_model
from emtta_core.model.beam_search import BeamSearch
from emtta_core.model.candidates import generate
from emtta_core.model.forward import grow
from emtta_core.model.weights import PRECISIONS, choose_precision
from emtta_core.scoring import word_errors

BACKENDS: Any = torch.backends
GPU = torch.device("cuda")  # selecting a GPU's arithmetic needs only its name


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> DemoSpeech:
    return prepare(tmp_path_factory.mktemp("demo") / "store", ("GS", "Lancaster", "Italian"), 4)


@pytest.fixture(scope="module")
def models() -> dict[str, SpeechModel]:
    return {name: load_model("demo", device="cpu", precision=name) for name in ("float32", "float64", "bf16")}


def batch_of(model: SpeechModel, speech: DemoSpeech, count: int) -> Batch:
    return prepare_batch(model, speech.waveforms[:count], speech.languages[:count], speech.ids[:count])


LONG = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.float32}
SHORT = LONG | {"bf16": torch.bfloat16}


@pytest.mark.parametrize("name", LONG)
def test_weights_are_short_but_sums_long(models: dict[str, SpeechModel], speech: DemoSpeech, name: str) -> None:
    model = models[name]
    weights, long, short = model.weights, LONG[name], SHORT[name]
    assert weights.norms.dtype == model.policy.bias.dtype == long
    assert {tensor.dtype for tensor in weights.tensors() if tensor is not weights.norms} == {short}

    batch = batch_of(model, speech, 2)
    parameters = source_parameters(weights, 2).requires_grad_()
    norms = split(weights, parameters)
    assert batch.stem.dtype == parameters.dtype == norms.encoder.dtype == long
    memory = forward.cross_memory(weights, forward.encode(weights, norms.encoder, batch.stem))
    assert {part.dtype for pair in memory.layers for part in pair} == {short}
    (beams,) = generate(weights, norms.decoder, memory, batch.prompt, model.policy, batch.limits, [BeamSearch(3)])
    loss, entropy = candidate_loss(model, method("em-tok-b"), norms, memory, batch.prompt, beams)
    (gradient,) = torch.autograd.grad(loss.total.sum(), parameters)
    parts = (loss.total, loss.policy, loss.entropy, loss.advantage, entropy, gradient)
    assert {part.dtype for part in parts} == {long}


@pytest.mark.parametrize("name", LONG)
def test_optimizer_and_trace_are_long(models: dict[str, SpeechModel], speech: DemoSpeech, name: str) -> None:
    seen: set[torch.dtype] = set()

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for parameter, moments in optimizer.state.items():
            seen.update({parameter.dtype, parameter.grad.dtype, moments["exp_avg"].dtype, moments["exp_avg_sq"].dtype})

    hook = register_optimizer_step_post_hook(look)
    try:
        batch = batch_of(models[name], speech, 2)
        states, parameters = run(models[name], method("em-tok-b"), Options(steps=2, candidates=3), batch)
    finally:
        hook.remove()
    assert seen == {LONG[name]}
    assert parameters.dtype == LONG[name]
    for state in states:
        assert state.greedy is not None
        assert state.greedy.entropy is not None
        assert state.greedy.entropy.dtype == LONG[name]


def test_bf16_keeps_small_updates(models: dict[str, SpeechModel], speech: DemoSpeech) -> None:
    model = models["bf16"]
    source = source_parameters(model.weights, 2)
    _, parameters = run(model, method("em-tok-b"), Options(steps=1, candidates=3), batch_of(model, speech, 2))
    moved = (parameters - source).abs()
    assert 5e-4 < moved.median() < 2e-3  # AdamW's first update is the learning rate, 1e-3
    rounded = parameters.bfloat16().float() - source.bfloat16().float()
    assert (rounded == 0)[source > 0.5].float().mean() > 0.5  # bfloat16 parameters would have lost most updates


def test_bf16_entropies_sum_in_float32(models: dict[str, SpeechModel], speech: DemoSpeech) -> None:
    model = models["bf16"]
    batch = batch_of(model, speech, 4)
    norms = split(model.weights, source_parameters(model.weights, 4))
    with torch.no_grad():
        memory = forward.cross_memory(model.weights, forward.encode(model.weights, norms.encoder, batch.stem))
        (beams,) = generate(
            model.weights, norms.decoder, memory, batch.prompt, model.policy, batch.limits, [BeamSearch(4)]
        )
        tree = grow(batch.prompt, beams.tokens, beams.mask, dtype=model.weights.head.dtype)
        hidden = forward.decode(model.weights, norms.decoder, memory, tree.nodes, tree.visible)
        logits = model.policy.mask_nodes(
            forward.logits(model.weights, hidden.index_select(0, tree.contexts)), tree.first
        )
    tokens = logits.argmax(-1)
    for found, expected in zip(
        token_statistics(logits, tokens), token_statistics(logits.double(), tokens), strict=True
    ):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_float64_matches_transformers(models: dict[str, SpeechModel], speech: DemoSpeech) -> None:
    model = models["float64"]
    network = WhisperForConditionalGeneration.from_pretrained(str(resources.files("emtta_core.model") / "demo"))
    features = model.front_end.mel(speech.waveforms[:3], device=model.device, dtype=torch.float64)
    norms = split(model.weights, source_parameters(model.weights, 3))
    candidates = torch.randint(0, 500, (3, 2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(candidates, dtype=torch.bool)
    prompt = model.prompt.rows(["en", "de", "it"], model.device)
    with torch.no_grad():
        encoded = forward.encode(model.weights, norms.encoder, model.front_end.stem(features))
        tree = grow(prompt, candidates, mask, dtype=torch.float64)
        memory = forward.cross_memory(model.weights, encoded)
        hidden = forward.decode(model.weights, norms.decoder, memory, tree.nodes, tree.visible)
        found = forward.logits(model.weights, hidden.index_select(0, tree.contexts))[tree.owner]
        inputs = torch.cat([prompt.repeat_interleave(2, 0), candidates.flatten(0, 1)[:, :-1]], dim=1)
        theirs = (
            network.eval()
            .double()(input_features=features.repeat_interleave(2, 0), decoder_input_ids=inputs)
            .logits[:, prompt.shape[1] - 1 :]
        )
    torch.testing.assert_close(found.flatten(0, 1), theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_bf16_matches_float32_on_demo(models: dict[str, SpeechModel], speech: DemoSpeech) -> None:
    errors, words, entropies = {}, 0, {}
    for name in ("float32", "bf16"):
        adapter = Adapter(models[name], "em-tok-b", steps=3, candidates=4, trace="none")
        results = adapter.transcribe(speech.waveforms, speech.languages, speech.ids)
        scores = [
            word_errors(transcript, result.hypothesis, language)
            for transcript, result, language in zip(speech.transcripts, results, speech.languages, strict=True)
        ]
        errors[name], words = sum(score.errors for score in scores), sum(score.words for score in scores)
        entropies[name] = np.array([result.entropy_before for result in results])
    assert abs(errors["bf16"] - errors["float32"]) <= 0.05 * words
    assert errors["float32"] < 0.5 * words
    np.testing.assert_allclose(entropies["bf16"], entropies["float32"], rtol=0.1, atol=0.01)
    assert (entropies["bf16"] != entropies["float32"]).all()


def test_tf32_requires_gpu() -> None:
    message = "precision 'tf32' needs a GPU, and the device is 'cpu'; use 'float32' there"
    with pytest.raises(UsageError, match=message):
        choose_precision("tf32", torch.device("cpu"))
    with pytest.raises(UsageError, match=message):
        load_model("demo", device="cpu", precision="tf32")
    assert choose_precision("tf32", GPU).tensor_float


def test_unknown_name_lists_known() -> None:
    with pytest.raises(
        UsageError,
        match=r"unknown precision 'fp16' \(did you mean 'bf16'\?\); choose from: bf16, float32, float64, tf32",
    ):
        load_model("demo", device="cpu", precision="fp16")


def settings() -> tuple[str, str]:
    """Return the precision of torch's float32 products and convolutions on a GPU."""
    return BACKENDS.cuda.matmul.fp32_precision, BACKENDS.cudnn.conv.fp32_precision


def by_matmul_precision() -> None:
    torch.set_float32_matmul_precision("high")


def by_allow_tf32() -> None:
    BACKENDS.cuda.matmul.allow_tf32 = True


def by_fp32_precision() -> None:
    BACKENDS.cuda.matmul.fp32_precision, BACKENDS.cudnn.conv.fp32_precision = "tf32", "ieee"


def by_none() -> None:
    """Keep torch's default."""


CHOSEN = (by_none, by_matmul_precision, by_allow_tf32, by_fp32_precision)


@pytest.fixture(params=CHOSEN, ids=lambda choose: choose.__name__)
def chosen(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The settings chosen by the program around emtta, in each way that torch provides."""
    before = settings()
    choose: Callable[[], None] = request.param
    choose()
    yield settings()
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cuda.matmul.fp32_precision, BACKENDS.cudnn.conv.fp32_precision = before


@pytest.mark.parametrize(("name", "inside"), [("tf32", "tf32"), ("float32", "ieee"), ("bf16", "ieee")])
def test_gpu_setting_is_restored(chosen: tuple[str, str], name: str, inside: str) -> None:
    precision = PRECISIONS[name]
    with precision.arithmetic(GPU):
        assert settings() == (inside, inside)
    assert settings() == chosen
    with pytest.raises(ZeroDivisionError), precision.arithmetic(GPU):
        _ = 1 / 0
    assert settings() == chosen


def test_gpu_threads_take_turns() -> None:
    before, seen = settings(), {}
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with PRECISIONS["tf32"].arithmetic(GPU):
            inside.set()
            leave.wait(30)
            seen["first"] = settings()

    def follow() -> None:
        with PRECISIONS["float32"].arithmetic(GPU):
            seen["second"] = settings()

    first, second = threading.Thread(target=hold), threading.Thread(target=follow)
    first.start()
    assert inside.wait(30)
    second.start()
    second.join(0.2)
    assert second.is_alive()
    leave.set()
    first.join(30)
    second.join(30)
    assert seen == {"first": ("tf32", "tf32"), "second": ("ieee", "ieee")}
    assert settings() == before


def test_cpu_sets_nothing(chosen: tuple[str, str]) -> None:
    with PRECISIONS["float32"].arithmetic(torch.device("cpu")):
        assert settings() == chosen


@pytest.mark.parametrize("before", [True, False])
def test_gpu_attention_avoids_cudnn(before: bool) -> None:
    usual = BACKENDS.cuda.cudnn_sdp_enabled()
    BACKENDS.cuda.enable_cudnn_sdp(before)
    try:
        with PRECISIONS["bf16"].arithmetic(GPU):
            assert not BACKENDS.cuda.cudnn_sdp_enabled()
        assert BACKENDS.cuda.cudnn_sdp_enabled() == before
    finally:
        BACKENDS.cuda.enable_cudnn_sdp(usual)
