"""Any kind of model runs on the generic path: evaluated end to end, or refused with a remedy."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from conftest import Command, Speech, SuiteFile
from generic_factory import KINDS
from speech2text_factory import make_speech2text
from transformers import AutoProcessor, AutoTokenizer, MoonshineForConditionalGeneration, Wav2Vec2ForCTC
from whisper_factory import sounds

from emtta_core.adaptation import Adapter
from emtta_core.errors import ModelError, UsageError
from emtta_core.model import TransformersModel, load_model
from emtta_core.store import Store
from emtta_core.store.catalogue import Catalogue

METHODS = {
    "glmasr": ("greedy-em", "em-tok"),
    "moonshine": ("source-beam", "greedy-em", "em-tok", "em-tok-b"),
    "qwen2_audio": ("source-beam", "greedy-em", "em-tok", "em-tok-b"),
    "speech_to_text": ("greedy-em", "em-tok-b+mbr"),
    "wav2vec2": ("source", "greedy-em", "suta"),
}
USUAL = [pytest.param(kind, marks=pytest.mark.slow if kind == "qwen2_audio" else ()) for kind in METHODS]
"""GLM-ASR stands for the language models that hear audio."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    made = {kind: make(folder / kind) for kind, make in KINDS.items()}
    return made | {"speech_to_text": make_speech2text(folder / "speech_to_text")}


def loaded(folder: Path, **options: str) -> TransformersModel:
    model = load_model(folder, device="cpu", **{"family": "transformers", **options})
    assert isinstance(model, TransformersModel)
    return model


@pytest.mark.parametrize("kind", USUAL)
def test_methods_adapt_and_restore(folders: dict[str, Path], kind: str) -> None:
    model = loaded(folders[kind])
    source = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    for method in METHODS[kind]:
        adapter = Adapter(model, method, steps=2, candidates=3, beams=3, learning_rate=3e-3)
        results = adapter.transcribe(sounds([0.8, 1.4]))
        assert [result.error for result in results] == [None, None]
        moved = [abs(result.entropy_after - result.entropy_before) for result in results]
        assert (max(moved) > 1e-5) == (not method.startswith("source"))
        if method == "greedy-em":  # the loss and generation use the same distribution
            assert [result.trace[0].loss for result in results] == pytest.approx(
                [result.entropy_before for result in results], rel=1e-5
            )
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, source[name]), name
    assert load_model(folders[kind], device="cpu", family="transformers").digest == model.digest


@pytest.mark.parametrize("kind", ["moonshine", "qwen2_audio"])
def test_greedy_text_matches_generate(folders: dict[str, Path], kind: str) -> None:
    model = loaded(folders[kind])
    (waveform,) = sounds([1.1])
    (result,) = Adapter(model, "source").transcribe([waveform])
    inputs = model.front_end(waveform, device=model.device, dtype=model.dtype)
    begin = inputs["input_ids"].shape[1] if kind == "qwen2_audio" else 0
    tokens = model.network.generate(**inputs, max_new_tokens=model.max_tokens(len(waveform), "en"))[0, begin:]
    assert result.hypothesis == model.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    assert result.hypothesis


def test_ctc_text_matches_transformers(folders: dict[str, Path]) -> None:
    processor = AutoProcessor.from_pretrained(folders["wav2vec2"])
    network = Wav2Vec2ForCTC.from_pretrained(folders["wav2vec2"]).eval()
    (waveform,) = sounds([1.1])
    (result,) = Adapter(loaded(folders["wav2vec2"]), "source").transcribe([waveform])
    with torch.no_grad():
        logits = network(**processor(waveform, sampling_rate=16_000, return_tensors="pt")).logits
    assert result.hypothesis == processor.batch_decode(logits.argmax(-1))[0].strip()
    assert result.tokens == logits.shape[1]


