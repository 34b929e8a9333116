"""A model is loaded from the demo, a folder or a hub id; the error for an unusable one names the remedy."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from speech2text_factory import make_speech2text
from transformers import WhisperForConditionalGeneration, WhisperTokenizer
from whisper_factory import make_checkpoint

from emtta_core.adaptation import Adapter
from emtta_core.errors import ModelError, UsageError
from emtta_core.model import SpeechModel, load_model
from emtta_core.model.load import choose_device
from emtta_core.model.weights import PRECISIONS
from emtta_core.suite import ModelChoice


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def test_folder_describes_its_content(checkpoint: Path) -> None:
    model = load_model(str(checkpoint), device="cpu")
    assert model.name == str(checkpoint)
    assert model.device == torch.device("cpu")
    assert model.sample_rate == 16_000
    assert model.max_seconds == 4.0
    assert model.languages == ("de", "en", "fr")
    theirs = WhisperForConditionalGeneration.from_pretrained(checkpoint)
    # Whisper's keys have no bias; ours are stacked with queries and values, and have zeros as biases.
    blocks = theirs.config.encoder_layers + 2 * theirs.config.decoder_layers
    assert model.size == theirs.num_parameters() + blocks * theirs.config.d_model


def test_digest_is_of_content(checkpoint: Path, copy: Path) -> None:
    digest = load_model(checkpoint, device="cpu").digest
    assert load_model(copy, device="cpu").digest == digest
    assert load_model(copy, device="cpu", precision="float64").digest == digest
    path = copy / "generation_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"suppress_tokens": [3]}))
    assert load_model(copy, device="cpu").digest != digest


@pytest.mark.parametrize(
    "missing", ["config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json"]
)
def test_missing_file_is_named(copy: Path, missing: str) -> None:
    (copy / missing).unlink()
    with pytest.raises(ModelError) as refusal:
        load_model(copy, device="cpu")
    assert missing in str(refusal.value)
    assert str(copy) in str(refusal.value)


TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt")


@pytest.mark.parametrize("gone", [TOKENIZER, (*TOKENIZER, "tokenizer_config.json")], ids=["words", "all of it"])
def test_missing_tokenizer_is_refused(copy: Path, gone: Sequence[str]) -> None:
    for name in gone:
        (copy / name).unlink()
    with pytest.raises(ModelError, match=r"lacks tokenizer.json \(or vocab.json and .*from the model"):
        load_model(copy, device="cpu")


def test_empty_tokenizer_is_refused(copy: Path) -> None:
    for name in TOKENIZER:
        (copy / name).unlink()
    WhisperTokenizer.from_pretrained(copy).save_pretrained(copy)  # transformers saves this for a missing vocabulary
    with pytest.raises(ModelError, match=r"defines 11 of the 320 text tokens .*; copy tokenizer.json"):
        load_model(copy, device="cpu")


def test_config_lists_are_fallback(checkpoint: Path, copy: Path) -> None:
    settings = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").unlink()
    configure(copy, **{name: settings[name] for name in ("suppress_tokens", "begin_suppress_tokens")})
    theirs, ours = load_model(checkpoint, device="cpu").policy, load_model(copy, device="cpu").policy
    assert torch.equal(ours.bias, theirs.bias)
    assert torch.equal(ours.first_bias, theirs.first_bias)
    configure(copy, suppress_tokens=[], begin_suppress_tokens=None)  # explicitly empty
    assert not load_model(copy, device="cpu").policy.bias.any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"suppress_tokens": [1, 99_999]}, r"suppress_tokens .* has 99999, but the model's tokens are 0 to 330; use"),
        (
            {"suppress_tokens": [-1]},
            r"has -1, .*; -1 means the non-speech tokens only in openai/whisper;",
        ),
        ({"begin_suppress_tokens": [220, 331]}, r"begin_suppress_tokens .* has 331,"),
        ({"eos_token_id": 5000}, r"eos_token_id .* has 5000,"),
    ],
)
def test_unknown_token_is_refused(copy: Path, settings: dict[str, object], words: str) -> None:
    configure(copy, "generation_config.json", **settings)
    with pytest.raises(ModelError, match=words):
        load_model(copy, device="cpu")


RULES = ({"repetition_penalty": 1.2}, {"no_repeat_ngram_size": 3}, {"bad_words_ids": [[7]]}, {"length_penalty": 0.6})


@pytest.mark.parametrize("rule", [*RULES, {"min_new_tokens": 4}])
def test_generation_rules_are_not_ignored(copy: Path, rule: dict[str, object]) -> None:
    configure(copy, "generation_config.json", **rule)
    with pytest.raises(
        ModelError, match=rf"{next(iter(rule))} in the generation config is .* family = \"transformers\""
    ):
        load_model(copy, device="cpu")
    assert load_model(copy, device="cpu", family="transformers")
    configure(copy, "generation_config.json", **dict.fromkeys(rule))
    assert load_model(copy, device="cpu")


def test_several_end_tokens_are_refused(checkpoint: Path, copy: Path) -> None:
    end = load_model(checkpoint, device="cpu").policy.end
    configure(copy, "generation_config.json", eos_token_id=[end])
    assert load_model(copy, device="cpu").policy.end == end
    configure(copy, "generation_config.json", eos_token_id=[end, 5])
    with pytest.raises(ModelError, match=rf"eos_token_id .* names 2 tokens \(5, {end}\).*generation_config\.json"):
        load_model(copy, device="cpu")


@pytest.mark.parametrize(
    "settings",
    [
        {"suppress_tokens": list(range(331))},
        {"begin_suppress_tokens": list(range(331))},
        {"suppress_tokens": list(range(200)), "begin_suppress_tokens": list(range(200, 331))},
        {"suppress_tokens": [token for token in range(331) if token != 300], "eos_token_id": 300},
    ],
)
def test_all_tokens_suppressed_is_refused(copy: Path, settings: dict[str, object]) -> None:
    configure(copy, "generation_config.json", **{"begin_suppress_tokens": None, **settings})
    with pytest.raises(ModelError, match=r"suppress_tokens .* leave none of the model's 331 tokens to begin"):
        load_model(copy, device="cpu")


def test_broken_weights_file_is_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"is cut off or damaged .*; get it again"):
        load_model(copy, device="cpu")


def rename(copy: Path, named: Callable[[str], str]) -> None:
    """Rename a model's weights; an empty name drops a weight."""
    weights = load_file(copy / "model.safetensors")
    kept = {named(name): tensor for name, tensor in weights.items() if named(name)}
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})


