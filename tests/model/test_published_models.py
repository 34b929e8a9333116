"""Published layouts of Whisper, and common forms of fine-tuned model folders, are read as transformers reads them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from published_whisper import PUBLISHED, make_published
from transformers import GenerationMixin, WhisperFeatureExtractor, WhisperForConditionalGeneration
from whisper_factory import make_checkpoint, sounds

from emtta_core.adaptation import Adapter
from emtta_core.errors import ModelError
from emtta_core.model import load_model

PROMPTS = {  # for German, or for an English-only model
    "openai/whisper-tiny": (50258, 50261, 50359, 50363),
    "openai/whisper-tiny.en": (50257, 50362),
    "openai/whisper-large-v3": (50258, 50261, 50360, 50364),
    "openai/whisper-large-v3-turbo": (50258, 50261, 50360, 50364),
    "distil-whisper/distil-large-v3": (50258, 50261, 50360, 50364),
    "distil-whisper/distil-small.en": (50257, 50362),
}


QUICK = ("tiny", "tiny.en", "large-v3-turbo", "distil-large-v3")
"""Together, these have every feature of the others."""

NAMES = [
    pytest.param(name, marks=() if name.split("/")[1].removeprefix("whisper-") in QUICK else pytest.mark.slow)
    for name in PUBLISHED
]


@pytest.mark.parametrize("name", NAMES)
def test_layout_is_read_and_adapted(name: str, tmp_path: Path) -> None:
    layout, folder = PUBLISHED[name], make_published(tmp_path / "model", name)
    model = load_model(folder, device="cpu")
    spoken = "en" if layout.english else "de"
    assert len(model.languages) == (1 if layout.english else layout.languages)
    usual = PROMPTS["openai/whisper-tiny.en" if layout.english else "openai/whisper-tiny"]
    assert model.prompt.tokens[spoken] == PROMPTS.get(name, usual)
    assert model.max_seconds == 30.0
    assert model.front_end.mel.filters.shape[1] == layout.mel_bins
    assert len(model.weights.decoder_layers) == min(layout.decoder_layers, 4)
    assert model.policy.max_tokens(30.0, "en", model.prompt.length) == 372
    assert model.policy.max_tokens(300.0, "en", model.prompt.length) == 448 - model.prompt.length

    (waveform,) = sounds([0.3], seed=7)
    adapted = Adapter(model, "em-tok-b", steps=1, candidates=2).transcribe([waveform], language=spoken)[0]
    assert adapted.error is None
    theirs = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    features = WhisperFeatureExtractor.from_pretrained(folder)(waveform, sampling_rate=16_000, return_tensors="pt")
    prompt = torch.tensor([model.prompt.tokens[spoken]])
    limit = model.policy.max_tokens(0.3, "en", model.prompt.length)
    with torch.no_grad():  # the mixin's generate: Whisper's own may not stop if a random model emits timestamps
        tokens = GenerationMixin.generate(
            theirs, features.input_features, decoder_input_ids=prompt, max_new_tokens=limit, do_sample=False
        )
    expected = model.tokenizer.decode(tokens[0], skip_special_tokens=True).strip()
    assert adapted.source_hypothesis == expected
    assert expected

    # As in older fine-tuned models: config.json has the lists; the rest comes from the tokenizer and its size.
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").unlink()
    lists = {name: settings[name] for name in ("suppress_tokens", "begin_suppress_tokens")}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | lists))
    assert load_model(folder, device="cpu").digest == model.digest


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


@pytest.mark.parametrize("gone", [("vocab.json", "merges.txt"), ("tokenizer.json",)])
def test_either_tokenizer_form_is_read(whole: Path, copy: Path, gone: tuple[str, ...]) -> None:
    if not (copy / "vocab.json").exists():  # transformers 5 saves no vocab.json
        content = json.loads((copy / "tokenizer.json").read_text())["model"]
        (copy / "vocab.json").write_text(json.dumps(content["vocab"]))
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["merges"]]
        (copy / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    for name in gone:
        (copy / name).unlink()
    model = load_model(copy, device="cpu")
    assert model.digest == load_model(whole, device="cpu").digest


def test_sharded_weights_are_read(whole: Path, copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    WhisperForConditionalGeneration.from_pretrained(whole).save_pretrained(copy, max_shard_size="100KB")
    shards = sorted(copy.glob("model-*-of-*.safetensors"))
    assert len(shards) > 2
    assert load_model(copy, device="cpu").digest == load_model(whole, device="cpu").digest
    shards[1].unlink()
    with pytest.raises(ModelError, match=shards[1].name):
        load_model(copy, device="cpu")


def test_old_config_is_completed(whole: Path, copy: Path) -> None:
    path = copy / "generation_config.json"
    settings = json.loads(path.read_text())
    for name in ("lang_to_id", "task_to_id", "no_timestamps_token_id"):
        del settings[name]
    path.write_text(json.dumps(settings))
    assert load_model(copy, device="cpu").prompt == load_model(whole, device="cpu").prompt


def test_bundled_code_is_not_run(copy: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    (copy / "modeling_own.py").write_text(f"open({str(trace)!r}, 'w')\nclass Own: pass\n")
    config = json.loads((copy / "config.json").read_text())
    named = {"AutoConfig": "modeling_own.Own", "AutoModelForSpeechSeq2Seq": "modeling_own.Own"}
    (copy / "config.json").write_text(json.dumps(config | {"auto_map": named}))
    assert load_model(copy, device="cpu").sample_rate == 16_000
    assert not trace.exists()


def test_pickle_only_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no weights in safetensors.*save_pretrained\(FOLDER\)"):
        load_model(copy, device="cpu")