def test_suta_on_frames_matches_paper(folders: dict[str, Path]) -> None:
    model = loaded(folders["wav2vec2"], precision="float64")
    (waveform,) = sounds([1.1])
    (result,) = Adapter(model, "suta", steps=1, weight_decay=0.0).transcribe([waveform])
    network, blank, classes = model.network, 0, model.network.config.vocab_size
    adapted = [name for name, _ in network.named_parameters() if "feature_" in name or "layer_norm" in name]
    for name in adapted:
        network.get_parameter(name).requires_grad_(True)
    inputs = model.front_end(waveform, device=model.device, dtype=model.dtype)
    logits = network(**inputs).logits[0]
    probs = (logits / 2.5).softmax(-1)
    entropy = -(probs * probs.log()).sum(-1)
    weight = 1 + torch.exp(-entropy.detach())
    correlation = probs.T @ (weight.unsqueeze(1) * probs)
    correlation = correlation / correlation.sum(1, keepdim=True)
    confusion = (correlation.sum() - correlation.trace()) / classes
    loss = 0.3 * entropy[logits.argmax(-1) != blank].mean() + 0.7 * confusion
    gradients = torch.autograd.grad(loss, [network.get_parameter(name) for name in adapted])
    assert result.trace[0].loss == pytest.approx(loss.item(), rel=1e-9)
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    assert result.trace[0].gradient_norm == pytest.approx(norm, rel=1e-9)


@pytest.mark.parametrize("kind", ["moonshine", pytest.param("qwen2_audio", marks=pytest.mark.slow), "wav2vec2"])
def test_run_evaluates_kind(
    folders: dict[str, Path],
    kind: str,
    emtta: Command,
    suite_file: SuiteFile,
    speech: Speech,
    tiny_model: Path,
    tmp_path: Path,
    prefect_server: str,
) -> None:
    path = suite_file(methods=("source", "greedy-em", "suta") if kind == "wav2vec2" else ("source", "em-tok-b"))
    suite = path.read_text().replace(str(tiny_model), str(folders[kind]))
    if kind == "moonshine":  # has a family too
        path.write_text(suite.replace("model = {", 'model = { family = "transformers",'))
        assert model_path(emtta, path).startswith("moonshine: generic: transformers' own code, one utterance at a time")
    path.write_text(suite)
    descriptions = {
        "moonshine": "fast: utterances side by side",
        "qwen2_audio": "generic, a decoder with audio input",
        "wav2vec2": "CTC",
    }
    assert model_path(emtta, path).startswith(f"{kind}: {descriptions[kind]}")
    outcome = emtta("run", path, "--store", tmp_path / "store")
    assert outcome.code == 0, outcome.err
    with Catalogue(Store.open(tmp_path / "store")) as catalogue:
        rows = catalogue.query("SELECT method, count(*) FROM utterances WHERE error IS NULL GROUP BY method").rows
    assert {count for _, count in rows} == {3}
    assert len(rows) == (3 if kind == "wav2vec2" else 2)


def model_path(emtta: Command, suite: Path) -> str:
    checks = json.loads(emtta("doctor", suite, "--format", "json").out)["checks"]
    (found,) = [check["found"] for check in checks if check["what"] == "model path"]
    return str(found)


def test_unsupported_request_is_refused(
    folders: dict[str, Path], emtta: Command, suite_file: SuiteFile, speech: Speech, tiny_model: Path, tmp_path: Path
) -> None:
    words = r"is a CTC model.*method 'em-tok-b'.*possible are source, greedy-em, suta"
    with pytest.raises(UsageError, match=words):
        Adapter(loaded(folders["wav2vec2"]), "em-tok-b")
    path = suite_file()
    suite = path.read_text()
    moonshine = f'"{folders["moonshine"]}", family = "transformers"'
    for model, message in (
        (f'"{folders["wav2vec2"]}"', "possible are source"),
        (f'{moonshine}, language = "detect"', "languages are not detected"),
        (f'{moonshine} }}\nstream = {{ reset = "never"', "streams are not supported"),
    ):
        path.write_text(suite.replace(f'"{tiny_model}"', model))
        for verb in (("run", path, "--store", tmp_path / "store"), ("doctor", path)):
            outcome = emtta(*verb)
            assert outcome.code != 0
            assert message in " ".join((outcome.out + outcome.err).split())