def configure(copy: Path, name: str = "config.json", **settings: object) -> None:
    """Change settings in one of a model's files."""
    path = copy / name
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize("family", ["whisper", "speech_to_text"])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"decoder_layers": 3}, r"lack 2\d that its config.json asks for \(model.decoder.layers.2.*, …\);"),
        ({"decoder_layers": 1}, r"have 2\d that are not in the model of its config.json \(model.decoder.layers.1"),
        ({"decoder_ffn_dim": 80}, r"6 whose shape differs from its config.json .*fc1.bias \(\d\d,\), not \(80,\)"),
    ],
    ids=["missing", "left over", "another shape"],
)
def test_weights_must_fit_config(
    checkpoint: Path, tmp_path: Path, family: str, settings: dict[str, object], words: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint if family == "whisper" else make_speech2text(tmp_path / "made"), folder)
    load_model(folder, device="cpu")
    configure(folder, **settings)
    with pytest.raises(ModelError, match=f"the weights in {folder} .*{words}.*the same model"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("prefix", ["base_model.model.", "module."])
def test_wrapped_weights_are_refused(copy: Path, prefix: str) -> None:
    rename(copy, lambda name: prefix + name)
    with pytest.raises(ModelError, match=rf"lack .*have .*\({re.escape(prefix)}model.*save the inner model"):
        load_model(copy, device="cpu")


def test_untied_output_must_exist(copy: Path) -> None:
    configure(copy, tie_word_embeddings=False)
    with pytest.raises(ModelError, match=r"lack 1 that its config.json asks for \(proj_out.weight\)"):
        load_model(copy, device="cpu")


def test_legacy_entries_are_harmless(checkpoint: Path, copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    more = {"model.encoder.version": torch.ones(1), "proj_out.weight": weights["model.decoder.embed_tokens.weight"] + 0}
    save_file(weights | more, copy / "model.safetensors", metadata={"format": "pt"})
    rename(copy, lambda name: "" if name == "model.encoder.embed_positions.weight" else name)
    digest = load_model(checkpoint, device="cpu").digest
    assert load_model(copy, device="cpu").digest == digest
    rename(copy, lambda name: name.removeprefix("model."))  # the names of a network without its output projection
    assert load_model(copy, device="cpu").digest == digest


def test_pickled_weights_are_not_read(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_model(copy, device="cpu")


def test_other_model_kind_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match=r"'bert'.*'whisper'"):
        load_model(copy, device="cpu")


def test_mismatched_parts_are_refused(copy: Path) -> None:
    path = copy / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chunk_length": 5, "n_samples": 80_000}))
    with pytest.raises(ModelError, match=r"312 frames.*250"):
        load_model(copy, device="cpu")


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "a/b/c"])
def test_missing_folder_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="no folder"):
        load_model(name, device="cpu")


def test_file_is_not_folder(copy: Path) -> None:
    with pytest.raises(ModelError, match="is a file; name the folder"):
        load_model(copy / "config.json", device="cpu")


def test_unreachable_hub_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "from emtta_core import load_model\n"
        "from emtta_core.errors import EmttaError\n"
        "try:\n"
        "    load_model('nobody/no-such-whisper', device='cpu')\n"
        "except EmttaError as error:\n"
        "    print(error)\n"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert "'nobody/no-such-whisper'" in made.stdout
    assert "give its folder" in made.stdout


def test_unknown_precision_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="'toaster'"):
        load_model(checkpoint, device="toaster")
    with pytest.raises(UsageError, match=r"'int3'.*float32"):
        load_model(checkpoint, precision="int3")


def test_suite_lists_all_precisions() -> None:
    assert get_args(ModelChoice.model_fields["precision"].annotation) == tuple(PRECISIONS)


def test_engine_imports_are_minimal() -> None:
    script = (
        "import sys\n"
        "import emtta_core.adaptation, emtta_core.model\n"
        "print([name for name in ('prefect', 'pydantic', 'duckdb', 'pyarrow', 'soundfile', 'datasets') "
        "if name in sys.modules])\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert made.stdout.strip() == "[]"


def test_listing_methods_needs_no_torch() -> None:
    script = "import sys, emtta_core.adaptation; print(list(emtta_core.adaptation.METHODS)[0], 'torch' in sys.modules)"
    made = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert made.stdout.split() == ["source", "False"]


def test_unusable_device_names_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty", failing(RuntimeError("The NVIDIA driver is too old (found 11040).\nUpdate it")))
    with pytest.raises(
        UsageError, match=r"'cuda' cannot be used .*\(The NVIDIA driver is too old \(found 11040\)\.\); use"
    ):
        choose_device("cuda")
    monkeypatch.setattr(torch, "empty", failing(AssertionError("Torch not compiled with CUDA enabled")))
    with pytest.raises(UsageError, match=r"\(Torch not compiled with CUDA enabled\)"):
        choose_device("cuda")


def test_out_of_memory_is_not_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty", failing(torch.AcceleratorError("CUDA error: out of memory\nMore")))
    with pytest.raises(torch.AcceleratorError, match="out of memory"):
        choose_device("cuda")


def failing(error: Exception) -> Callable[..., torch.Tensor]:
    def fail(*_: object, **__: object) -> torch.Tensor:
        raise error

    return fail


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_adapter_without_peft_is_refused(copy: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / name).write_text("{}")
    monkeypatch.setattr("emtta_core.model.model_files.find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"has adapter_config\.json: .*pip install 'emtta\[peft\]'.*merge_and_unload"):
        load_model(copy, device="cpu")


def test_lora_adapter_is_merged(checkpoint: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    network = WhisperForConditionalGeneration.from_pretrained(checkpoint)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(network, settings)
    wrapped.save_pretrained(tmp_path / "lora")
    merged = wrapped.merge_and_unload()
    base, adapted = load_model(checkpoint, device="cpu"), load_model(tmp_path / "lora", device="cpu")
    assert adapted.digest != base.digest
    assert isinstance(adapted, SpeechModel)
    wanted = merged.state_dict()["model.decoder.layers.1.encoder_attn.v_proj.weight"]
    memory = adapted.weights.decoder_layers[1].cross_attention.memory
    assert memory is not None
    torch.testing.assert_close(memory[len(wanted) :], wanted)
    Adapter(load_model(tmp_path / "lora", device="cpu", family="transformers"), "greedy-em")
    config = tmp_path / "lora" / "adapter_config.json"
    for change, words in (
        (
            {"base_model_name_or_path": "some/base"},
            r"belongs to the model 'some/base' at main, .*hf download some/base",
        ),
        ({"base_model_name_or_path": str(tmp_path / "gone")}, r"belongs to the model .*gone.*no folder"),
        ({"base_model_name_or_path": None}, r"lacks a readable adapter_config\.json with base_model_name_or_path"),
    ):
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
        with pytest.raises(ModelError, match=words):
            load_model(tmp_path / "lora", device="cpu")


def test_quantised_weights_are_refused(copy: Path) -> None:
    configure(copy, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    with pytest.raises(ModelError, match=r"quantised weights \(quantization_config .*dequantize"):
        load_model(copy, device="cpu")


def test_weights_of_two_models_are_refused(copy: Path) -> None:
    (copy / "model-00001-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(
        ModelError, match=r"model\.safetensors and model-00001-of-00002\.safetensors: the weights of two"
    ):
        load_model(copy, device="cpu")


@pytest.mark.parametrize("multilingual", [True, False])
def test_whisper_prompt_tokens_must_exist(tmp_path: Path, multilingual: bool) -> None:
    copy = make_checkpoint(tmp_path / "made", multilingual=multilingual)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    settings = json.loads((copy / "generation_config.json").read_text())
    for name in ("lang_to_id", "task_to_id", "no_timestamps_token_id"):
        settings.pop(name, None)
    (copy / "generation_config.json").write_text(json.dumps(settings))
    kind = r"multilingual .*<\|notimestamps\|> nor <\|transcribe\|> nor a language" if multilingual else "English"
    with pytest.raises(ModelError, match=rf"the {kind}.*; copy generation_config\.json"):
        load_model(copy, device="cpu")