def test_model_without_norms_is_named(folders: dict[str, Path]) -> None:
    model = loaded(folders["moonshine"])
    model.norms.clear()
    assert Adapter(model, "source").transcribe(sounds([0.8]))[0].error is None
    with pytest.raises(UsageError, match=r"MoonshineForConditionalGeneration.*no LayerNorm or RMSNorm.*as 'source'"):
        Adapter(model, "greedy-em")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in ("glmasr", "moonshine") else pytest.mark.slow) for kind in METHODS]
)
def test_bf16_keeps_float32_norms(folders: dict[str, Path], kind: str) -> None:
    model, exact = loaded(folders[kind], precision="bf16"), loaded(folders[kind])
    assert {parameter.dtype for parameter in model.norms.values()} == {torch.float32}
    halves = sum(parameter.dtype == torch.bfloat16 for parameter in model.network.parameters())
    assert halves > len(model.norms)
    source = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    method = "suta" if kind == "wav2vec2" else "em-tok-b"
    (found,), (wanted,) = (
        Adapter(each, method, steps=2, candidates=2, learning_rate=3e-3).transcribe(sounds([0.8]))
        for each in (model, exact)
    )
    assert found.error is None
    assert found.entropy_before == pytest.approx(wanted.entropy_before, rel=0.05)
    assert found.trace[0].gradient_norm > 0
    assert found.trace[0].loss != wanted.trace[0].loss
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, source[name]), name


def test_missing_half_is_refused(folders: dict[str, Path]) -> None:
    model = loaded(folders["wav2vec2"])
    with pytest.raises(UsageError, match=r"no LayerNorm or RMSNorm in its decoder.*use 'layernorm'"):
        model.half("decoder")
    assert len(model.half("encoder")) == len(model.norms)


def test_unsupported_kind_says_why(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "canary"}))
    with pytest.raises(ModelError, match=r"kind 'canary', .* its processor makes its prompt, by language; .*family"):
        load_model(tmp_path, device="cpu")


def test_generic_path_cannot_detect_language(folders: dict[str, Path], tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=r"languages are not detected on the generic path.*language = 'corpus'"):
        loaded(tiny_model).prompt.common()
    with pytest.raises(UsageError, match="unknown language 'xx'"):
        Adapter(loaded(tiny_model), "source").transcribe(sounds([0.5]), language="xx")
    assert loaded(folders["moonshine"]).languages == ()


def test_finetuned_model_loads(folders: dict[str, Path], tmp_path: Path) -> None:
    network = MoonshineForConditionalGeneration.from_pretrained(folders["moonshine"])
    tokenizer = AutoTokenizer.from_pretrained(folders["moonshine"])
    tokenizer.add_tokens(["harbour-master", "fox-hunter"])
    network.resize_token_embeddings(len(tokenizer))
    folder = tmp_path / "dialect"
    network.half().save_pretrained(folder, max_shard_size="40KB")
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    assert (folder / "model.safetensors.index.json").exists()
    with pytest.raises(ModelError, match=r"lacks preprocessor_config\.json; .* from the model that it started from"):
        loaded(folder)
    shutil.copy(folders["moonshine"] / "preprocessor_config.json", folder)
    theirs = MoonshineForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    (waveform,) = sounds([1.1])
    for model in (load_model(folder, device="cpu"), loaded(folder)):
        assert len(model.policy.bias) == len(tokenizer)
        (result,) = Adapter(model, "source").transcribe([waveform])
        limit = model.max_tokens(len(waveform), "en")
        tokens = theirs.generate(torch.from_numpy(waveform)[None], max_new_tokens=limit)[0]
        assert result.hypothesis == tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert result.hypothesis


def test_missing_end_token_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["moonshine"], tmp_path / "endless"))
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(settings | {"eos_token_id": None}))
    with pytest.raises(ModelError, match=r"no token that ends a transcript; set eos_token_id in"):
        loaded(folder)
